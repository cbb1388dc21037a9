//! What inetd(8) has given us as standard input: a socket that listens (`wait`), or one client's connection (`nowait`).
//! Knows descriptors, and keeps what we write from the client; must not know what is served.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::fs::{FileType, fstat};
use socket2::{Domain, Socket, Type};

use crate::log::Stderr;

/// The socket that standard input was. The programs that we start do not get it.
#[derive(Debug)]
pub(crate) enum InetdSocket {
    Listening(Socket),
    Connected(Socket),
}

/// inetd makes its socket standard output and error too. What is written there is not for clients: both become
/// /dev/null, if they are the socket. Returns whose standard error it was.
pub(crate) fn keep_quiet() -> Result<Stderr> {
    let is_socket = |stream: &dyn AsFd| {
        let [ours, stdin] = [fstat(stream.as_fd()), fstat(io::stdin())];
        matches!((ours, stdin), (Ok(ours), Ok(stdin)) if kind(ours.st_mode) == FileType::Socket
            && (ours.st_dev, ours.st_ino) == (stdin.st_dev, stdin.st_ino))
    };
    if is_socket(&io::stdout()) {
        dup2_stdout(null()?).context("cannot leave standard output")?;
    }
    if !is_socket(&io::stderr()) {
        return Ok(Stderr::Callers);
    }
    dup2_stderr(null()?).context("cannot leave standard error")?;
    Ok(Stderr::Clients)
}

impl InetdSocket {
    /// Takes standard input, which becomes /dev/null: a program that we start must not have it.
    pub(crate) fn take() -> Result<Self> {
        let stdin = io::stdin().as_fd().try_clone_to_owned();
        let socket = stdin.map_err(anyhow::Error::from).and_then(Self::of);
        let socket = socket.context("cannot serve standard input")?;
        dup2_stdin(null()?).context("cannot leave standard input")?;
        Ok(socket)
    }

    fn of(stdin: OwnedFd) -> Result<Self> {
        let stat = fstat(&stdin).map_err(io::Error::from)?;
        ensure!(kind(stat.st_mode) == FileType::Socket, "it is not a socket");
        let socket = Socket::from(stdin);
        ensure!(socket.r#type()? == Type::STREAM, "it is not a stream socket");
        let is_served = [Domain::IPV4, Domain::IPV6, Domain::UNIX].contains(&socket.domain()?);
        ensure!(is_served, "it is neither an internet nor a Unix socket");
        if socket.is_listener()? {
            return Ok(Self::Listening(socket));
        }
        // Where the client has reset its connection meanwhile, the socket has no peer any more, but an error.
        if socket.peer_addr().is_ok() || socket.take_error()?.is_some() {
            return Ok(Self::Connected(socket));
        }
        bail!("it neither listens nor is connected")
    }
}

fn kind(mode: u32) -> FileType {
    FileType::from_raw_mode(mode)
}

fn null() -> Result<File> {
    File::options().read(true).write(true).open("/dev/null").context("cannot open /dev/null")
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn u4_standard_input_may_listen_or_be_connected() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listening");
        let address = listener.local_addr().expect("an address");
        let client = TcpStream::connect(address).expect("connected");
        let (connection, _) = listener.accept().expect("accepted");
        let is_listening = |socket: OwnedFd| match InetdSocket::of(socket).expect("served") {
            InetdSocket::Listening(_) => true,
            InetdSocket::Connected(_) => false,
        };
        let again = listener.try_clone().expect("a copy");
        assert!(is_listening(again.into()));
        assert!(!is_listening(connection.into()));
        assert!(!is_listening(UnixStream::pair().expect("a pair").0.into()));
        drop(client);
        // A connection that was reset before we were started.
        let client = Socket::from(TcpStream::connect(address).expect("connected"));
        let (connection, _) = listener.accept().expect("accepted");
        client.set_linger(Some(std::time::Duration::ZERO)).expect("set");
        drop(client);
        assert!(!is_listening(connection.into()));
    }

    #[test]
    fn u4_what_cannot_be_served_is_named() {
        let socket = |kind| OwnedFd::from(Socket::new(Domain::IPV4, kind, None).expect("a socket"));
        for (stdin, reason) in [
            (null().expect("open").into(), "it is not a socket"),
            (UdpSocket::bind("127.0.0.1:0").expect("bound").into(), "it is not a stream socket"),
            (socket(Type::STREAM), "it neither listens nor is connected"),
        ] {
            let error = InetdSocket::of(stdin).expect_err(reason);
            assert_eq!(error.to_string(), reason);
        }
    }
}
