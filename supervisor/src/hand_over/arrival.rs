//! Our beginning where another image of this program has ended: what it has left is read and looked at as a whole, before
//! anything of it is believed.

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
use super::{format, marks, memory, way_back};
use crate::config::{Config, Told};
use crate::engine::Clients;
use crate::exit::{ExitStatus, Failure};
use crate::handed::Handed;
use crate::program::saved::ProgramState;
use crate::relay::RelayState;

/// What was left to us.
pub(crate) struct Arrival {
    pub(crate) state: State,
    bytes: Vec<u8>,
    pub(crate) descriptors: Descriptors,
    numbers: Vec<RawFd>,
    memory: RawFd,
    program: RawFd,
    /// Why the program that we had made room for has come back to us.
    back: Option<String>,
}

/// What is bridged to, as it stands still, and all that is open for it.
pub(crate) struct Estate {
    relay: Option<RelayState>,
    program: Option<ProgramState>,
    frozen: Option<Frozen>,
    descriptors: Descriptors,
}

/// An [`Estate`] of which pieces are taken.
pub(crate) struct Left<'a> {
    /// The bridge to a service; that to a program is in its state.
    pub(crate) relay: Option<RelayState>,
    pub(crate) program: Option<ProgramState>,
    /// None: there was no bridge yet.
    pub(crate) frozen: Option<Frozen>,
    pub(crate) handed: Handed<'a>,
}

impl Arrival {
    /// None: we are started as anybody is. To be called before there is a second thread.
    ///
    /// # Errors
    ///
    /// It cannot be used, and there is no way back.
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
        // What the image before may have set, so that it is not waited for us for ever.
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
        if let Some(number) = numbers.iter().find(|number| !marks::is_kept(**number)) {
            return Err(format!("descriptor {number} is not open"));
        }
        // SAFETY: each is open, was opened for nobody but us by the image before, and stands in the list once.
        let owned = numbers.iter().map(|number| unsafe { OwnedFd::from_raw_fd(*number) });
        let descriptors = owned.collect();
        // Kernels before 6.14 name us by our descriptor.
        if let Ok(name) = std::ffi::CString::new(state.launch.name.as_encoded_bytes()) {
            let _ = nix::sys::prctl::set_name(&name);
        }
        Ok(Self { state, bytes: rest.to_vec(), descriptors, numbers, memory, program, back })
    }

    /// What the command line means to us.
    pub(crate) fn config(&self) -> Result<Config, Failure> {
        self.state.launch.config().map_err(failure)
    }

    /// What is left of it when everything is taken.
    pub(crate) fn taken(self) -> (Launch, Arrived, Estate) {
        let Self { state, bytes, descriptors, numbers, memory, program, back } = self;
        let State {
            launch, stopped, is_ready, standing, rests, relay, bridge, program: life, ..
        } = state;
        let frozen = bridge.map(|bridge| Frozen::of(bridge, bytes));
        let arrived = Arrived {
            stopped,
            is_ready,
            standing,
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
    /// As it is looked at and taken, piece by piece.
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
    pub(crate) fn clients(&mut self, told: Option<Told>) -> anyhow::Result<Option<Clients>> {
        match &mut self.program {
            Some(program) => program.clients(told, &mut self.handed),
            None => Ok(None),
        }
    }
}

/// Whether whoever has started us has our rights.
pub(super) fn is_own() -> bool {
    Uid::current() == Uid::effective() && Gid::current() == Gid::effective()
}

/// Whoever has started us with more rights than he has must not have us execute what he likes.
fn ensure_own() -> Result<(), Failure> {
    if is_own() {
        return Ok(());
    }
    Err(failure(format!("environment variable {VARIABLE} is set by somebody with other rights")))
}

fn failure(reason: String) -> Failure {
    Failure { status: ExitStatus::FAILURE, reason }
}

/// What is in it, if it is what another image has left.
#[allow(unsafe_code)]
fn read(number: RawFd) -> Option<Vec<u8>> {
    // SAFETY: it is not closed here; where nothing is open, reading fails.
    let memory = ManuallyDrop::new(unsafe { File::from_raw_fd(number) });
    memory::read(&memory).ok().flatten().filter(|bytes| format::is_state(bytes))
}

/// Nobody else is to have it, no program that we start.
#[allow(unsafe_code)]
fn take_variable(name: &str) -> Option<String> {
    let value = std::env::var_os(name)?;
    // SAFETY: there is no second thread yet that could read the environment.
    unsafe { std::env::remove_var(name) };
    Some(value.to_string_lossy().into_owned())
}
