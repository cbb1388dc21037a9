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
use crate::hand_over::{Arrival, Held};
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
    /// None where another image of this program has left us an open one (O2).
    pub(crate) public: Option<PublicEndpoint>,
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

/// Those that nobody else can have meanwhile.
struct Taken {
    public: Option<PublicEndpoint>,
    admin: Option<Admin>,
    pid_file: Option<PidFile>,
    open_files: OpenFiles,
}

/// Those that are opened anew wherever we begin.
struct Materials {
    directories: Directories,
    certificates: Certificates,
    authentication: Option<Authentication>,
    target_tls: Option<TargetTls>,
    tokens: Option<Tokens>,
}

impl Materials {
    fn open(config: &Config) -> Result<Self, Failure> {
        let directories = Directories::look(config)?;
        let certificates = Certificates::load(&config.access)?;
        let authentication = config.access.auth.as_ref().map(Authentication::open).transpose()?;
        let target_tls = config.target_tls.as_ref().map(TargetTls::load).transpose()?;
        let tokens = match &config.destination {
            Destination::Tokens(spec) => Some(Tokens::open(spec)?),
            Destination::Service(_) | Destination::Program(_) => None,
        };
        Ok(Self { directories, certificates, authentication, target_tls, tokens })
    }

    fn private(&self, config: &Config) -> Arc<Private> {
        private::files(config, self.authentication.as_ref(), self.tokens.as_ref())
    }
}

impl Resources {
    /// `passed` are the sockets that systemd has opened for us.
    pub(crate) fn acquire(
        config: &Config,
        passed: Vec<Socket>,
        stderr: Stderr,
    ) -> Result<Self, Failure> {
        let materials = Materials::open(config)?;
        let public = Some(PublicEndpoint::acquire(&config.listen, passed)?);
        let admin = config.admin.as_ref().map(Admin::open).transpose()?;
        let pid_file = config.pid_file.as_deref().map(PidFile::lock).transpose()?;
        let log = log::Sinks::choose(&config.log, stderr)?;
        let private = materials.private(config);
        let open_files = OpenFiles::raise().context("cannot raise the limit on open files")?;
        Ok(Self::of(materials, private, log, Taken { public, admin, pid_file, open_files }))
    }

    /// Where another image of this program has taken hold of what clients know: that goes on, and the rest is opened
    /// anew (O2). What may fail comes first: until then everything is still whole.
    pub(crate) fn resume(config: &Config, arrival: &mut Arrival) -> Result<Self, Failure> {
        let materials = Materials::open(config)?;
        let log = log::Sinks::choose(&config.log, arrival.state.launch.stderr)?;
        let private = materials.private(config);
        let held = arrival.state.held.clone();
        let admin = config.admin.as_ref().zip(held.admin.as_ref());
        let admin = admin.map(|(spec, saved)| Admin::resume(spec, saved, &mut arrival.descriptors));
        let pid_file = config.pid_file.as_deref().zip(held.pid_file);
        let pid_file = pid_file.map(|(path, number)| {
            let file = arrival.descriptors.take(number).map_err(anyhow::Error::from)?;
            PidFile::resume(path, file)
        });
        let (admin, pid_file) = (admin.transpose()?, pid_file.transpose()?);
        let open_files = held.open_files;
        let public = None;
        Ok(Self::of(materials, private, log, Taken { public, admin, pid_file, open_files }))
    }

    /// Whether we could begin so, as far as that can be seen without taking hold of anything.
    pub(crate) fn look(config: &Config, stderr: Stderr) -> Result<(), Failure> {
        Materials::open(config)?;
        let admin = config.admin.as_ref().and_then(|admin| admin.auth.as_ref());
        admin.map(Authentication::open_for_admin).transpose()?;
        log::Sinks::choose(&config.log, stderr)?;
        Ok(())
    }

    fn of(materials: Materials, private: Arc<Private>, log: log::Sinks, taken: Taken) -> Self {
        let Materials { directories, certificates, authentication, target_tls, tokens } = materials;
        let Taken { public, admin, pid_file, open_files } = taken;
        Self {
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
        }
    }

    /// What of it goes along where another program takes our place.
    pub(crate) fn held(&self) -> Held {
        Held {
            open_files: self.open_files,
            pid_file: self.pid_file.as_ref().map(PidFile::descriptor),
            admin: self.admin.as_ref().map(Admin::save),
        }
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
