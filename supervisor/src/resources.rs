//! The resources that we take before we begin, while a refusal is still read on the caller's standard error: ports,
//! files, directories and limits; and after that the change of user, if there is one. Knows the order, and nothing of
//! what is done with them.

mod losses;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use bridge::{Descriptors, Private};
use socket2::Socket;

use crate::admin::Admin;
use crate::authentication::Authentication;
use crate::certificates::Certificates;
use crate::config::access::Need;
use crate::config::{Config, Destination, ProgramSpec};
use crate::exit::Failure;
use crate::hand_over::{Arrival, Held, open_memory, or_back};
use crate::launcher::{self, Apart, Launcher};
use crate::log::{self, Stderr};
use crate::machine::directories::Directories;
use crate::machine::open_files::OpenFiles;
use crate::machine::pid_file::PidFile;
use crate::machine::privileges::{self, Gains, as_user, as_user_or_root};
use crate::machine::public::PublicEndpoint;
use crate::machine::user::{User, Users};
use crate::private;
use crate::target_tls::TargetTls;
use crate::tokens::Tokens;

/// How long the old binary, on its way back, tries to use what is opened anew, and how often. That is long enough for
/// somebody who is just writing a file; and for as long everything stands still.
const RETRY_TIME: Duration = Duration::from_secs(5);
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// All resources.
pub(crate) struct Resources {
    /// None after a hand-over: the endpoint is in the state that the old binary has left (O2).
    pub(crate) public: Option<PublicEndpoint>,
    pub(crate) admin: Option<Admin>,
    pub(crate) certificates: Certificates,
    pub(crate) authentication: Option<Authentication>,
    pub(crate) target_tls: Option<TargetTls>,
    pub(crate) tokens: Option<Tokens>,
    /// Our own files, which no client is served.
    pub(crate) private: Arc<Private>,
    pub(crate) directories: Directories,
    pub(crate) pid_file: Option<PidFile>,
    pub(crate) log: log::Sinks,
    pub(crate) open_files: OpenFiles,
    pub(crate) users: Users,
    /// The launcher, which starts the program where it has another user than we.
    pub(crate) apart: Option<Apart>,
    /// Whether processes that we have given another user may type into our terminal.
    is_open_to_typing: bool,
}

/// The resources that are taken once, and handed over to a new binary.
struct Taken {
    public: Option<PublicEndpoint>,
    admin: Option<Admin>,
    pid_file: Option<PidFile>,
    open_files: OpenFiles,
    apart: Option<Apart>,
}

/// The resources that are opened anew, also after a hand-over.
struct Materials {
    users: Users,
    directories: Directories,
    certificates: Certificates,
    authentication: Option<Authentication>,
    /// The administrator's password.
    admin_auth: Option<Authentication>,
    target_tls: Option<TargetTls>,
    tokens: Option<Tokens>,
}

impl Materials {
    /// Opens them as the user that we are now; directories are looked at as `user`, and of the certificate `need` is demanded.
    fn open(
        config: &Config,
        need: Need,
        users: Users,
        user: Option<&User>,
    ) -> Result<Self, Failure> {
        let directories = as_user(user, || Directories::look(config))??;
        let certificates = Certificates::load(&config.access, need)?;
        let authentication = config.access.auth.as_ref().map(Authentication::open).transpose()?;
        let admin_auth = config.admin.as_ref().and_then(|admin| admin.auth.as_ref());
        let admin_auth = admin_auth.map(Authentication::open_for_admin).transpose()?;
        let target_tls = config.target_tls.as_ref().map(TargetTls::load).transpose()?;
        let tokens = match &config.destination {
            Destination::Tokens(spec) => Some(Tokens::open(spec)?),
            Destination::Service(_) | Destination::Program(_) => None,
        };
        Ok(Self {
            users,
            directories,
            certificates,
            authentication,
            admin_auth,
            target_tls,
            tokens,
        })
    }

