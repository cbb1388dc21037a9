//! The supervision of the program in a hand-over (O2): what is saved for the new binary, how everything is stopped for
//! that, and how the new binary goes on. The program, and whatever belongs to it, notices nothing.
//!
//! A field that a version adds must have a default: older and newer versions read the state, too.

use std::os::fd::RawFd;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use bridge::{Destination, Frozen};
use nix::unistd::{Pid, getpid};
use serde::{Deserialize, Serialize};

use super::daemon::{Daemon, DaemonState};
use super::diagnosis::Diagnosis;
use super::leader::{Leader, LeaderState};
use super::monitor::{Monitor, MonitorState};
use super::pace::PollSchedule;
use super::queue::Queue;
use super::readers::{ReaderState, Readers};
use super::signalling::Signalling;
use super::state::State;
use super::supervisor::Supervisor;
use crate::config::{ProgramSpec, Told};
use crate::engine::{ClientTableFile, ClientTableFileState, Engine, EngineState};
use crate::handed::Handed;
use crate::host::Host;
use crate::launcher::Launcher;
use crate::processes::{Aside, is_child, number};
use crate::relay::{Around, ProgramRelay, ProgramRelayState};

/// What the new binary needs to go on with a program.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ProgramState {
    /// Our process id: the program's processes are children of this process.
    #[serde(with = "number")]
    supervisor: Pid,
    /// The program's own port.
    port: u16,
    life: State,
    engine: EngineState,
    /// Taken out by [`ProgramState::relay`].
    relay: Option<ProgramRelayState>,
    #[serde(default)]
    clients: Option<ClientTableFileState>,
    #[serde(default)]
    aside: Vec<Helper>,
    #[serde(default)]
    leader: LeaderState,
    #[serde(default)]
    monitor: MonitorState,
    #[serde(default)]
    daemon: DaemonState,
    #[serde(default)]
    pace: Option<PollSchedule>,
    #[serde(default)]
    is_diagnosis_said: bool,
    #[serde(default)]
    signalling: Signalling,
    #[serde(default)]
    readers: Vec<ReaderState>,
    #[serde(default)]
    refusal: Option<String>,
}

/// A child of ours that is none of the program's.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Helper {
    #[serde(with = "number")]
    pid: Pid,
}

/// How the supervision of the program begins.
#[derive(Debug)]
pub(crate) enum Begin<'a> {
    Fresh,
    /// The old binary has supervised the program until now.
    Resumed(Box<Resumption<'a>>),
}

/// What the new binary goes on with.
#[derive(Debug)]
pub(crate) struct Resumption<'a> {
    /// Its [relay](ProgramState::relay) and its [clients](ProgramState::clients) were taken out before.
    pub(crate) state: ProgramState,
    /// If the bridge is open: how it was frozen.
    pub(crate) frozen: Option<Frozen>,
    pub(crate) handed: Handed<'a>,
}

impl<'a> Resumption<'a> {
    /// From what the old binary has left, with the bridge to the program.
    ///
    /// # Errors
    /// As [`ProgramState::relay`].
    pub(crate) fn of(
        (mut state, frozen, mut handed): (ProgramState, Option<Frozen>, Handed<'a>),
        spec: &ProgramSpec,
        config: impl FnOnce(Destination) -> bridge::Config,
        around: Around,
    ) -> Result<(ProgramRelay, Begin<'a>)> {
        let relay = state.relay(spec, config, around, &mut handed)?;
        Ok((relay, Begin::Resumed(Box::new(Self { state, frozen, handed }))))
    }
}

impl ProgramState {
    /// The descriptors in this state, which exec(2) has to keep, without the bridge's own.
    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        let mut all = self.engine.descriptors();
        all.extend(self.relay.iter().flat_map(ProgramRelayState::descriptors));
        all.extend(self.clients.iter().flat_map(ClientTableFileState::descriptors));
        all.extend(self.readers.iter().map(ReaderState::descriptor));
        all
    }

    /// Checks all that can be checked without descriptors. The `port` is that of the program on the command line.
    ///
    /// # Errors
    /// It is the state of another program.
    pub(crate) fn check(&self, port: u16) -> Result<()> {
        ensure!(self.port == port, "it is of a program with port {}", self.port);
        let mut numbers = self.descriptors();
        numbers.sort_unstable();
        ensure!(numbers.iter().all(|number| *number > 2), "a descriptor is a standard stream");
        let is_twice = numbers.windows(2).any(|pair| pair[0] == pair[1]);
        ensure!(!is_twice, "a descriptor is named twice");
        Ok(())
    }

    /// Adds those helpers of the old binary to `aside` that are not waited for yet.
    pub(crate) fn add_helpers(&self, aside: &Aside) {
        let helpers = self.aside.iter().filter(|helper| is_child(helper.pid));
        helpers.for_each(|helper| aside.add(helper.pid));
    }

