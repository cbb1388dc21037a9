//! What knows our tokens, through our life: made before anything is started, and anew on SIGHUP. Knows nothing of
//! who has which token.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, ensure};
use bridge::tls::Sources;
use bridge::{Directory, Kind, Private, Source};
use tokio::sync::{Mutex, watch};
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use crate::config::{TokenSource, TokensSpec, token_kind};
use crate::exit::Failure;
use crate::value_file;

/// The source of our tokens.
#[derive(Debug)]
pub(crate) struct Tokens {
    spec: TokensSpec,
    source: watch::Sender<Arc<Source>>,
    /// Held while it is read.
    reading: Arc<Mutex<()>>,
}

impl Tokens {
    /// Looks at what can be looked at while the person who asked for it can be told.
    pub(crate) fn open(spec: &TokensSpec) -> Result<Self> {
        let kind = kind(spec, Sources::Any)?;
        // Upstream does not start without it either. Other sources may come later.
        if let Kind::TokenFileName(path) = &kind {
            std::fs::metadata(path.join(""))
                .with_context(|| format!("cannot read tokens from {}", path.display()))?;
        }
        let source = watch::Sender::new(Arc::new(Source::new(kind, spec.place)));
        Ok(Self { spec: spec.clone(), source, reading: Arc::default() })
    }

    /// Reads the source, and says what is wrong with it. Needs a runtime.
    pub(crate) fn prepare(&self) {
        let source = Arc::clone(&self.source.borrow());
        tokio::spawn(async move {
            if let Err(failure) = source.prepare().await {
                warn!("{failure}");
            }
        });
    }

    /// Makes the source anew, for the clients to come; what it stands in is ours alone then. One that cannot be used
    /// changes nothing.
    pub(crate) fn reload(&self, private: &Arc<Private>) {
        let (spec, used) = (self.spec.clone(), self.source.clone());
        let (reading, private) = (Arc::clone(&self.reading), Arc::clone(private));
        tokio::spawn(async move {
            // What is read last is what counts.
            let _alone = reading.lock().await;
            match read(spec, private).await {
                Ok(source) => {
                    used.send_replace(Arc::new(source));
                    info!("tokens are read again");
                }
                Err(failure) => {
                    let why = Failure::from(failure).reason;
                    warn!("the old tokens stay in use: {why}");
                }
            }
        });
    }

    /// The files and directories that they stand in.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        let own = match &self.spec.source {
            TokenSource::Typed(_) => None,
            TokenSource::In(path) => Some(path.clone()),
        };
        let source = self.source.borrow().kind().path().map(Path::to_owned);
        own.into_iter().chain(source).collect()
    }

    /// What the bridge asks.
    pub(crate) fn directory(&self) -> Directory {
        Directory::Tokens(bridge::Tokens {
            place: self.spec.place,
            source: self.source.subscribe(),
            allowed: self.spec.allowed.clone(),
        })
    }
}

/// The source, once it is known that it can be used.
async fn read(spec: TokensSpec, private: Arc<Private>) -> Result<Source> {
    let place = spec.place;
    let kind = spawn_blocking(move || {
        let kind = kind(&spec, Sources::Regular)?;
        kind.path().into_iter().for_each(|path| private.add(path));
        private.look();
        anyhow::Ok(kind)
    });
    let source = Source::new(kind.await??, place);
    source.prepare().await?;
    Ok(source)
}

/// What the plugin asks.
fn kind(spec: &TokensSpec, sources: Sources) -> Result<Kind> {
    let path = match &spec.source {
        TokenSource::Typed(kind) => return Ok(kind.clone()),
        TokenSource::In(path) => path,
    };
    let named = || format!("cannot read {}", path.display());
    let text = value_file::read(path, sources)?;
    ensure!(!text.contains(&b'\n'), "{}: it has more than one line", named());
    token_kind(spec.plugin, OsStr::from_bytes(&text))
        .map_err(|why| anyhow!(why))
        .with_context(named)
}
