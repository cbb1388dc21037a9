//! The source of our tokens, through our life: made before anything is started, and anew on SIGHUP. Must not know which
//! tokens there are.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail, ensure};
use bridge::tls::Sources;
use bridge::{Directory, Kind, Private, Source, blocking};
use futures_util::TryFutureExt;
use tokio::sync::watch;
use tracing::warn;

use crate::config::{TokenKind, TokenSource, TokensSpec, token_kind};
use crate::helper::Helper;
use crate::reread::{Reread, Words};
use crate::value_file;

const WORDS: Words = Words { done: "tokens are read again", failed: "the old tokens stay in use" };

/// The source of our tokens.
#[derive(Debug)]
pub(crate) struct Tokens {
    spec: TokensSpec,
    source: watch::Sender<Arc<Source>>,
    reread: Reread,
    /// The helper that is asked for tokens, until it is started.
    helper: Option<Helper>,
    is_helper: bool,
}

impl Tokens {
    /// Makes the source, and checks what can be checked while the person who asked for it can be told.
    pub(crate) fn open(spec: &TokensSpec) -> Result<Self> {
        let kind = kind(spec, Sources::Any)?;
        // The Python websockify does not start without this directory either. Other sources may come later.
        if let TokenKind::Own(Kind::TokenFileName(path)) = &kind {
            std::fs::metadata(path.join(""))
                .with_context(|| format!("cannot read tokens from {}", path.display()))?;
        }
        let (source, helper) = match kind {
            TokenKind::Own(kind) => (Source::new(kind, spec.place), None),
            TokenKind::Helper(helper) => {
                let (helper, asked) = Helper::new(helper);
                (Source::asked(helper.name(), asked), Some(helper))
            }
        };
        let source = watch::Sender::new(Arc::new(source));
        let (is_helper, reread) = (helper.is_some(), Reread::default());
        Ok(Self { spec: spec.clone(), source, reread, helper, is_helper })
    }

    /// Checks that a source which is read once can be read now: another binary would begin without the tokens that we
    /// know. Others are read when a client comes.
    pub(crate) fn check(&self) -> Result<()> {
        let Ok(TokenKind::Own(Kind::ReadOnlyTokenFile(path))) = kind(&self.spec, Sources::Any)
        else {
            return Ok(());
        };
        let opened = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path);
        opened.with_context(|| format!("cannot read tokens from {}", path.display())).map(drop)
    }

    /// The helper that is to be started, once.
    pub(crate) fn take_helper(&mut self) -> Option<Helper> {
        self.helper.take()
    }

    /// Whether a helper is asked for them.
    pub(crate) fn is_helper(&self) -> bool {
        self.is_helper
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

    /// Makes the source anew, for the clients that come after that; the files that it is in are added to `private`. A
    /// source that cannot be used changes nothing; a helper goes on, and has to know itself what is new.
    pub(crate) fn reload(&self, private: &Arc<Private>) {
        if self.is_helper {
            return;
        }
        let reading = read(self.spec.clone(), Arc::clone(private));
        self.reread.begin(reading.map_ok(Arc::new), self.source.clone(), WORDS);
    }

    /// The files and directories that the tokens are in, and those of a helper that is not yet started.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        let own = match &self.spec.source {
            TokenSource::Typed(_) => None,
            TokenSource::In(path) => Some(path.clone()),
        };
        let source = self.source.borrow().path().map(Path::to_owned);
        let helper = self.helper.as_ref().map(Helper::files).unwrap_or_default();
        own.into_iter().chain(source).chain(helper).collect()
    }

    /// The directory that the tokens are in, if it is one.
    pub(crate) fn path_of_directory(&self) -> Option<PathBuf> {
        self.source.borrow().path().filter(|path| path.is_dir()).map(Path::to_owned)
    }

    /// What the bridge asks for the target of a request.
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
    let source = blocking::run(move || {
        let TokenKind::Own(kind) = kind(&spec, Sources::Regular)? else {
            bail!("a helper is started once");
        };
        kind.path().into_iter().for_each(|path| private.add(path));
        private.look();
        // A source that asks a web server reads the system's authorities from files here.
        Ok(Source::new(kind, spec.place))
    });
    let source = source.await??;
    source.prepare().await?;
    Ok(source)
}

/// What the plugin asks, with a value that may be in a file.
fn kind(spec: &TokensSpec, sources: Sources) -> Result<TokenKind> {
    let path = match &spec.source {
        TokenSource::Typed(kind) => return Ok(kind.clone()),
        TokenSource::In(path) => path,
    };
    let named = || format!("cannot read {}", path.display());
    let text = value_file::read(path, sources)?;
    ensure!(!text.contains(&b'\n'), "{}: it has more than one line", named());
    token_kind(&spec.plugin, OsStr::from_bytes(&text))
        .map_err(|why| anyhow!(why))
        .with_context(named)
}
