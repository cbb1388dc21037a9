//! Our certificate, and the authorities for clients' certificates: read before anything is started, and again when the
//! files change and on SIGHUP. Knows neither who is let in by them, nor how changes are noticed.

mod reading;

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use bridge::Private;
use bridge::tls::{Acceptor, Files, Offer, Sources, Tls, Unusable};
use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tracing::{info, warn};

use crate::config::access::{Access, Need};
use crate::exit::Failure;
use crate::machine::changes::FileWatcher;
use reading::{Reading, Unread};

/// How long reading the files again may take before the log warns of it.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// After which time they are read if no thread could be started for that.
const NEXT_READING: Duration = Duration::from_secs(1);

/// Why TLS is off.
#[derive(Debug)]
enum Off {
    /// There is no certificate, and nobody has named one, as in most first runs.
    NoneNamed,
    /// A file that was named is not there yet.
    Missing(String),
    Unusable(String),
}

/// Our certificate, and the authorities for clients', as they were read last.
#[derive(Debug)]
pub(crate) struct Certificates {
    files: Files,
    offer: Offer,
    tls: Arc<watch::Sender<Tls>>,
    /// Why TLS is off, until that is logged.
    off: Option<Off>,
    warnings: Vec<String>,
    /// Watches the files from when they were read, until [`renew`](Self::renew) takes it.
    changes: Option<FileWatcher>,
    /// Notified at SIGHUP.
    reload: Arc<Notify>,
    /// Notified by the bridge at each TLS handshake.
    asked: Arc<Notify>,
}

impl Certificates {
    /// Reads the files; where there is no usable certificate, TLS is off. `demanded` is what the options need, or less.
    ///
    /// # Errors
    ///
    /// A file that is demanded is missing or cannot be used, or the options leave no cipher suite.
    pub(crate) fn load(access: &Access, demanded: Need) -> Result<Self> {
        let Access { files, need, least, ciphers, .. } = access;
        let (offer, unknown) = Offer::new(*least, ciphers.as_deref())?;
        // The files are looked at before they are read, so that no change is missed.
        let changes = FileWatcher::new(files.paths().cloned().collect());
        let mut off = None;
        let (tls, mut warnings) = match Acceptor::load(files, Sources::Any, &offer) {
            Ok((acceptor, warnings)) => (Tls::On(acceptor), warnings),
            Err(unusable) => {
                let is_missing = unusable.missing().is_some();
                if demanded == Need::Present || demanded == Need::Usable && !is_missing {
                    return Err(unusable.into());
                }
                let reason = reason(unusable);
                off = Some(match need {
                    Need::Nothing if is_missing => Off::NoneNamed,
                    _ if is_missing => Off::Missing(reason.clone()),
                    _ => Off::Unusable(reason.clone()),
                });
                (Tls::Off(reason), vec![])
            }
        };
        if !unknown.is_empty() {
            let unknown = unknown.join(", ");
            warnings
                .push(format!("option '--ssl-ciphers': there are no cipher suites for {unknown}"));
        }
        Ok(Self {
            files: files.clone(),
            offer,
            tls: watch::Sender::new(tls).into(),
            off,
            warnings,
            changes: Some(changes),
            reload: Arc::default(),
            asked: Arc::default(),
        })
    }

    /// Says, once the bridge is open, that clients are not served by TLS, and why.
    pub(crate) fn report_off(&mut self) {
        // The files may have come meanwhile.
        match self.off.take().filter(|_| is_off(&self.tls)) {
            None => {}
            Some(Off::NoneNamed) => {
                warn!("No certificate ({}): TLS is off", self.files.certificate.display());
            }
            Some(Off::Missing(reason)) => warn!("TLS is off until the file is there: {reason}"),
            Some(Off::Unusable(reason)) => warn!("TLS is off: {reason}"),
        }
    }

