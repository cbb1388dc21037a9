//! The public endpoint in a hand-over, while it is held and not open yet (O2).

use std::os::fd::{AsRawFd, RawFd};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};

use super::PublicEndpoint;
use crate::handed::Handed;
use crate::machine::inetd::InetdSocket;
use crate::machine::ports::PublicPort;
use crate::machine::unix_socket::{PublicSocket, PublicSocketState};

/// The families of stream sockets that clients can connect to.
const ANY: [Domain; 3] = [Domain::IPV4, Domain::IPV6, Domain::UNIX];

/// What the new binary needs to go on with the endpoint.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum EndpointState {
    Port(Vec<RawFd>),
    Unix(PublicSocketState),
    Passed(Vec<RawFd>),
    Listening(RawFd),
    Connected(RawFd),
}

impl PublicEndpoint {
    pub(crate) fn save(&self) -> EndpointState {
        let number = |socket: &Socket| socket.as_raw_fd();
        match self {
            Self::Port(port) => EndpointState::Port(port.sockets().iter().map(number).collect()),
            Self::Unix(socket) => EndpointState::Unix(socket.save()),
            Self::Passed(sockets) => EndpointState::Passed(sockets.iter().map(number).collect()),
            Self::Inetd(InetdSocket::Listening(socket)) => EndpointState::Listening(number(socket)),
            Self::Inetd(InetdSocket::Connected(socket)) => EndpointState::Connected(number(socket)),
        }
    }

    /// # Errors
    /// A socket is not what it should be.
    pub(crate) fn resume(state: EndpointState, handed: &mut Handed<'_>) -> Result<Self> {
        let mut listening = |number| {
            let socket = handed.socket(number, &ANY, Type::STREAM)?;
            ensure!(socket.is_listener()?, "descriptor {number} does not listen");
            Ok(socket)
        };
        Ok(match state {
            EndpointState::Passed(numbers) => {
                ensure!(!numbers.is_empty(), "there is no public socket");
                Self::Passed(numbers.into_iter().map(listening).collect::<Result<_>>()?)
            }
            EndpointState::Listening(number) => {
                Self::Inetd(InetdSocket::Listening(listening(number)?))
            }
            EndpointState::Connected(number) => {
                let socket = handed.socket(number, &ANY, Type::STREAM)?;
                Self::Inetd(InetdSocket::Connected(socket))
            }
            EndpointState::Port(numbers) => Self::Port(port(numbers, handed)?),
            EndpointState::Unix(state) => Self::Unix(PublicSocket::resume(state, handed)?),
        })
    }

    /// The hand-over has succeeded: the file of a Unix socket is ours to remove.
    pub(crate) fn go_on(&mut self) {
        match self {
            Self::Unix(socket) => socket.go_on(),
            Self::Port(_) | Self::Passed(_) | Self::Inetd(_) => {}
        }
    }
}

fn port(numbers: Vec<RawFd>, handed: &mut Handed<'_>) -> Result<PublicPort> {
    ensure!(!numbers.is_empty(), "there is no public socket");
    let held = |number| {
        let socket = handed.socket(number, &[Domain::IPV4, Domain::IPV6], Type::STREAM)?;
        let is_held = !socket.is_listener()? && crate::machine::ports::port_of(&socket)? != 0;
        ensure!(is_held, "descriptor {number} does not hold the public port");
        Ok(socket)
    };
    numbers.into_iter().map(held).collect::<Result<Vec<_>>>().map(PublicPort::of)
}

