//! What we take hold of before we begin, or are refused while standard error is the caller's: ports,
//! files, directories and limits. Knows the order, and nothing of what is done with them.

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
use crate::host::public::PublicEndpoint;
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
}

impl Resources {
    /// `passed` are the sockets that systemd has opened for us.
    pub(crate) fn acquire(
        config: &Config,
        passed: Vec<Socket>,
        stderr: Stderr,
    ) -> Result<Self, Failure> {
        let directories = Directories::look(config)?;
        let certificates = Certificates::load(&config.access)?;
        let authentication = config.access.auth.as_ref().map(Authentication::open).transpose()?;
        let target_tls = config.target_tls.as_ref().map(TargetTls::load).transpose()?;
        let tokens = match &config.destination {
            Destination::Tokens(spec) => Some(Tokens::open(spec)?),
            Destination::Service(_) | Destination::Program(_) => None,
        };
        let public = PublicEndpoint::acquire(&config.listen, passed)?;
        let admin = config.admin.as_ref().map(Admin::open).transpose()?;
        let pid_file = config.pid_file.as_deref().map(PidFile::lock).transpose()?;
        let log = log::Sinks::choose(&config.log, stderr)?;
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
        })
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
