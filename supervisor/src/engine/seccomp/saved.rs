//! The seccomp engine in a hand-over (O2): what the old binary saves of it, and how the new one goes on with it. Calls
//! that come meanwhile wait in the kernel, at the listeners, which stay open over exec(2). Must not know how calls are
//! answered.

use std::cell::Cell;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::answers::Answers;
use super::call::Listener;
use super::filter::NewPrivileges;
use super::halt::Halt;
use super::repeats::{RetriedBind, RetriedBinds};
use super::unseen::Unseen;
use super::{Seccomp, hand};
use crate::engine::owner::Owner;
use crate::engine::relocated::RelocatedPort;
use crate::handed::Handed;

/// What /proc calls a listener.
const LISTENER: &str = "anon_inode:seccomp notify";

/// What the new binary needs to go on.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SeccompState {
    relocated: Vec<RawFd>,
    privileges: NewPrivileges,
    listeners: Vec<RawFd>,
    /// Of each listener.
    #[serde(default)]
    owners: Vec<Owner>,
    #[serde(default)]
    repeats: Vec<RetriedBind>,
    #[serde(default)]
    unseen: Option<String>,
}

impl Seccomp {
    /// Has the thread stop between two calls.
    pub(in crate::engine) fn still(&self) -> Result<()> {
        self.halt.stop(&self.instances)
    }

    /// # Errors
    /// No thread can be started. Calls wait until another try succeeds.
    pub(in crate::engine) fn go_on(&self) -> Result<()> {
        let Some(answers) = self.halt.take() else { return Ok(()) };
        answers.begin(&self.halt).context("cannot answer the program's calls for now")
    }

    /// What is saved of it, while the thread is stopped.
    pub(in crate::engine) fn save(&self) -> SeccompState {
        let of_thread = |answers: &Answers| {
            let of_each = answers
                .listeners
                .iter()
                .map(|listener| (listener.descriptor.as_raw_fd(), listener.owner.get()));
            let (listeners, owners) = of_each.unzip();
            (listeners, owners, answers.repeats.all())
        };
        let (listeners, owners, repeats) = self.halt.look(of_thread).unwrap_or_default();
        SeccompState {
            relocated: self.relocated.descriptors(),
            privileges: self.privileges,
            listeners,
            owners,
            repeats,
            unseen: self.unseen.first(),
        }
    }

    /// The thread does not begin before the engine [goes on](Self::go_on).
    pub(in crate::engine) fn resume(
        state: SeccompState,
        port: u16,
        handed: &mut Handed<'_>,
    ) -> Result<Self> {
        let relocated = Arc::new(RelocatedPort::resume(&state.relocated, handed)?);
        let unseen = Unseen::of(state.unseen);
        let (instances, taken) = hand::pair().context("cannot make a socket pair")?;
        let owners = state.owners.into_iter().chain(std::iter::repeat(Owner::unknown()));
        let listeners = state.listeners.into_iter().zip(owners);
        let listeners = listeners.map(|(number, owner)| listener(number, owner, handed));
        let answers = Answers {
            port,
            relocated: Arc::clone(&relocated),
            listens: Arc::default(),
            instances: taken,
            listeners: listeners.collect::<Result<_>>()?,
            repeats: RetriedBinds::of(state.repeats),
            unseen: unseen.clone(),
        };
        let listens = Arc::clone(&answers.listens);
        // Whether a process has begun to listen before the hand-over is not known any more: the program is looked at.
        listens.notify_one();
        let halt = Halt::of(answers);
        let privileges = state.privileges;
        Ok(Self { relocated, privileges, listens, unseen, instances: Arc::new(instances), halt })
    }
}

fn listener(number: RawFd, owner: Owner, handed: &mut Handed<'_>) -> Result<Listener> {
    let descriptor: OwnedFd = handed.of_kernel(number, LISTENER)?;
    Ok(Listener { descriptor, owner: Cell::new(owner) })
}

