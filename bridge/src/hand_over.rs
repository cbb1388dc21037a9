//! How a bridge is stopped between two bytes, so that another image of this program goes on with it (O2): what it is told
//! by, and what it says of itself. Sockets are named by their descriptors, which exec(2) keeps. Must not know how
//! images are changed, nor how the state is written.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::net::Listener;

/// By which a bridge is asked to stand still. It is in the bridge's [`Config`](crate::Config); copies ask the same bridge.
#[derive(Debug, Clone, Default)]
pub struct HandOver(Arc<Mutex<Option<Vec<Listening>>>>);

/// Why a bridge does not stand still. It goes on as before.
#[derive(Debug, thiserror::Error)]
pub enum NotFrozen {
    /// There is none, or it is over.
    #[error("the bridge has ended")]
    Ended,
    /// Something of it did not stop in time.
    #[error("{0} did not stop in time")]
    Busy(String),
}

/// A bridge that stands still. Dropped, it goes on, as if nothing had been.
#[derive(Debug)]
pub struct Frozen {
    /// What another image goes on with.
    pub state: BridgeState,
    /// The bytes that the state speaks of, which were read and not written yet.
    pub bytes: Vec<u8>,
    /// Those that cannot go along, and go on in a process of their own.
    pub rest: Rest,
}

/// What another image needs to go on.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct BridgeState {
    listeners: Vec<Listening>,
}

/// A socket that listens.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Listening {
    descriptor: RawFd,
    is_unix: bool,
    is_lent: bool,
}

/// Encrypted sessions, which live where their keys are.
#[derive(Debug, Default)]
pub struct Rest {}

/// What is wrong with a state. Nothing was done with it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

/// Open descriptors by their numbers, each to be taken once.
#[derive(Debug, Default)]
pub struct Descriptors(HashMap<RawFd, OwnedFd>);

impl HandOver {
    /// Stops the bridge, which is done within this time or not at all.
    ///
    /// # Errors
    /// It goes on, and why.
    pub async fn freeze(&self, within: Duration) -> Result<Frozen, NotFrozen> {
        let _ = within;
        let listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let state = BridgeState { listeners: listeners.ok_or(NotFrozen::Ended)? };
        Ok(Frozen { state, bytes: Vec::new(), rest: Rest::default() })
    }

    /// The bridge begins, and listens there.
    pub(crate) fn begin(&self, listeners: &[Listener]) {
        let listeners = listeners.iter().map(|listener| Listening::of(listener, false)).collect();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(listeners);
    }
}

impl Listening {
    fn of(listener: &Listener, is_lent: bool) -> Self {
        match listener {
            Listener::Tcp(socket) => {
                Self { descriptor: socket.as_raw_fd(), is_unix: false, is_lent }
            }
            Listener::Unix(socket) => {
                Self { descriptor: socket.as_raw_fd(), is_unix: true, is_lent }
            }
            Listener::Lent(listener) => Self::of(listener, true),
        }
    }

    fn take(&self, descriptors: &mut Descriptors) -> Result<Listener, Invalid> {
        let socket = descriptors.take(self.descriptor)?;
        let listener = match self.is_unix {
            true => Listener::Unix(socket.into()),
            false => Listener::Tcp(socket.into()),
        };
        Ok(if self.is_lent { Listener::Lent(Box::new(listener)) } else { listener })
    }
}

impl BridgeState {
    /// The descriptors that it names, which are to be kept.
    pub fn descriptors(&self) -> Vec<RawFd> {
        self.listeners.iter().map(|listener| listener.descriptor).collect()
    }

    pub(crate) fn listeners(&self, from: &mut Descriptors) -> Result<Vec<Listener>, Invalid> {
        self.listeners.iter().map(|listener| listener.take(from)).collect()
    }
}

impl Rest {
    /// How many sessions these are.
    pub fn sessions(&self) -> usize {
        0
    }
}

impl FromIterator<OwnedFd> for Descriptors {
    fn from_iter<T: IntoIterator<Item = OwnedFd>>(all: T) -> Self {
        Self(all.into_iter().map(|fd| (fd.as_raw_fd(), fd)).collect())
    }
}

impl Descriptors {
    /// The one of this number.
    ///
    /// # Errors
    /// It is not there, or was taken.
    pub fn take(&mut self, number: RawFd) -> Result<OwnedFd, Invalid> {
        self.0.remove(&number).ok_or_else(|| Invalid(format!("descriptor {number} is missing")))
    }
}
