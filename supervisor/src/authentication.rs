//! What clients must show, through our life: known before anything is started, and read anew on SIGHUP where it
//! stands in a file. Knows nothing of clients.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use bridge::Auth;
use bridge::tls::Sources;
use tokio::sync::{Mutex, watch};
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use crate::config::{AuthSource, AuthSpec, expected_auth};
use crate::exit::Failure;
use crate::value_file;

/// What clients must show.
#[derive(Debug)]
pub(crate) struct Authentication {
    spec: AuthSpec,
    expected: watch::Sender<Auth>,
    /// Held while it is read.
    reading: Arc<Mutex<()>>,
}

impl Authentication {
    /// Reads the file, if there is one, while the person who asked for it can be told.
    pub(crate) fn open(spec: &AuthSpec) -> Result<Self> {
        let expected = expected(spec, Sources::Any)?;
        let reading = Arc::default();
        Ok(Self { spec: spec.clone(), expected: watch::Sender::new(expected), reading })
    }

    /// Reads the file anew, for the clients to come. One that cannot be used changes nothing.
    pub(crate) fn reload(&self) {
        if matches!(self.spec.source, AuthSource::Typed(_)) {
            return;
        }
        let (spec, used) = (self.spec.clone(), self.expected.clone());
        let reading = Arc::clone(&self.reading);
        tokio::spawn(async move {
            // What is read last is what counts.
            let _alone = reading.lock().await;
            let read = spawn_blocking(move || expected(&spec, Sources::Regular)).await;
            match read.map_err(Into::into).flatten() {
                Ok(expected) => {
                    used.send_replace(expected);
                    info!("what clients must show is read again");
                }
                Err(failure) => {
                    let why = Failure::from(failure).reason;
                    warn!("what clients must show stays as it was: {why}");
                }
            }
        });
    }

    /// What the bridge asks clients for.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Auth> {
        self.expected.subscribe()
    }
}

fn expected(spec: &AuthSpec, sources: Sources) -> Result<Auth> {
    let path = match &spec.source {
        AuthSource::Typed(auth) => return Ok(auth.clone()),
        AuthSource::In(path) => path,
    };
    let text = value_file::read(path, sources)?;
    let text = String::from_utf8(text).map_err(|_| anyhow!("it is not text in UTF-8"));
    text.and_then(|text| expected_auth(spec.plugin, &text).map_err(|why| anyhow!(why)))
        .with_context(|| format!("cannot read {}", path.display()))
}

/// The file that it stands in, if it does.
pub(crate) fn path(spec: &AuthSpec) -> Option<&PathBuf> {
    match &spec.source {
        AuthSource::Typed(_) => None,
        AuthSource::In(path) => Some(path),
    }
}
