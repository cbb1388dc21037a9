//! The arrival: the beginning of the new binary after exec(2). The state that the old binary has left is read and
//! checked as a whole, before anything of it is used.

use std::collections::HashSet;
use std::fs::File;
use std::mem::ManuallyDrop;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use bridge::{Descriptors, Frozen};
use nix::unistd::{Gid, Uid, alarm};

use super::arrived::Arrived;
use super::image::{BACK, VARIABLE};
use super::launch::Launch;
use super::state::State;
use super::{cloexec, format, memory, way_back};
use crate::config::{Config, Told};
use crate::engine::ClientTableFile;
use crate::exit::{ExitStatus, Failure};
use crate::handed::Handed;
use crate::program::saved::ProgramState;
use crate::relay::RelayState;

/// What the old binary has left.
pub(crate) struct Arrival {
    pub(crate) state: State,
    bytes: Vec<u8>,
    pub(crate) descriptors: Descriptors,
    numbers: Vec<RawFd>,
    memory: RawFd,
    program: RawFd,
    /// Set in the old binary when the new one has executed it again: the reason. `None`: we are the new binary.
    back: Option<String>,
}

/// The saved state of what is bridged to, and all descriptors that are open for it.
pub(crate) struct Estate {
    relay: Option<RelayState>,
    program: Option<ProgramState>,
    frozen: Option<Frozen>,
    descriptors: Descriptors,
}

/// An [`Estate`] of which pieces are taken.
pub(crate) struct Left<'a> {
    /// The bridge to a service. A bridge to a program is in the state of the program.
    pub(crate) relay: Option<RelayState>,
    pub(crate) program: Option<ProgramState>,
    /// None: there was no bridge yet.
    pub(crate) frozen: Option<Frozen>,
    pub(crate) handed: Handed<'a>,
}

impl Arrival {
    /// Looks for the state of an old binary. None: we are started as usual. To be called before there is a second
    /// thread.
    ///
    /// # Errors
    ///
    /// The state cannot be used, and there is no way back to the old binary.
    pub(crate) fn find() -> Result<Option<Self>, Failure> {
        let Some(told) = take_variable(VARIABLE) else { return Ok(None) };
        let back = take_variable(BACK);
        ensure_own()?;
        let numbers = told
            .split_once(',')
            .and_then(|(memory, program)| Some((memory.parse().ok()?, program.parse().ok()?)));
        let numbers = numbers.filter(|(memory, _)| *memory > libc::STDERR_FILENO);
        let bytes = numbers.and_then(|(memory, _)| read(memory));
        let Some(((memory, program), bytes)) = numbers.zip(bytes) else {
            return Err(failure(format!(
                "environment variable {VARIABLE} is set, and there is nothing to take over: it is for websockify's \
                 own use"
            )));
        };
        // The binary before may have set an alarm, so that nobody waits for us for ever; exec(2) keeps it.
        alarm::cancel();
        if back.is_none() {
            way_back::open(memory, program).map_err(|error| failure(bridge::error_text(&error)))?;
        }
        let arrival = Self::of(&bytes, memory, program, back.clone());
        let arrival = arrival.inspect_err(|why| way_back::go(why));
        arrival.map(Some).map_err(|why| match back {
            None => failure(format!("cannot take over: {why}")),
            Some(back) => {
                failure(format!("cannot go on: {why}; the new program had failed: {back}"))
            }
        })
    }

