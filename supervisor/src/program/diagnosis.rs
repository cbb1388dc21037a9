//! Says, once, why the program does not listen where it should (W12): what stands in the engine's way, or
//! which port the program has in place of that. Knows nothing of when to say so.

use tracing::warn;

use super::monitor::Monitor;
use crate::config::ProgramSpec;
use crate::engine::Engine;

/// What has been said.
#[derive(Debug)]
pub(super) struct Diagnosis<'a> {
    spec: &'a ProgramSpec,
    /// The reason, or that there is none to be seen.
    said: Option<String>,
}

impl<'a> Diagnosis<'a> {
    pub(super) fn of(spec: &'a ProgramSpec) -> Self {
        Self { spec, said: None }
    }

    /// The same in another image of us, which may have said it.
    pub(super) fn resume(spec: &'a ProgramSpec, is_said: bool) -> Self {
        Self { spec, said: is_said.then(String::new) }
    }

    /// Whether nothing is to be said any more.
    pub(super) fn is_said(&self) -> bool {
        self.said.is_some()
    }

    /// An instance was started: what can be seen from outside.
    pub(super) fn started(&mut self, engine: &Engine) {
        if self.is_said() {
            return;
        }
        if let Some(obstacle) = engine.obstacle(&self.spec.command[0]) {
            self.say(format!("program {} {obstacle}", self.spec.name));
        }
    }

    /// An instance has ended, and has not listened: what was seen, or else what there is to be tried.
    pub(super) fn ended(&mut self, engine: &Engine) {
        self.unheard(engine);
        let advice = engine.advice(&self.spec.command[0]).filter(|_| !self.is_said());
        if let Some(advice) = advice {
            let port = self.spec.port;
            self.say(format!("program has ended before it listened on port {port}: {advice}"));
        }
    }

    /// An instance has ended, or says nothing: what was seen of its processes.
    fn unheard(&mut self, engine: &Engine) {
        if self.is_said() {
            return;
        }
        if let Some(reason) = engine.out_of_reach(&self.spec.command) {
            let (name, port) = (&self.spec.name, self.spec.port);
            self.say(format!("program {name} does not listen on port {port}: {reason}"));
        }
    }

    /// An instance runs, and has not listened yet.
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

    /// What was said of it, for who waits until it listens.
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