    /// The file that tells the program who its clients are, if it is `told`.
    ///
    /// # Errors
    /// It is not there, or not what it should be.
    pub(crate) fn clients(
        &mut self,
        told: Option<Told>,
        handed: &mut Handed<'_>,
    ) -> Result<Option<ClientTableFile>> {
        match (told, self.clients.take()) {
            (None, None) => Ok(None),
            (Some(told), Some(state)) => ClientTableFile::resume(told, state, handed).map(Some),
            (Some(Told { option, .. }), None) => anyhow::bail!("it has no file for '{option}'"),
            (None, Some(_)) => anyhow::bail!("it has a file of clients, and nobody wants one"),
        }
    }

    /// The bridge to the program, stopped if it was open; otherwise as [`ProgramRelay::hold`].
    ///
    /// # Errors
    /// A descriptor is missing, or is not what it should be.
    pub(crate) fn relay(
        &mut self,
        spec: &ProgramSpec,
        config: impl FnOnce(Destination) -> bridge::Config,
        around: Around,
        handed: &mut Handed<'_>,
    ) -> Result<ProgramRelay> {
        let state = self.relay.take().context("it says nothing of the bridge")?;
        ProgramRelay::resume(state, &spec.policy, config, around, handed)
    }
}

impl<'a, 'b> Supervisor<'a, 'b> {
    /// Stops all that goes on by itself, except the bridge, which [`Host::stand_still`] stops. To be called when no
    /// event waits.
    ///
    /// # Errors
    /// Something did not stop in time. All goes on.
    pub(super) fn still(&mut self) -> Result<()> {
        ensure!(self.events.is_empty(), "events wait");
        self.engine.still()?;
        self.readers.still();
        Ok(())
    }

    /// All that was [stopped](Self::still) goes on.
    ///
    /// # Errors
    /// No thread can be started.
    pub(super) fn go_on(&mut self) -> Result<()> {
        self.readers.go_on();
        self.engine.go_on()
    }

    /// The state for the new binary. To be called when all has stopped, the bridge too: until then it lets clients
    /// through, who are counted here.
    pub(super) fn save(&self) -> ProgramState {
        ProgramState {
            supervisor: getpid(),
            port: self.spec.port,
            life: self.state,
            engine: self.engine.save(),
            relay: Some(self.relay.save()),
            clients: self.host.clients.as_ref().map(|clients| clients.save()),
            aside: self.host.aside.all().into_iter().map(|pid| Helper { pid }).collect(),
            leader: self.leader.save(),
            monitor: self.monitor.save(),
            daemon: self.daemon.save(),
            pace: Some(self.pace.clone()),
            is_diagnosis_said: self.diagnosis.is_said(),
            signalling: self.signalling.clone(),
            readers: self.readers.save(),
            refusal: self.refusal.clone(),
        }
    }

    /// Goes on where the old binary has stopped.
    ///
    /// # Errors
    /// A process or a descriptor is not what it should be. Nothing was changed, and the old binary can still go on.
    pub(super) fn resume(
        spec: &'a ProgramSpec,
        relay: ProgramRelay,
        host: &'a mut Host<'b>,
        resumption: Resumption<'_>,
    ) -> Result<Self> {
        let Resumption { state, frozen, mut handed } = resumption;
        state.check(spec.port)?;
        let us = getpid();
        ensure!(state.supervisor == us, "it is of process {}, and we are {us}", state.supervisor);
        state.add_helpers(&host.aside);
        let clients = host.clients.clone();
        let engine = Engine::resume(state.engine, spec.port, clients, &mut handed)?;
        let launcher = host.launcher().and_then(Launcher::process);
        let monitor = Monitor::resume(engine.port(), host.aside.clone(), launcher, state.monitor);
        let mut supervisor = Self {
            spec,
            state: state.life,
            events: Queue::default(),
            relay,
            monitor: monitor.context("cannot use /proc")?,
            pace: state.pace.unwrap_or_else(|| PollSchedule::new(Instant::now())),
            leader: Leader::resume(&state.leader)?,
            daemon: Daemon::resume(state.daemon),
            diagnosis: Diagnosis::resume(spec, state.is_diagnosis_said),
            signalling: state.signalling,
            readers: Readers::resume(state.readers, &mut handed)?,
            refusal: state.refusal,
            // There is no hand-over while the caller of `-D` waits for it.
            unheard: None,
            engine,
            host,
        };
        supervisor.arrive(frozen, handed)?;
        Ok(supervisor)
    }

    /// All was taken over: the bridge goes on. The old binary can still have it back.
    fn arrive(&mut self, frozen: Option<Frozen>, mut handed: Handed<'_>) -> Result<()> {
        ensure!(frozen.is_some() || !self.relay.is_still(), "the bridge says nothing of itself");
        self.relay.go_on(frozen, handed.others())?;
        self.host.succession.keep(handed.settle());
        Ok(())
    }

