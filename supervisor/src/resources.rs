//! What we take hold of before we begin, or are refused while standard error is the caller's: ports,
//! files, directories and limits; and then, where we are to be somebody else, the change of user. Knows the order, and
//! nothing of what is done with them.

mod losses;

use std::sync::Arc;

use anyhow::Context;
use bridge::Private;
use socket2::Socket;

use crate::admin::Admin;
use crate::authentication::Authentication;
use crate::certificates::Certificates;
use crate::config::{Config, Destination};
use crate::exit::Failure;
use crate::host::directories::Directories;
use crate::host::open_files::OpenFiles;
use crate::host::pid_file::PidFile;
use crate::host::private;
use crate::host::privileges::{self, Gains, as_user, as_user_or_root};
use crate::host::public::PublicEndpoint;
use crate::host::user::Users;
use crate::launcher::Apart;
use crate::log::{self, Stderr};
use crate::target_tls::TargetTls;
use crate::tokens::Tokens;

/// All of it.
pub(crate) struct Resources {
    pub(crate) public: PublicEndpoint,
    pub(crate) admin: Option<Admin>,
    pub(crate) certificates: Certificates,
    pub(crate) authentication: Option<Authentication>,
    pub(crate) target_tls: Option<TargetTls>,
    pub(crate) tokens: Option<Tokens>,
    /// Our own files, that nobody is served.
    pub(crate) private: Arc<Private>,
    pub(crate) directories: Directories,
    pub(crate) pid_file: Option<PidFile>,
    pub(crate) log: log::Sinks,
    pub(crate) open_files: OpenFiles,
    pub(crate) users: Users,
}

impl Resources {
    /// `passed` are the sockets that systemd has opened for us.
    pub(crate) fn acquire(
        config: &Config,
        passed: Vec<Socket>,
        stderr: Stderr,
    ) -> Result<Self, Failure> {
        let users = Users::look_up(&config.users)?;
        // Whose the files are to be that are written.
        let user = users.ours();
        let directories = as_user(user, || Directories::look(config))??;
        let certificates = Certificates::load(&config.access)?;
        let authentication = config.access.auth.as_ref().map(Authentication::open).transpose()?;
        let target_tls = config.target_tls.as_ref().map(TargetTls::load).transpose()?;
        let tokens = match &config.destination {
            Destination::Tokens(spec) => Some(Tokens::open(spec)?),
            Destination::Service(_) | Destination::Program(_) => None,
        };
        let public = PublicEndpoint::acquire(&config.listen, passed, user)?;
        let admin = config.admin.as_ref().map(|spec| Admin::open(spec, user)).transpose()?;
        let pid_file = config.pid_file.as_deref();
        let pid_file =
            pid_file.map(|path| as_user_or_root(user, || PidFile::lock(path))).transpose()?;
        let log = as_user_or_root(user, || log::Sinks::choose(&config.log, stderr))?;
        let private = private::files(config, authentication.as_ref(), tokens.as_ref());
        let open_files = OpenFiles::raise().context("cannot raise the limit on open files")?;
        Ok(Self {
            public,
            admin,
            certificates,
            authentication,
            target_tls,
            tokens,
            private,
            directories,
            pid_file,
            log,
            open_files,
            users,
        })
    }

    /// Becomes who we are to be, for good. After the last fork of ours, and before the first thread.
    pub(crate) fn change_user(&self, config: &Config) -> Result<Option<Apart>, Failure> {
        let apart = match (&config.destination, self.users.apart()) {
            (Destination::Program(spec), Some(user)) => {
                Some(Apart::begin(&spec.command, user, self.open_files)?)
            }
            _ => None,
        };
        let starts_program = matches!(config.destination, Destination::Program(_));
        let asks_helper = self.tokens.as_ref().is_some_and(Tokens::is_helper)
            || self.authentication.as_ref().is_some_and(Authentication::is_helper);
        let starts = starts_program && apart.is_none() || asks_helper;
        if let Some(user) = self.users.ours() {
            privileges::give_up(user, if starts { Gains::Kept } else { Gains::Refused })?;
        }
        Ok(apart)
    }

    /// What we cannot do any more since then, to be logged.
    pub(crate) fn losses(&self, config: &Config) -> Vec<String> {
        self.users.ours().map(|user| losses::of(self, config, user)).unwrap_or_default()
    }

    /// What there is less of than was asked for, to be logged.
    pub(crate) fn warning(&self, config: &Config) -> Option<String> {
        let limit = self.open_files.hard;
        let most = config.limits.connections(limit);
        config
            .limits
            .max_connections
            .filter(|asked| *asked > most)
            .map(|_| format!("the limit on open files is {limit}, which allows {most} connections"))
    }
}