impl SeccompState {
    pub(in crate::engine) fn descriptors(&self) -> Vec<RawFd> {
        [self.relocated.as_slice(), &self.listeners].concat()
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::TcpListener;
    use std::os::fd::AsFd;
    use std::sync::mpsc;
    use std::thread::{self, JoinHandle};
    use std::time::Duration;

    use bridge::Descriptors;

    use super::super::filter;
    use super::*;
    use crate::handed::tests::steal;
    use crate::skip::skip_even_in_ci;

    /// A program of one thread: whenever it is told, it binds its port and listens, and says on which port it does.
    struct Program {
        go: mpsc::Sender<()>,
        bound: mpsc::Receiver<io::Result<u16>>,
        _thread: JoinHandle<()>,
    }

    impl Program {
        fn start(port: u16, seccomp: &Seccomp) -> Self {
            let ((go, told), (say, bound)) = (mpsc::channel(), mpsc::channel());
            let (privileges, hand) = (seccomp.privileges, Arc::clone(&seccomp.instances));
            let thread = thread::spawn(move || {
                let listener = filter::install(privileges).expect("it was tried out");
                filter::hand_over(&listener, hand.as_fd()).expect("taken");
                drop((listener, hand));
                while told.recv().is_ok() {
                    let bind = || TcpListener::bind(("127.0.0.1", port))?.local_addr();
                    if say.send(bind().map(|address| address.port())).is_err() {
                        return;
                    }
                }
            });
            Self { go, bound, _thread: thread }
        }

        fn tell(&self) {
            self.go.send(()).expect("it runs");
        }

        fn has_bound(&self) -> u16 {
            let bound = self.bound.recv_timeout(Duration::from_secs(20)).expect("answered");
            bound.expect("bound")
        }

        fn waits(&self) {
            self.bound.recv_timeout(Duration::from_millis(100)).expect_err("it waits");
        }
    }

    fn engine(port: u16) -> Option<Seccomp> {
        let made = Seccomp::new(port);
        made.inspect_err(|error| skip_even_in_ci(&format!("{error:#}"))).ok()
    }

    fn free_port() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.local_addr().expect("an address").port()
    }

    #[test]
    fn o2_a_call_that_waits_is_answered_by_who_takes_over() {
        let port = free_port();
        let Some(old) = engine(port) else { return };
        let program = Program::start(port, &old);
        program.tell();
        assert_eq!(program.has_bound(), old.port());
        old.still().expect("nobody is being answered");
        program.tell();
        program.waits();
        let json = serde_json::to_string(&old.save()).expect("JSON");
        let mut state: SeccompState = serde_json::from_str(&json).expect("the same");
        assert_eq!(state.listeners.len(), 1);
        let mut copies = vec![];
        for number in state.relocated.iter_mut().chain(&mut state.listeners) {
            copies.push(steal(*number));
            *number = copies.last().map_or(-1, AsRawFd::as_raw_fd);
        }
        let mut all: Descriptors = copies.into_iter().collect();
        let mut handed = Handed::of(&mut all);
        let new = Seccomp::resume(state, port, &mut handed).expect("resumed");
        handed.settle();
        program.waits();
        new.go_on().expect("a thread");
        assert_eq!(program.has_bound(), old.port());
        std::mem::forget(old);
        program.tell();
        assert_eq!(program.has_bound(), new.port());
    }

    #[test]
    fn o2_a_call_is_answered_when_nobody_takes_over() {
        let port = free_port();
        let Some(engine) = engine(port) else { return };
        let program = Program::start(port, &engine);
        for _ in 0..3 {
            engine.still().expect("nobody is being answered");
            engine.still().expect("it is");
            program.tell();
            program.waits();
            engine.go_on().expect("a thread");
            assert_eq!(program.has_bound(), engine.port());
        }
        engine.go_on().expect("it does");
    }

    /// As after a hand-over when the program has taken the last process id, so that no thread could be started.
    #[tokio::test]
    async fn o2_a_thread_that_is_missing_is_started_while_the_program_is_heard() {
        let port = free_port();
        let Some(engine) = engine(port) else { return };
        let program = Program::start(port, &engine);
        engine.still().expect("nobody is being answered");
        program.tell();
        program.waits();
        let heard = tokio::time::timeout(Duration::from_secs(20), engine.heard());
        assert!(heard.await.expect("answered").listens);
        assert_eq!(program.has_bound(), engine.port());
    }

    #[test]
    fn o2_what_tells_no_calls_is_refused() {
        let file = OwnedFd::from(tempfile::tempfile().expect("a file"));
        let relocated = RelocatedPort::hold().expect("a free port");
        let held: Vec<_> = relocated.descriptors().into_iter().map(steal).collect();
        let state = SeccompState {
            relocated: held.iter().map(AsRawFd::as_raw_fd).collect(),
            privileges: NewPrivileges::Kept,
            listeners: vec![file.as_raw_fd()],
            owners: vec![],
            repeats: vec![],
            unseen: None,
        };
        let line = format!("descriptor {} is no {LISTENER}", file.as_raw_fd());
        let mut all: Descriptors = held.into_iter().chain([file]).collect();
        let error = Seccomp::resume(state, 1, &mut Handed::of(&mut all)).expect_err("a file");
        assert_eq!(error.to_string(), line);
    }
}
