//! What clients must show, or what is asked for each, through our life: known before anything is started. What clients
//! must show is read anew on SIGHUP where it stands in a file. Knows nothing of clients.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use bridge::tls::Sources;
use bridge::{Asked, Auth};
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use crate::config::{AuthKind, AuthSource, AuthSpec, expected_auth};
use crate::helper::Helper;
use crate::reread::{Reread, Words};
use crate::value_file;

/// What the log says of the administrator's.
const ADMIN_WORDS: Words = Words {
    done: "the password of the admin address is read again",
    failed: "the password of the admin address stays as it was",
};

const WORDS: Words = Words {
    done: "what clients must show is read again",
    failed: "what clients must show stays as it was",
};

/// Who is let in.
#[derive(Debug)]
pub(crate) struct Authentication {
    spec: AuthSpec,
    by: By,
    words: Words,
    reread: Reread,
}

#[derive(Debug)]
enum By {
    /// What a client shows.
    Client(watch::Sender<Auth>),
    /// What a helper says, which is to be started until it is.
    Helper(Asked, Option<Helper>),
}

impl Authentication {
    /// Reads the file, if there is one, while the person who asked for it can be told.
    pub(crate) fn open(spec: &AuthSpec) -> Result<Self> {
        Self::open_as(spec, WORDS)
    }

    /// The same, for the admin address.
    pub(crate) fn open_for_admin(spec: &AuthSpec) -> Result<Self> {
        Self::open_as(spec, ADMIN_WORDS)
    }

    fn open_as(spec: &AuthSpec, words: Words) -> Result<Self> {
        let by = match expected(spec, Sources::Any)? {
            AuthKind::Client(auth) => By::Client(watch::Sender::new(auth)),
            AuthKind::Helper(helper) => {
                let (helper, asked) = Helper::new(helper);
                By::Helper(asked, Some(helper))
            }
        };
        Ok(Self { spec: spec.clone(), by, words, reread: Reread::default() })
    }

    /// The program that is to be started, once.
    pub(crate) fn take_helper(&mut self) -> Option<Helper> {
        match &mut self.by {
            By::Client(_) => None,
            By::Helper(_, helper) => helper.take(),
        }
    }

    /// Whether a helper is asked.
    pub(crate) fn is_helper(&self) -> bool {
        matches!(self.by, By::Helper(..))
    }

    /// Reads the file anew, for the clients to come. One that cannot be used changes nothing; a helper goes on, and
    /// knows itself what is new.
    pub(crate) fn reload(&self) {
        let (By::Client(used), AuthSource::In(_)) = (&self.by, &self.spec.source) else { return };
        let spec = self.spec.clone();
        let reading = async move { spawn_blocking(move || of_client(&spec)).await? };
        self.reread.begin(reading, used.clone(), self.words);
    }

    /// The file that it stands in, and those of a helper that is not yet started.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        let own = match &self.spec.source {
            AuthSource::Typed(_) => None,
            AuthSource::In(path) => Some(path.clone()),
        };
        let helper = match &self.by {
            By::Helper(_, Some(helper)) => helper.files(),
            By::Client(_) | By::Helper(_, None) => Vec::new(),
        };
        own.into_iter().chain(helper).collect()
    }

    /// What the bridge asks clients for, if it does.
    pub(crate) fn of_client(&self) -> Option<watch::Receiver<Auth>> {
        match &self.by {
            By::Client(auth) => Some(auth.subscribe()),
            By::Helper(..) => None,
        }
    }

    /// Whom the bridge asks, if it does.
    pub(crate) fn judge(&self) -> Option<Asked> {
        match &self.by {
            By::Client(_) => None,
            By::Helper(asked, _) => Some(asked.clone()),
        }
    }
}

fn of_client(spec: &AuthSpec) -> Result<Auth> {
    match expected(spec, Sources::Regular)? {
        AuthKind::Client(auth) => Ok(auth),
        AuthKind::Helper(_) => bail!("a helper is started once"),
    }
}

fn expected(spec: &AuthSpec, sources: Sources) -> Result<AuthKind> {
    let path = match &spec.source {
        AuthSource::Typed(kind) => return Ok(kind.clone()),
        AuthSource::In(path) => path,
    };
    let text = value_file::read(path, sources)?;
    let text = String::from_utf8(text).map_err(|_| anyhow!("it is not text in UTF-8"));
    text.and_then(|text| expected_auth(&spec.plugin, &text).map_err(|why| anyhow!(why)))
        .with_context(|| format!("cannot read {}", path.display()))
}