    /// The same after a hand-over, where the old binary has changed the user already: we must still be that user.
    fn open_again(config: &Config, need: Need, held: &Held) -> Result<Self, Failure> {
        let users = Users::to_remain(&config.users)?;
        // Before anything is opened: the file of our binary may have given us capabilities (exec(2)).
        match users.ours() {
            Some(user) => privileges::remain(user)?,
            None => open_memory(),
        }
        let user_of_program = program_of(config).and_then(|_| users.apart());
        launcher::check(held.launcher.as_ref(), user_of_program)?;
        let materials = Self::open(config, need, users, None)?;
        if let Some(user) = materials.users.ours() {
            let helpers = (materials.tokens.as_ref(), materials.authentication.as_ref());
            privileges::check_gains(user, gains(config, &materials.users, helpers))?;
        }
        Ok(materials)
    }

    fn private(&self, config: &Config) -> Arc<Private> {
        private::files(config, self.authentication.as_ref(), self.tokens.as_ref())
    }
}

impl Taken {
    /// Goes on with them after a hand-over. What is dropped cannot be given back any more: the pid file and the socket of
    /// the admin address would be removed, and the launcher would end. So if something fails, this goes back to the old
    /// binary itself, while all that it has taken is still there.
    fn resume(
        config: &Config,
        auth: Option<Authentication>,
        held: Held,
        descriptors: &mut Descriptors,
    ) -> Result<Self, Failure> {
        let admin = config.admin.as_ref().zip(held.admin.as_ref());
        let admin = admin.map(|(spec, saved)| Admin::resume(spec, auth, saved, descriptors));
        let admin = or_back(admin.transpose().map_err(Failure::from))?;
        let pid_file = config.pid_file.as_deref().zip(held.pid_file);
        let pid_file = pid_file.map(|(path, number)| {
            let file = descriptors.take(number).map_err(anyhow::Error::from)?;
            PidFile::resume(path, file)
        });
        let pid_file = or_back(pid_file.transpose().map_err(Failure::from))?;
        let launcher = held.launcher.map(|saved| Launcher::resume(&saved, descriptors));
        let launcher = or_back(launcher.transpose().map_err(Failure::from))?;
        let apart = launcher.map(|launcher| Apart { launcher, relocated: None });
        Ok(Self { public: None, admin, pid_file, open_files: held.open_files, apart })
    }
}

impl Resources {
    /// `passed` are the sockets that systemd has opened for us.
    pub(crate) fn acquire(
        config: &Config,
        passed: Vec<Socket>,
        stderr: Stderr,
    ) -> Result<Self, Failure> {
        let users = Users::to_become(&config.users)?;
        // The user to whom the files that we write are to belong.
        let ours = users.ours().cloned();
        let user = ours.as_ref();
        let mut materials = Materials::open(config, config.access.need, users, user)?;
        let public = Some(PublicEndpoint::acquire(&config.listen, passed, user)?);
        let auth = materials.admin_auth.take();
        let admin = config.admin.as_ref().map(|spec| Admin::open(spec, auth, user)).transpose()?;
        let pid_file = config.pid_file.as_deref();
        let pid_file =
            pid_file.map(|path| as_user_or_root(user, || PidFile::lock(path))).transpose()?;
        let log = as_user_or_root(user, || log::Sinks::choose(&config.log, stderr))?;
        let private = materials.private(config);
        let open_files = OpenFiles::raise().context("cannot raise the limit on open files")?;
        let taken = Taken { public, admin, pid_file, open_files, apart: None };
        Ok(Self::of(materials, private, log, taken))
    }

    /// After a hand-over: goes on with what the old binary has taken and clients know, and opens everything else anew
    /// (O2). What may fail comes first: until then everything is still whole. If it fails, and there is a way back to the
    /// old binary, it does not return.
    pub(crate) fn resume(config: &Config, arrival: &mut Arrival) -> Result<Self, Failure> {
        let (mut materials, log) = or_back(Self::open_again(config, arrival))?;
        let held = arrival.state.held.clone();
        let private = materials.private(config);
        let auth = materials.admin_auth.take();
        let taken = Taken::resume(config, auth, held, &mut arrival.descriptors)?;
        Ok(Self::of(materials, private, log, taken))
    }

