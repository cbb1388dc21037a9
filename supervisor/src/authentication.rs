//! The authentication of clients (`--auth-plugin`), and the administrator's password: what they must show, or the
//! helper that is asked for each client. It is known before anything is started, and what stands in a file is read
//! again on SIGHUP. Knows nothing of clients.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use bridge::tls::Sources;
use bridge::{Auth, QuestionSender, blocking};
use tokio::sync::watch;

use crate::config::{AuthKind, AuthSource, AuthSpec, expected_auth};
use crate::helper::Helper;
use crate::reread::{Reread, Words};
use crate::value_file;

/// What the log says when the administrator's password is read again.
const ADMIN_WORDS: Words = Words {
    done: "the password of the admin address is read again",
    failed: "the password of the admin address stays as it was",
};

const WORDS: Words = Words {
    done: "what clients must show is read again",
    failed: "what clients must show stays as it was",
};

/// What decides who is let in.
#[derive(Debug)]
pub(crate) struct Authentication {
    spec: AuthSpec,
    by: By,
    words: Words,
    reread: Reread,
}

#[derive(Debug)]
enum By {
    /// What the client shows, compared with this.
    Client(watch::Sender<Auth>),
    /// A helper decides: where it is asked, and the helper itself, until it is [taken](Authentication::take_helper) to be
    /// started.
    Helper(QuestionSender, Option<Helper>),
}

impl Authentication {
    /// Reads the file, if there is one, while an error can still be told to the person who started us.
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

    /// The helper that is to be started. Only the first call gives it.
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

    /// Reads the file again, for new clients. A file that cannot be used changes nothing. A helper goes on: it notices
    /// by itself what has changed.
    pub(crate) fn reload(&self) {
        let (By::Client(used), AuthSource::In(_)) = (&self.by, &self.spec.source) else { return };
        let spec = self.spec.clone();
        let reading = async move { blocking::run(move || of_client(&spec)).await? };
        self.reread.begin(reading, used.clone(), self.words);
    }

    /// The file that has the credentials, and the files of a helper that is not yet started.
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

    /// What clients must show to the bridge. None: a helper decides.
    pub(crate) fn of_client(&self) -> Option<watch::Receiver<Auth>> {
        match &self.by {
            By::Client(auth) => Some(auth.subscribe()),
            By::Helper(..) => None,
        }
    }

    /// The helper that the bridge asks. None: what clients show decides.
    pub(crate) fn judge(&self) -> Option<QuestionSender> {
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