impl EndpointState {
    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        match self {
            Self::Port(numbers) | Self::Passed(numbers) => numbers.clone(),
            Self::Unix(socket) => socket.descriptors(),
            Self::Listening(number) | Self::Connected(number) => vec![*number],
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use bridge::Descriptors;

    use super::*;
    use crate::handed::tests::steal;

    /// Hands the endpoint over as to a new binary. The old one closes nothing and removes nothing before it is gone.
    fn hand_over(old: PublicEndpoint) -> PublicEndpoint {
        let json = serde_json::to_string(&old.save()).expect("JSON");
        // exec(2) keeps the descriptors under the same numbers.
        let numbers = old.save().descriptors();
        let kept: Vec<_> = numbers.iter().map(|number| (*number, steal(*number))).collect();
        std::mem::forget(old);
        let mut all: Descriptors = numbers.iter().map(|number| own(*number)).collect();
        let state = serde_json::from_str(&json).expect("the same");
        let mut handed = Handed::of(&mut all);
        let mut new = PublicEndpoint::resume(state, &mut handed).expect("resumed");
        handed.settle();
        new.go_on();
        drop(kept);
        new
    }

    #[allow(unsafe_code)]
    fn own(number: RawFd) -> OwnedFd {
        // SAFETY: the endpoint that owned it was forgotten (`mem::forget`), so nothing else closes it.
        unsafe { std::os::fd::FromRawFd::from_raw_fd(number) }
    }

    #[test]
    fn o2_a_port_that_is_held_is_held_on() {
        let source = crate::config::address::Source { host: None, port: 0, prefer_ipv6: false };
        let old = PublicPort::reserve(&source).expect("a free port");
        let port = old.addresses()[0].port();
        let new = hand_over(PublicEndpoint::Port(old));
        let refused = TcpStream::connect(("127.0.0.1", port)).expect_err("refused");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        let taken = TcpListener::bind(("127.0.0.1", port)).expect_err("ours");
        assert_eq!(taken.kind(), ErrorKind::AddrInUse);
        let _opened = new.open().expect("open");
        TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    }

    #[test]
    fn o2_a_socket_file_is_ours_to_remove_only_when_we_go_on() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("socket");
        let old = PublicSocket::reserve(&path, 0o600, None).expect("bound");
        let copies: Vec<_> = old.save().descriptors().into_iter().map(steal).collect();
        let numbers: Vec<_> = copies.iter().map(AsRawFd::as_raw_fd).collect();
        let mut all: Descriptors = copies.into_iter().collect();
        let state = old.save().with_descriptors(&numbers);
        drop(PublicSocket::resume(state, &mut Handed::of(&mut all)).expect("resumed"));
        assert!(path.exists(), "the old image has it still");
        let new = hand_over(PublicEndpoint::Unix(old));
        UnixStream::connect(&path).expect_err("nobody listens yet");
        let opened = new.open().expect("open");
        UnixStream::connect(&path).expect("it listens");
        drop(opened);
        assert!(!path.exists());
    }

    #[test]
    fn o2_what_inetd_and_systemd_gave_is_theirs() {
        let listener = || TcpListener::bind("127.0.0.1:0").expect("listening");
        let passed = [(); 2].map(|()| Socket::from(listener())).into();
        let new = hand_over(PublicEndpoint::Passed(passed));
        assert!(matches!(new, PublicEndpoint::Passed(sockets) if sockets.len() == 2));
        let inetd = InetdSocket::Listening(Socket::from(listener()));
        let new = hand_over(PublicEndpoint::Inetd(inetd));
        assert!(matches!(new, PublicEndpoint::Inetd(InetdSocket::Listening(_))));
    }

    #[test]
    fn o2_a_public_socket_of_another_kind_is_refused() {
        let refused = |state: &dyn Fn(RawFd) -> EndpointState, descriptor: OwnedFd| {
            let number = descriptor.as_raw_fd();
            let mut all: Descriptors = [descriptor].into_iter().collect();
            let resumed = PublicEndpoint::resume(state(number), &mut Handed::of(&mut all));
            let line = resumed.expect_err("refused").to_string();
            line.split_once(&number.to_string()).map_or(line.clone(), |(_, end)| end.to_owned())
        };
        let socket = || OwnedFd::from(Socket::new(Domain::IPV4, Type::STREAM, None).expect("one"));
        let file = || OwnedFd::from(tempfile::tempfile().expect("a file"));
        let port = |number| EndpointState::Port(vec![number]);
        assert_eq!(refused(&port, socket()), " does not hold the public port");
        assert_eq!(refused(&port, file()), " is no socket");
        assert_eq!(refused(&EndpointState::Listening, socket()), " does not listen");
        assert_eq!(refused(&|_| EndpointState::Port(vec![]), file()), "there is no public socket");
        assert_eq!(refused(&|_| EndpointState::Connected(-1), file()), "descriptor -1 is missing");
    }
}