    /// Opens anew what is not handed over, and chooses where the log goes. On its way back, the old binary tries that for
    /// a while: if it gives up, all sessions are lost, and what the new binary could not use may be whole in a moment. In the end
    /// it rather goes on without a certificate than not at all.
    #[expect(clippy::disallowed_methods, reason = "nothing tells when all files can be used")]
    fn open_again(config: &Config, arrival: &Arrival) -> Result<(Materials, log::Sinks), Failure> {
        let (held, stderr) = (&arrival.state.held, arrival.state.launch.stderr);
        let until = arrival.is_back().then(|| Instant::now() + RETRY_TIME);
        loop {
            let is_over = until.is_none_or(|until| Instant::now() >= until);
            let need =
                if arrival.is_back() && is_over { Need::Nothing } else { config.access.need };
            let opened = Materials::open_again(config, need, held)
                .and_then(|materials| Ok((materials, log::Sinks::choose(&config.log, stderr)?)));
            if opened.is_ok() || is_over {
                return opened;
            }
            thread::sleep(RETRY_INTERVAL);
        }
    }

    /// Checks, in a trial, whether we could go on after a hand-over, as far as that can be seen without taking
    /// anything.
    pub(crate) fn look(config: &Config, stderr: Stderr, held: &Held) -> Result<(), Failure> {
        let materials = Materials::open_again(config, config.access.need, held)?;
        materials.tokens.as_ref().map_or(Ok(()), Tokens::check)?;
        log::Sinks::choose(&config.log, stderr)?;
        Ok(())
    }

    fn of(materials: Materials, private: Arc<Private>, log: log::Sinks, taken: Taken) -> Self {
        let Materials {
            users, directories, certificates, authentication, target_tls, tokens, ..
        } = materials;
        let Taken { public, admin, pid_file, open_files, apart } = taken;
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
            users,
            apart,
            is_open_to_typing: false,
        }
    }

    /// What of it is handed over to a new binary.
    pub(crate) fn held(&self) -> Held {
        Held {
            open_files: self.open_files,
            pid_file: self.pid_file.as_ref().map(PidFile::descriptor),
            admin: self.admin.as_ref().map(Admin::save),
            launcher: self.apart.as_ref().map(|apart| apart.launcher.save()),
        }
    }

    /// Forks the launcher, if there is to be one, and changes to the user that we are to be, for good. To be called after
    /// the forks of `-D`, and before the first thread.
    pub(crate) fn change_user(&mut self, config: &Config) -> Result<(), Failure> {
        let helpers = (self.tokens.as_ref(), self.authentication.as_ref());
        let gains = gains(config, &self.users, helpers);
        let (ours, of_program) =
            (self.users.ours(), program_of(config).and(self.users.of_program()));
        let is_sealed = of_program.is_none() && gains == Gains::Refused;
        self.is_open_to_typing =
            ours.or(of_program).is_some() && privileges::is_open_to_typing(is_sealed);
        if let Some((spec, user)) = program_of(config).zip(self.users.apart()) {
            self.apart = Some(Apart::begin(&spec.command, user, self.open_files)?);
        }
        if let Some(user) = self.users.ours() {
            privileges::give_up(user, gains)?;
        }
        Ok(())
    }

    /// What we cannot do any more since the change of user, to be logged.
    pub(crate) fn losses(&self, config: &Config) -> Vec<String> {
        let ours = self.users.ours();
        let mut lines = ours.map(|user| losses::of(self, config, user)).unwrap_or_default();
        if self.is_open_to_typing {
            let user = self.users.of_program().map(|user| &*user.name).unwrap_or_default();
            lines.push(format!(
                "user {user} may type into the terminal that websockify was started from, as the kernel takes no filter \
                 (seccomp(2), with CAP_SYS_ADMIN)"
            ));
        }
        lines
    }

    /// A warning for the log, if fewer connections are possible than were asked for.
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

fn program_of(config: &Config) -> Option<&ProgramSpec> {
    match &config.destination {
        Destination::Program(spec) => Some(spec),
        Destination::Service(_) | Destination::Tokens(_) => None,
    }
}

/// Whether the programs that we start ourselves may gain rights: the wrapped program, or a helper that knows tokens or
/// passwords.
fn gains(
    config: &Config,
    users: &Users,
    (tokens, authentication): (Option<&Tokens>, Option<&Authentication>),
) -> Gains {
    let starts_program = program_of(config).is_some() && users.apart().is_none();
    let asks_helper = tokens.is_some_and(Tokens::is_helper)
        || authentication.is_some_and(Authentication::is_helper);
    if starts_program || asks_helper { Gains::Kept } else { Gains::Refused }
}