    /// There is no way back to the old binary: the supervision goes on.
    ///
    /// # Errors
    /// As [`go_on`](Self::go_on).
    pub(super) fn begin_again(&mut self) -> Result<()> {
        self.relay.settle();
        self.host.clients.iter().for_each(|clients| clients.go_on());
        let gone_on = self.go_on();
        self.host.progress.status(self.state.description());
        // Nothing reports what has happened during the hand-over: so we look.
        self.pace.quicken(Instant::now());
        self.children_ended();
        self.pace.hint();
        gone_on
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The least that a state says.
    const LEAST: &str = r#"{
        "supervisor": 7,
        "port": 5901,
        "life": "Gone",
        "engine": {"Seccomp": {"relocated": [9], "privileges": "Kept", "listeners": [12, 10]}}
    }"#;

    fn with(extra: &str) -> Result<ProgramState, serde_json::Error> {
        serde_json::from_str(&LEAST.replacen('{', &format!("{{{extra},"), 1))
    }

    #[test]
    fn o2_what_is_missing_has_its_default_and_what_is_unknown_is_passed_over() {
        let state: ProgramState = serde_json::from_str(LEAST).expect("a state");
        state.check(5901).expect("of this program");
        assert_eq!(state.life, State::Gone);
        assert_eq!(state.descriptors(), [9, 12, 10]);
        assert_eq!(state.leader, LeaderState::default());
        let state = with(r#""new": {"a": [1]}, "leader": {"running": 8, "newer": 1}"#);
        let leader = r#"{"running":8,"ended":null,"last":null,"has_terminal":false}"#;
        let saved = serde_json::to_string(&state.expect("a state").leader).expect("JSON");
        assert_eq!(saved, leader);
    }

    #[test]
    fn o2_another_programs_state_is_refused() {
        let refused =
            |state: ProgramState, port| state.check(port).expect_err("refused").to_string();
        let least = || serde_json::from_str::<ProgramState>(LEAST).expect("a state");
        assert_eq!(refused(least(), 5902), "it is of a program with port 5901");
        let output = |pipe: i32| {
            let readers = format!(r#""readers": [{{"pipe": {pipe}, "tag": "actor[8]"}}]"#);
            with(&readers).expect("a state")
        };
        output(11).check(5901).expect("of this program");
        assert_eq!(refused(output(10), 5901), "a descriptor is named twice");
        assert_eq!(refused(output(2), 5901), "a descriptor is a standard stream");
    }

    #[test]
    fn o2_garbage_is_an_error() {
        for extra in [
            r#""leader": {"running": -1}"#,
            r#""leader": {"running": 0}"#,
            r#""aside": [{"pid": -1}]"#,
            r#""aside": [{}]"#,
            r#""monitor": {"instance": [{"pid": 1}]}"#,
            r#""signalling": {"next_kill": -1}"#,
            r#""readers": {}"#,
            r#""relay": {}"#,
            r#""clients": 1"#,
        ] {
            with(extra).expect_err(extra);
        }
        for garbage in ["", "null", "[]", "{}", &LEAST[..LEAST.len() - 1]] {
            serde_json::from_str::<ProgramState>(garbage).expect_err(garbage);
        }
    }

    #[test]
    fn o2_a_bridge_is_held_open_or_over_and_its_program_near_or_far() {
        for stage in [
            r#"{"Held":{"public":{"Port":[20,21]},"open_by":5}}"#,
            r#"{"Held":{"public":{"Passed":[20]},"open_by":null}}"#,
            r#"{"Held":{"public":{"Listening":20},"open_by":null}}"#,
            r#"{"Open":{"file":null}}"#,
            r#"{"Open":{"file":{"path":"/run/a","name":"a","directory":20,"file":21}}}"#,
            r#""Ended""#,
        ] {
            for readiness in
                [r#""Waiting""#, r#"{"Ready":"127.0.0.1:5901"}"#, r#""Failed""#, r#""Gone""#]
            {
                for shutdown in ["Run", "NoMore", "Drain", "Late", "Finish", "Now"] {
                    let json = format!(
                        r#"{{"relay":{{"stage":{stage},"shutdown":"{shutdown}"}},"readiness":{readiness},"served":{{"count":3,"asked":2,"before":1}},"demand":"Waiting"}}"#
                    );
                    let state = with(&format!(r#""relay": {json}"#)).expect("a state");
                    assert_eq!(state.descriptors().contains(&20), stage.contains("20"), "{stage}");
                    let relay = state.relay.as_ref().expect("there is one");
                    assert_eq!(serde_json::to_string(relay).expect("JSON"), json);
                }
            }
        }
    }
}