    /// Whether clients are served by TLS.
    pub(crate) fn serves_tls(&self) -> bool {
        !is_off(&self.tls)
    }

    /// The old binary has logged it before the hand-over.
    pub(crate) fn was_reported(&mut self) {
        self.off = None;
    }

    /// Logs the warnings, once there is a log.
    pub(crate) fn report(&self) {
        self.warnings.iter().for_each(|warning| warn!("{warning}"));
    }

    /// The files that are read again, or are awaited.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        match self.off {
            Some(Off::NoneNamed) => Vec::new(),
            _ => self.files.paths().cloned().collect(),
        }
    }

    /// Has the files read again.
    pub(crate) fn reload(&self) {
        self.reload.notify_one();
    }

    /// What new clients are served by, now and after each reload.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Tls> {
        self.tls.subscribe()
    }

    /// What the bridge notifies at each TLS handshake.
    pub(crate) fn asked(&self) -> Arc<Notify> {
        Arc::clone(&self.asked)
    }

    /// Reads the files again, for new clients, whenever they change or a reload is asked for. They are noted as
    /// `private` each time, so that no web request is answered with them.
    pub(crate) fn renew(
        &mut self,
        private: Arc<Private>,
    ) -> impl Future<Output = Infallible> + use<> {
        let (files, offer) = (self.files.clone(), self.offer.clone());
        let tls = Arc::clone(&self.tls);
        let (reload, asked) = (Arc::clone(&self.reload), Arc::clone(&self.asked));
        let changes = self.changes.take();
        async move {
            let Some(mut changes) = changes else { return std::future::pending().await };
            let mut reading = Reading::new(READ_TIMEOUT);
            loop {
                let is_change = tokio::select! {
                    () = reload.notified() => false,
                    () = changes.next(&asked) => true,
                    () = reading.late_end() => false,
                };
                if !is_change {
                    changes.note().await;
                }
                let (files, offer) = (files.clone(), offer.clone());
                let private = Arc::clone(&private);
                let read = reading.run(move || {
                    let read = Acceptor::load(&files, Sources::Regular, &offer);
                    // The files that were read just now stay private when they are moved away.
                    private.look();
                    read
                });
                match read.await {
                    Ok(read) => take(&tls, read, is_change),
                    Err(Unread::Late) => {
                        warn!(
                            "cannot read the certificates yet: their file system does not answer"
                        );
                    }
                    Err(Unread::NotBegun) => {
                        warn!("cannot read the certificates yet: no thread can be started");
                        sleep(NEXT_READING).await;
                        reload.notify_one();
                    }
                    Err(Unread::Panicked) => warn!("cannot read the certificates"),
                }
            }
        }
    }
}

/// Serves clients by what was read; what cannot be used changes nothing.
fn take(
    tls: &watch::Sender<Tls>,
    read: Result<(Acceptor, Vec<String>), Unusable>,
    is_change: bool,
) {
    match read {
        Ok((acceptor, warnings)) => {
            let what = if is_off(tls) { "TLS is on" } else { "certificates are reloaded" };
            tls.send_replace(Tls::On(acceptor));
            info!("{what}{}", if is_change { ": the files have changed" } else { "" });
            for warning in warnings {
                warn!("{warning}");
            }
        }
        Err(unusable) if !is_off(tls) => {
            warn!("the old certificates stay in use: {}", reason(unusable));
        }
        Err(unusable) => {
            let is_missing = unusable.missing().is_some();
            let reason = reason(unusable);
            if is_missing {
                info!("TLS stays off: {reason}");
            } else {
                warn!("TLS stays off: {reason}");
            }
            tls.send_replace(Tls::Off(reason));
        }
    }
}

fn is_off(tls: &watch::Sender<Tls>) -> bool {
    matches!(*tls.borrow(), Tls::Off(_))
}

fn reason(unusable: Unusable) -> String {
    Failure::from(anyhow::Error::from(unusable)).reason
}
