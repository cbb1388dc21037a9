//! The diagnosis: it says, once, why the program does not listen where it should (W12): what keeps the engine from
//! moving its port, or which other port the program listens on. Must not know when to say so.

use tracing::warn;

use super::monitor::Monitor;
use crate::config::ProgramSpec;
use crate::engine::Engine;

/// What was logged about the program.
#[derive(Debug)]
pub(super) struct Diagnosis<'a> {
    spec: &'a ProgramSpec,
    /// The warning that was logged. It is empty after a hand-over, where the old binary has logged it.
    said: Option<String>,
}

impl<'a> Diagnosis<'a> {
    pub(super) fn of(spec: &'a ProgramSpec) -> Self {
        Self { spec, said: None }
    }

    /// The same after a hand-over. `is_said`: the old binary has logged the warning.
    pub(super) fn resume(spec: &'a ProgramSpec, is_said: bool) -> Self {
        Self { spec, said: is_said.then(String::new) }
    }

    /// Whether the warning was logged, so that nothing more is said.
    pub(super) fn is_said(&self) -> bool {
        self.said.is_some()
    }

    /// An instance was started: warns of what can be seen before it runs.
    pub(super) fn started(&mut self, engine: &Engine) {
        if self.is_said() {
            return;
        }
        if let Some(obstacle) = engine.obstacle(&self.spec.command[0]) {
            self.say(format!("program {} {obstacle}", self.spec.name));
        }
    }

    /// An instance has ended, and has not listened: says what was seen of it, or else what to try.
    pub(super) fn ended(&mut self, engine: &Engine) {
        self.unheard(engine);
        let advice = engine.advice(&self.spec.command[0]).filter(|_| !self.is_said());
        if let Some(advice) = advice {
            let port = self.spec.port;
            self.say(format!("program has ended before it listened on port {port}: {advice}"));
        }
    }

    /// An instance has ended without listening, or does not listen yet: says what was seen of its processes.
    fn unheard(&mut self, engine: &Engine) {
        if self.is_said() {
            return;
        }
        if let Some(reason) = engine.out_of_reach(&self.spec.command) {
            let (name, port) = (&self.spec.name, self.spec.port);
            self.say(format!("program {name} does not listen on port {port}: {reason}"));
        }
    }

    /// An instance runs, and has not listened yet: says why, or on which ports it listens instead.
    pub(super) fn silent(&mut self, engine: &Engine, monitor: &mut Monitor) {
        self.unheard(engine);
        if !self.is_said() {
            let port = self.spec.port;
            let advice = match monitor.other_ports().as_slice() {
                [] => "; if it uses another one, give it with --program-port".into(),
                [other] => format!(", but on {other}; --program-port={other} bridges to that"),
                others => format!(", but on {others:?}; give the right one with --program-port"),
            };
            self.say(format!("program does not listen on port {port} yet{advice}"));
        }
    }

    /// The warning that was logged, for the caller of `-D`, which waits until the program listens.
    pub(super) fn said(&self) -> &str {
        self.said.as_deref().unwrap_or_default()
    }

    fn say(&mut self, line: String) {
        warn!(program = self.spec.name, "{line}");
        self.said = Some(line);
    }

    /// The last instance has ended, and none has listened.
    pub(super) fn never_listened(&self) {
        if !self.is_said() {
            let (program, port) = (&self.spec.name, self.spec.port);
            warn!(program, "program has ended without listening on port {port}");
        }
    }
}
