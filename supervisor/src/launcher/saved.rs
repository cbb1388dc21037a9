//! The launcher in a hand-over: the new binary goes on with the launcher that the old binary has forked (O2). It is
//! still a child of this process, and still has its user; what is handed over is our end of its socket. A launcher runs
//! the code of the version that has forked it, so a protocol number says which requests it understands.

use std::os::fd::{AsRawFd, IntoRawFd, RawFd};

use anyhow::{Result, bail, ensure};
use bridge::Descriptors;
use nix::unistd::{Pid, Uid};
use rustix::net::AddressFamily;
use rustix::net::sockopt::{socket_domain, socket_type};
use serde::{Deserialize, Serialize};

use super::{Launcher, SocketType};
use crate::machine::user::User;
use crate::processes::is_child;

/// The version of the requests and answers. To be raised with each change that an older launcher would misread.
const PROTOCOL: u32 = 1;

/// What the new binary needs to know of the launcher.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LauncherState {
    protocol: u32,
    /// None: it has ended.
    process: Option<i32>,
    user: u32,
    socket: RawFd,
}

/// Checks that the launcher can start programs as `user`, who is given where the program has another user than we.
///
/// # Errors
///
/// The launcher has another user, or there is none, or we do not know its protocol.
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

    /// Goes on with a launcher that was [checked](check).
    ///
    /// # Errors
    ///
    /// The descriptor is no such socket. It stays open: a launcher ends when its socket is closed.
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

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use rustix::net::{SocketFlags, socketpair};

    use super::*;
    use crate::config::UserSpec;
    use crate::launcher::request;

    fn pair() -> (OwnedFd, OwnedFd) {
        let kind = SocketType::SEQPACKET;
        socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).expect("a pair")
    }

    fn state(process: Option<i32>, socket: &OwnedFd) -> LauncherState {
        LauncherState { protocol: PROTOCOL, process, user: 33, socket: socket.as_raw_fd() }
    }

    /// A user with this user id, whether this machine has one or not.
    fn user(uid: u32) -> User {
        let group = Some(uid.to_string());
        User::look_up(&UserSpec { option: "--program-user", user: uid.to_string(), group })
            .expect("a user")
    }

    #[test]
    fn o2_w16_a_launcher_of_another_user_or_another_protocol_is_refused() {
        let (socket, _theirs) = pair();
        let good = state(None, &socket);
        let other = LauncherState { protocol: PROTOCOL + 1, ..good.clone() };
        let (same, another) = (user(33), user(34));
        check(None, None).expect("nobody, as is asked for");
        check(Some(&good), Some(&same)).expect("the same");
        for (state, user, why) in [
            (None, Some(&same), "any more"),
            (Some(&good), None, "is user 33, who is not asked for any more"),
            (Some(&good), Some(&another), "is user 33, who is not asked for any more"),
            (Some(&other), Some(&same), "speaks protocol 2, and this program knows protocol 1"),
        ] {
            let line = check(state, user).expect_err(why).to_string();
            assert!(line.ends_with(why), "{line}");
        }
    }

    #[test]
    fn o2_w16_a_launcher_is_asked_by_the_socket_that_was_left() {
        let (ours, theirs) = pair();
        let (number, state) = (ours.as_raw_fd(), state(None, &ours));
        let json = serde_json::to_string(&state).expect("JSON");
        let state: LauncherState = serde_json::from_str(&json).expect("the same");
        let mut all: Descriptors = [ours].into_iter().collect();
        let launcher = Launcher::resume(&state, &mut all).expect("resumed");
        assert_eq!(launcher.save().descriptor(), number, "it is no copy");
        request::say(&theirs, Ok(7));
        assert_eq!(request::answer(&launcher.socket).expect("an answer"), 7);
    }

    /// A process that is no child of ours has got the launcher's process id: we must not wait for it.
    #[test]
    fn o2_w16_a_launcher_that_is_no_child_of_ours_has_ended() {
        for process in [Some(1), Some(0), Some(-1), None] {
            let (ours, theirs) = pair();
            drop(theirs);
            let state = state(process, &ours);
            let mut all: Descriptors = [ours].into_iter().collect();
            let launcher = Launcher::resume(&state, &mut all).expect("resumed");
            assert_eq!(launcher.process, None);
            let command = std::process::Command::new("true");
            let error = launcher.start(&command, None, false).expect_err("it has ended");
            assert!(error.to_string().ends_with("has ended"), "{error}");
        }
    }

    /// A launcher would take a closed socket for websockify's end.
    #[test]
    fn o2_w16_what_is_no_launchers_socket_is_refused_and_stays_open() {
        let (stream, _other) = UnixStream::pair().expect("a pair");
        let stream = OwnedFd::from(stream);
        let (number, state) = (stream.as_raw_fd(), state(None, &stream));
        let mut all: Descriptors = [stream].into_iter().collect();
        Launcher::resume(&state, &mut all).expect_err("a stream");
        assert!(std::fs::symlink_metadata(format!("/proc/self/fd/{number}")).is_ok());
        let line = Launcher::resume(&state, &mut all).expect_err("taken before").to_string();
        assert_eq!(line, format!("descriptor {number} is missing"));
    }
}
