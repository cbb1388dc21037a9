//! The launcher as another image of us goes on with it (O2): it is our child still, and has become who it is; what goes along
//! is our end of its socket. It does as the version has it that has begun it, so a number says what it is asked, and how.

use std::os::fd::{AsRawFd, IntoRawFd, RawFd};

use anyhow::{Result, bail, ensure};
use bridge::Descriptors;
use nix::unistd::{Pid, Uid};
use rustix::net::AddressFamily;
use rustix::net::sockopt::{socket_domain, socket_type};
use serde::{Deserialize, Serialize};

use super::{Launcher, SocketType};
use crate::host::user::User;
use crate::processes::is_child;

/// What it is asked, and what it answers. To be raised with whatever a launcher of the version before would take wrongly.
const PROTOCOL: u32 = 1;

/// What another image needs to know of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LauncherState {
    protocol: u32,
    /// None: it has ended.
    process: Option<i32>,
    user: u32,
    socket: RawFd,
}

/// Whether it is what starts a program as this user, where it is to be another one than we.
///
/// # Errors
///
/// It is another user's, or there is none, or we do not know how to ask it.
pub(crate) fn check(state: Option<&LauncherState>, user: Option<&User>) -> Result<()> {
    match (state, user) {
        (None, None) => Ok(()),
        (None, Some(user)) => bail!("nothing starts the program as user {} any more", user.name),
        (Some(state), user) => {
            let LauncherState { protocol, user: uid, .. } = state;
            ensure!(
                *protocol == PROTOCOL,
                "what starts the program speaks protocol {protocol}, and this program knows protocol {PROTOCOL}"
            );
            let is_same = user.is_some_and(|user| user.uid.as_raw() == *uid);
            ensure!(
                is_same,
                "what starts the program is user {uid}, who is not asked for any more"
            );
            Ok(())
        }
    }
}

impl LauncherState {
    pub(crate) fn descriptor(&self) -> RawFd {
        self.socket
    }
}

impl Launcher {
    pub(crate) fn save(&self) -> LauncherState {
        LauncherState {
            protocol: PROTOCOL,
            process: self.process.map(Pid::as_raw),
            user: self.user.as_raw(),
            socket: self.socket.as_raw_fd(),
        }
    }

    /// One that was [checked](check).
    ///
    /// # Errors
    ///
    /// The descriptor is no socket of ours. It stays open: a launcher whose socket is closed ends.
    pub(crate) fn resume(state: &LauncherState, descriptors: &mut Descriptors) -> Result<Self> {
        let number = state.socket;
        let socket = descriptors.take(number)?;
        let is_pair = socket_domain(&socket) == Ok(AddressFamily::UNIX)
            && socket_type(&socket) == Ok(SocketType::SEQPACKET);
        if !is_pair {
            let _ = socket.into_raw_fd();
            bail!("descriptor {number} leads to nobody who starts the program");
        }
        let process = state.process.filter(|process| *process > 0).map(Pid::from_raw);
        let process = process.filter(|process| is_child(*process));
        Ok(Self { process, user: Uid::from_raw(state.user), socket })
    }
}
