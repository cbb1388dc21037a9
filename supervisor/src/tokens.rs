//! What knows our tokens, through our life: made before anything is started, and anew on SIGHUP. Knows nothing of
//! who has which token.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, ensure};
use bridge::tls::Sources;
use bridge::{Directory, Kind, Source};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::config::{TokenSource, TokensSpec, token_kind};
use crate::exit::Failure;
use crate::value_file;

/// The source of our tokens.
#[derive(Debug)]
pub(crate) struct Tokens {
    spec: TokensSpec,
    source: watch::Sender<Arc<Source>>,
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
        let source = Source::new(kind, spec.place);
        Ok(Self { spec: spec.clone(), source: watch::Sender::new(Arc::new(source)) })
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

    /// Makes the source anew, for the clients to come. One that cannot be used changes nothing.
    pub(crate) fn reload(&self) {
        let source = match kind(&self.spec, Sources::Regular) {
            Ok(kind) => Source::new(kind, self.spec.place),
            Err(failure) => return keep(&Failure::from(failure).reason),
        };
        let used = self.source.clone();
        tokio::spawn(async move {
            match source.prepare().await {
                Ok(()) => {
                    used.send_replace(Arc::new(source));
                    info!("tokens are read again");
                }
                Err(failure) => keep(&failure.to_string()),
            }
        });
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

fn keep(why: &str) {
    warn!("the old tokens stay in use: {why}");
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

/// The files and directories that it stands in, as far as they are known.
pub(crate) fn paths(spec: &TokensSpec) -> Vec<PathBuf> {
    let own = match &spec.source {
        TokenSource::Typed(_) => None,
        TokenSource::In(path) => Some(path.clone()),
    };
    let source = kind(spec, Sources::Regular).ok().and_then(|kind| kind.path().map(Path::to_owned));
    own.into_iter().chain(source).collect()
}