    #[allow(unsafe_code)]
    fn of(
        bytes: &[u8],
        memory: RawFd,
        program: RawFd,
        back: Option<String>,
    ) -> Result<Self, String> {
        let (state, rest) = format::read::<State>(bytes).map_err(|why| why.to_string())?;
        if state.pid != std::process::id() {
            return Err(format!("it is the state of process {}", state.pid));
        }
        if state.relay.is_none() && state.program.is_none() {
            return Err("it is the state for a trial".into());
        }
        let numbers = state.descriptors();
        let mut seen = HashSet::from([0, 1, 2, memory, program]);
        if let Some(number) = numbers.iter().find(|number| !seen.insert(**number)) {
            return Err(format!("descriptor {number} is named twice"));
        }
        if let Some(number) = numbers.iter().find(|number| !cloexec::is_kept(**number)) {
            return Err(format!("descriptor {number} is not open"));
        }
        // SAFETY: each descriptor is open, the binary before has left it to us and to nobody else, and it is in the
        // list once.
        let owned = numbers.iter().map(|number| unsafe { OwnedFd::from_raw_fd(*number) });
        let descriptors = owned.collect();
        // Kernels before 6.14 name the process after the number of the descriptor that was executed.
        if let Ok(name) = std::ffi::CString::new(state.launch.name.as_encoded_bytes()) {
            let _ = nix::sys::prctl::set_name(&name);
        }
        Ok(Self { state, bytes: rest.to_vec(), descriptors, numbers, memory, program, back })
    }

    /// Whether we are the old binary, on its way back: the new one has failed.
    pub(crate) fn is_back(&self) -> bool {
        self.back.is_some()
    }

    /// What the command line means to this binary.
    pub(crate) fn config(&self) -> Result<Config, Failure> {
        self.state.config().map_err(failure)
    }

    /// Takes it apart.
    pub(crate) fn taken(self) -> (Launch, Arrived, Estate) {
        let Self { state, bytes, descriptors, numbers, memory, program, back } = self;
        let State {
            launch,
            stopped,
            is_ready,
            standing,
            serves_tls,
            rests,
            relay,
            bridge,
            program: life,
            ..
        } = state;
        let frozen = bridge.map(|bridge| Frozen::of(bridge, bytes));
        let arrived = Arrived {
            stopped,
            is_ready,
            standing,
            serves_tls,
            rests,
            originals: Vec::new(),
            back,
            numbers,
            memory,
            old: program,
        };
        (launch, arrived, Estate { relay, program: life, frozen, descriptors })
    }
}

impl Estate {
    /// Opens it, so that each piece can be checked and taken.
    pub(crate) fn open(&mut self) -> Left<'_> {
        let Self { relay, program, frozen, descriptors } = self;
        Left {
            relay: relay.take(),
            program: program.take(),
            frozen: frozen.take(),
            handed: Handed::of(descriptors),
        }
    }
}

impl Left<'_> {
    /// The file that tells the program who its clients are, if it is `told`.
    ///
    /// # Errors
    /// As [`ProgramState::clients`].
    pub(crate) fn clients(
        &mut self,
        told: Option<Told>,
    ) -> anyhow::Result<Option<ClientTableFile>> {
        match &mut self.program {
            Some(program) => program.clients(told, &mut self.handed),
            None => Ok(None),
        }
    }
}

/// Whether we have the rights of the user who has started us, and not those of a setuid or setgid file.
pub(super) fn is_own() -> bool {
    Uid::current() == Uid::effective() && Gid::current() == Gid::effective()
}

/// A user who has started us with more rights than the user has (setuid) must not choose what we execute.
fn ensure_own() -> Result<(), Failure> {
    if is_own() {
        return Ok(());
    }
    Err(failure(format!("environment variable {VARIABLE} is set by somebody with other rights")))
}

fn failure(reason: String) -> Failure {
    Failure { status: ExitStatus::FAILURE, reason }
}

/// The bytes of this memory, if they are the state of an old binary.
#[allow(unsafe_code)]
fn read(number: RawFd) -> Option<Vec<u8>> {
    // SAFETY: it is not closed here; where nothing is open, reading fails.
    let memory = ManuallyDrop::new(unsafe { File::from_raw_fd(number) });
    memory::read(&memory).ok().flatten().filter(|bytes| format::is_state(bytes))
}

/// Reads a variable and removes it: no program that we start is to get it.
#[allow(unsafe_code)]
fn take_variable(name: &str) -> Option<String> {
    let value = std::env::var_os(name)?;
    // SAFETY: there is no second thread yet that could read the environment.
    unsafe { std::env::remove_var(name) };
    Some(value.to_string_lossy().into_owned())
}
