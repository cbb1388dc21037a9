//! Sockets and files that a state names by their descriptors, which exec(2) keeps. Must not know what they are.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::invalid::Invalid;

/// Open descriptors by their numbers, each to be taken once.
#[derive(Debug, Default)]
pub struct Descriptors(HashMap<RawFd, OwnedFd>);

impl FromIterator<OwnedFd> for Descriptors {
    fn from_iter<T: IntoIterator<Item = OwnedFd>>(all: T) -> Self {
        Self(all.into_iter().map(|fd| (fd.as_raw_fd(), fd)).collect())
    }
}

impl Descriptors {
    /// Adds a descriptor. Returns its number.
    pub(crate) fn add(&mut self, descriptor: OwnedFd) -> RawFd {
        let number = descriptor.as_raw_fd();
        self.insert(number, descriptor);
        number
    }

    /// Adds a descriptor that the state calls by this number, whatever its number is now.
    pub fn insert(&mut self, number: RawFd, descriptor: OwnedFd) {
        self.0.insert(number, descriptor);
    }

    /// Checks that these descriptors are there.
    ///
    /// # Errors
    /// One is not.
    pub(crate) fn look(&self, numbers: &[RawFd]) -> Result<(), Invalid> {
        let missing = numbers.iter().find(|number| !self.0.contains_key(number));
        missing.map_or(Ok(()), |number| Err(Invalid(format!("descriptor {number} is missing"))))
    }

    /// Takes the descriptor with this number.
    ///
    /// # Errors
    /// It is not there, or was taken.
    pub fn take(&mut self, number: RawFd) -> Result<OwnedFd, Invalid> {
        self.0.remove(&number).ok_or_else(|| Invalid(format!("descriptor {number} is missing")))
    }
}
