//! The data of the supervision of one program. Does nothing by itself.

use std::time::Instant;

use anyhow::{Context, Result};
use tracing::debug;

use super::daemon::Daemon;
use super::diagnosis::Diagnosis;
use super::leader::Leader;
use super::monitor::Monitor;
use super::pace::PollSchedule;
use super::queue::Queue;
use super::readers::Readers;
use super::signalling::Signalling;
use super::state::State;
use crate::config::ProgramSpec;
use crate::engine::{Engine, EngineOptions};
use crate::host::Host;
use crate::launcher::Launcher;
use crate::relay::ProgramRelay;

/// The program, as far as we know of it, and all that it takes to bridge to it.
pub(super) struct Supervisor<'a, 'b> {
    pub(super) spec: &'a ProgramSpec,
    pub(super) host: &'a mut Host<'b>,
    pub(super) state: State,
    pub(super) events: Queue,
    pub(super) engine: Engine,
    pub(super) relay: ProgramRelay,
    pub(super) monitor: Monitor,
    pub(super) pace: PollSchedule,
    pub(super) leader: Leader,
    pub(super) daemon: Daemon,
    pub(super) diagnosis: Diagnosis<'a>,
    pub(super) signalling: Signalling,
    /// What logs the output of the instances.
    pub(super) readers: Readers,
    /// Why the first instance could not be started.
    pub(super) refusal: Option<String>,
    /// Why no client was let through to the program, for the caller of `-D` (D1).
    pub(super) unheard: Option<String>,
}

impl<'a, 'b> Supervisor<'a, 'b> {
    pub(super) fn new(
        spec: &'a ProgramSpec,
        relay: ProgramRelay,
        host: &'a mut Host<'b>,
        state: State,
    ) -> Result<Self> {
        let relocated = host.apart.as_mut().and_then(|apart| apart.relocated.take());
        let asked = EngineOptions {
            engine: spec.rebind_engine,
            library: spec.rebind_lib.as_deref(),
            program: &spec.command[0],
            port: spec.port,
            clients: host.clients.clone(),
        };
        let engine = Engine::new(asked, relocated)?;
        let (port, moved, name) = (spec.port, engine.port(), engine.name());
        debug!("program's port {port} becomes {moved} on loopback, by --rebind-engine={name}");
        let launcher = host.launcher().and_then(Launcher::process);
        let monitor = Monitor::new(engine.port(), host.aside.clone(), launcher);
        let monitor = monitor.context("cannot use /proc")?;
        Ok(Self {
            spec,
            host,
            state,
            events: Queue::default(),
            engine,
            relay,
            monitor,
            pace: PollSchedule::new(Instant::now()),
            leader: Leader::default(),
            daemon: Daemon::default(),
            diagnosis: Diagnosis::of(spec),
            signalling: Signalling::default(),
            readers: Readers::default(),
            refusal: None,
            unheard: None,
        })
    }
}
