//! Our certificate, and the authorities for clients', through our life: read before anything is started,
//! and again on SIGHUP. Knows nothing of who is let in by them.

use anyhow::Result;
use bridge::tls::{Acceptor, Files, Tls};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::exit::Failure;

/// Why TLS is off.
#[derive(Debug)]
enum Off {
    /// There is no certificate, as in most first runs: that is no fault.
    Missing,
    Unusable(String),
}

/// Our certificate, and the authorities for clients', as they were read last.
#[derive(Debug)]
pub(crate) struct Certificates {
    files: Files,
    tls: watch::Sender<Tls>,
    /// Why TLS is off, until that is said.
    off: Option<Off>,
    warnings: Vec<String>,
}

impl Certificates {
    /// Reads the files; where there is no usable certificate, TLS is off.
    ///
    /// # Errors
    ///
    /// There is none although it `is_needed`.
    pub(crate) fn load(files: &Files, is_needed: bool) -> Result<Self> {
        let mut off = None;
        let (tls, warnings) = match Acceptor::load(files) {
            Ok((acceptor, warnings)) => (Tls::On(acceptor), warnings),
            Err(unusable) if is_needed => return Err(unusable.into()),
            Err(unusable) => {
                let is_missing = unusable.is_missing();
                let reason = Failure::from(anyhow::Error::from(unusable)).reason;
                off = Some(if is_missing { Off::Missing } else { Off::Unusable(reason.clone()) });
                (Tls::Off(reason), vec![])
            }
        };
        Ok(Self { files: files.clone(), tls: watch::Sender::new(tls), off, warnings })
    }

    /// Says, once the bridge is open, that clients are not served by TLS, and why.
    pub(crate) fn report_off(&mut self) {
        match self.off.take() {
            None => {}
            Some(Off::Missing) => {
                info!("No certificate ({}): TLS is off", self.files.certificate.display());
            }
            Some(Off::Unusable(reason)) => warn!("TLS is off: {reason}"),
        }
    }

    /// Says what is to be said of them, once there is a log.
    pub(crate) fn report(&self) {
        for warning in &self.warnings {
            warn!("{warning}");
        }
    }

    /// Reads the files again, for the clients to come. Files that cannot be used change nothing.
    pub(crate) fn reload(&mut self) {
        match Acceptor::load(&self.files) {
            Ok((acceptor, warnings)) => {
                self.tls.send_replace(Tls::On(acceptor));
                self.off = None;
                self.warnings = warnings;
                info!("certificates are reloaded");
                self.report();
            }
            Err(unusable) => {
                let is_missing = unusable.is_missing();
                let reason = Failure::from(anyhow::Error::from(unusable)).reason;
                if matches!(*self.tls.borrow(), Tls::On(_)) {
                    warn!("the old certificates stay in use: {reason}");
                } else if is_missing {
                    info!("TLS stays off: {reason}");
                } else {
                    warn!("TLS stays off: {reason}");
                }
            }
        }
    }

    /// What new clients are served by, now and after each reload.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Tls> {
        self.tls.subscribe()
    }
}
