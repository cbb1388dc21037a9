//! The Unix socket that clients connect to, in a hand-over (O2): the new binary gets the descriptors of the socket, its
//! file and its directory, so that it knows for sure whose the file is.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use anyhow::{Result, ensure};
use bridge::Descriptors;
use rustix::fs::fstat;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Type};

use super::{Place, PublicSocket, SocketFile, is_socket};
use crate::handed::Handed;
use crate::octets::Octets;

/// A socket that does not listen yet.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PublicSocketState {
    socket: RawFd,
    file: SocketFileState,
}

/// The file of a socket.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SocketFileState {
    path: Octets,
    name: Octets,
    directory: RawFd,
    file: RawFd,
}

impl PublicSocket {
    pub(crate) fn save(&self) -> PublicSocketState {
        PublicSocketState { socket: self.socket.as_raw_fd(), file: self.file.save() }
    }

    /// # Errors
    /// A descriptor is not what it should be.
    pub(crate) fn resume(state: PublicSocketState, handed: &mut Handed<'_>) -> Result<Self> {
        let socket = handed.socket(state.socket, &[Domain::UNIX], Type::STREAM)?;
        ensure!(!socket.is_listener()?, "descriptor {} listens already", state.socket);
        Ok(Self { socket, file: SocketFile::resume(state.file, handed)? })
    }

    pub(crate) fn go_on(&mut self) {
        self.file.go_on();
    }
}

impl SocketFile {
    pub(crate) fn save(&self) -> SocketFileState {
        let Place { path, directory, name } = &self.place;
        SocketFileState {
            path: path.as_path().into(),
            name: name.as_encoded_bytes().to_vec().into(),
            directory: directory.as_raw_fd(),
            file: self.file.as_raw_fd(),
        }
    }

    /// Goes on with the file, which is not removed before [`go_on`](Self::go_on).
    ///
    /// # Errors
    /// A descriptor is not what it should be.
    pub(crate) fn resume(state: SocketFileState, handed: &mut Handed<'_>) -> Result<Self> {
        let file = handed.copy(state.file)?;
        let is_file = is_socket(&fstat(&file)?);
        ensure!(is_file, "descriptor {} is no socket's file", state.file);
        let place = Place {
            path: state.path.into_path(),
            directory: OwnedFd::from(handed.directory(state.directory)?),
            name: state.name.into_name(),
        };
        Ok(Self { place, file, keep_on_drop: true })
    }

    /// Goes on with the file at once, by the descriptors themselves instead of copies.
    ///
    /// # Errors
    /// A descriptor is missing.
    pub(crate) fn take(state: SocketFileState, all: &mut Descriptors) -> Result<Self> {
        let place = Place {
            path: state.path.into_path(),
            directory: all.take(state.directory)?,
            name: state.name.into_name(),
        };
        Ok(Self { place, file: all.take(state.file)?, keep_on_drop: false })
    }

    /// The hand-over has succeeded: the file is ours to remove.
    pub(crate) fn go_on(&mut self) {
        self.keep_on_drop = false;
    }
}

impl PublicSocketState {
    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        [&[self.socket], self.file.descriptors().as_slice()].concat()
    }

    #[cfg(test)]
    pub(crate) fn with_descriptors(mut self, numbers: &[RawFd]) -> Self {
        (self.socket, self.file.directory, self.file.file) = (numbers[0], numbers[1], numbers[2]);
        self
    }
}

impl SocketFileState {
    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        vec![self.directory, self.file]
    }
}
