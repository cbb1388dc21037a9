//! The TLS configuration for connections to targets, through our life: the authorities for their certificates, read
//! before anything is started, and again when their file changes and on SIGHUP. Knows nothing of targets.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use bridge::blocking;
use bridge::tls::{Authorities, Connector, Sources, Unusable};
use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tracing::{info, warn};

use crate::exit::Failure;
use crate::machine::changes::FileWatcher;

/// After which time they are read if no thread could be started for that.
const NEXT_READING: Duration = Duration::from_secs(1);

/// The authorities, as they were read last.
#[derive(Debug)]
pub(crate) struct TargetTls {
    authorities: Authorities,
    connector: Arc<watch::Sender<Connector>>,
    warnings: Vec<String>,
    /// The changes of their file since they were read, until [`renew`](Self::renew) waits for them.
    changes: Option<FileWatcher>,
    /// Notified on SIGHUP.
    reload: Arc<Notify>,
}

impl TargetTls {
    /// Reads the authorities.
    ///
    /// # Errors
    ///
    /// They cannot be used.
    pub(crate) fn load(authorities: &Authorities) -> Result<Self> {
        let paths = match authorities {
            Authorities::File(path) => vec![path.clone()],
            Authorities::System => vec![],
        };
        // Looked at before they are read, so that no change is missed.
        let changes = FileWatcher::new(paths);
        let (connector, warnings) = Connector::load(authorities, Sources::Any)?;
        Ok(Self {
            authorities: authorities.clone(),
            connector: watch::Sender::new(connector).into(),
            warnings,
            changes: Some(changes),
            reload: Arc::default(),
        })
    }

    /// Logs the warnings about them, once there is a log.
    pub(crate) fn report(&self) {
        self.warnings.iter().for_each(|warning| warn!("{warning}"));
    }

    /// Has them read again.
    pub(crate) fn reload(&self) {
        self.reload.notify_one();
    }

    /// What new sessions are encrypted by, now and after each reload.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Connector> {
        self.connector.subscribe()
    }

    /// Reads them again, for the sessions to come, whenever their file changes or that is asked for.
    pub(crate) fn renew(&mut self) -> impl Future<Output = Infallible> + use<> {
        let (authorities, connector) = (self.authorities.clone(), Arc::clone(&self.connector));
        let (reload, changes) = (Arc::clone(&self.reload), self.changes.take());
        // It is never notified: for old authorities the file is not looked at when a session begins.
        let asked = Notify::new();
        async move {
            let Some(mut changes) = changes else { return std::future::pending().await };
            loop {
                let is_change = tokio::select! {
                    () = reload.notified() => false,
                    () = changes.next(&asked), if matches!(authorities, Authorities::File(_)) => true,
                };
                if !is_change {
                    changes.note().await;
                }
                let authorities = authorities.clone();
                let load = move || Connector::load(&authorities, Sources::Regular);
                if let Ok(read) = blocking::begin(load) {
                    if let Ok(read) = read.await {
                        take(&connector, read, is_change);
                    }
                } else {
                    warn!("cannot read the authorities for targets yet: no thread can be started");
                    sleep(NEXT_READING).await;
                    reload.notify_one();
                }
            }
        }
    }
}

/// From now on, uses the authorities that were read; what cannot be used changes nothing.
fn take(
    connector: &watch::Sender<Connector>,
    read: Result<(Connector, Vec<String>), Unusable>,
    is_change: bool,
) {
    match read {
        Ok((read, warnings)) => {
            connector.send_replace(read);
            let why = if is_change { ": the file has changed" } else { "" };
            info!("authorities for targets are reloaded{why}");
            for warning in warnings {
                warn!("{warning}");
            }
        }
        Err(unusable) => {
            let reason = Failure::from(anyhow::Error::from(unusable)).reason;
            warn!("the old authorities for targets stay in use: {reason}");
        }
    }
}
