//! The host: what belongs to websockify whatever it bridges to, such as signals, the log, certificates, helpers, the
//! admin address and the hand-over; and the configuration of the bridge that is made from it. Knows nothing of the
//! program's life.

use std::sync::Arc;
use std::time::Duration;

use bridge::{ClientAddress, Directory, HandOver, Private, Traffic};

use crate::admin::AdminHandle;
use crate::authentication::Authentication;
use crate::certificates::Certificates;
use crate::config::Config;
use crate::drain::Drain;
use crate::engine::ClientTableFile;
use crate::hand_over::succession::Succession;
use crate::launcher::{Apart, Launcher};
use crate::log::Log;
use crate::machine::directories::Directories;
use crate::machine::open_files::OpenFiles;
use crate::machine::progress::Progress;
use crate::machine::signals::Signals;
use crate::machine::user::Users;
use crate::processes::{Aside, Reaper};
use crate::reopening::Reopening;
use crate::target_tls::TargetTls;
use crate::tokens::Tokens;
use crate::writer::Writer;

/// How long a client may take over its request head (T6).
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// What belongs to us as a process, whatever we bridge to.
pub(crate) struct Host<'a> {
    pub(crate) signals: Signals,
    pub(crate) progress: &'a mut Progress,
    pub(crate) log: &'a Log,
    pub(crate) certificates: Certificates,
    pub(crate) authentication: Option<Authentication>,
    pub(crate) target_tls: Option<TargetTls>,
    pub(crate) tokens: Option<Tokens>,
    /// Our children that do not belong to the program.
    pub(crate) aside: Aside,
    /// Our own files, which no web request is answered with.
    pub(crate) private: Arc<Private>,
    pub(crate) reopening: Reopening,
    pub(crate) directories: Directories,
    pub(crate) open_files: OpenFiles,
    /// Which user runs what.
    pub(crate) users: Users,
    /// The launcher of a program that is another user than we, and the port that is held for it.
    pub(crate) apart: Option<Apart>,
    /// The file that tells the program who its clients are, if it is told.
    pub(crate) clients: Option<Arc<ClientTableFile>>,
    /// Where the traffic letters go.
    pub(crate) traffic: Option<Traffic>,
    /// The thread that writes the letters.
    pub(crate) letters: Option<&'a Writer>,
    /// The drain: how our sessions end before we do.
    pub(crate) drain: Drain,
    /// The main loop's end of the administration.
    pub(crate) admin: AdminHandle,
    /// What asks the bridge to stand still for a hand-over (O2).
    pub(crate) hand_over: HandOver,
    /// How far a hand-over to another binary is.
    pub(crate) succession: Succession,
}

impl Host<'_> {
    /// The launcher, which starts the program and may signal it, where the program is another user than we.
    pub(crate) fn launcher(&self) -> Option<&Launcher> {
        self.apart.as_ref().map(|apart| &apart.launcher)
    }

    /// Collects all children that have ended by now, where no program is wrapped. As the first process of a container we
    /// get children that we have not started: the orphans of helpers.
    pub(crate) fn collect_children(&self) {
        Reaper::new(self.aside.clone()).collect();
    }

    /// SIGHUP: opens anew what may have been replaced.
    pub(crate) fn reload(&mut self) {
        self.certificates.reload();
        self.authentication.iter().for_each(Authentication::reload);
        self.admin.reload();
        self.target_tls.iter().for_each(TargetTls::reload);
        self.tokens.iter().for_each(|tokens| tokens.reload(&self.private));
        self.reopening.begin(self.log.sinks.file.as_ref(), &self.private);
    }

    /// The configuration of the bridge, wherever its sessions go.
    pub(crate) fn for_bridge(&self, config: &Config, directory: Directory) -> bridge::Config {
        bridge::Config {
            directory,
            max_connections: config.limits.connections(self.open_files.hard),
            memory: config.limits.memory(),
            head_timeout: HEAD_TIMEOUT,
            web: self.directories.web.clone(),
            lists_directories: config.lists_directories,
            subprotocols: config.subprotocols.clone(),
            run_once: config.limits.run_once,
            timeout: config.limits.timeout,
            idle_timeout: config.limits.idle_timeout,
            is_busy_elsewhere: self.aside.has_rests(),
            open_sessions: self.drain.count(),
            upkeep: config.limits.upkeep,
            access: bridge::Access {
                proxies: config.clients.proxies.clone(),
                allowed: config.clients.allowed.clone(),
                connections_per_client: config.clients.connections_per_client,
                tls: self.certificates.subscribe(),
                asked: self.certificates.asked(),
                plain: config.access.plain,
                auth: self.authentication.as_ref().and_then(Authentication::of_client),
                judge: self.authentication.as_ref().and_then(Authentication::judge),
                web_auth: config.access.web_auth,
                private: Arc::clone(&self.private),
            },
            target_tls: self.target_tls.as_ref().map(TargetTls::subscribe),
            client_address: ClientAddress {
                shown: config.client_address.shown,
                table: self.clients.as_ref().map(|clients| clients.table()),
            },
            record: self.directories.record.clone(),
            traffic: self.traffic.clone(),
            observer: self.admin.observer.clone(),
        }
    }
}
