//! Ports, and services of our own for websockify to bridge to.

use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Once;
use std::thread;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use procfs::net::{TcpNetEntry, TcpState};
use socket2::{Domain, Socket, Type};

use super::process::Process;
use super::skip_even_in_ci;

/// Below the range that the kernel takes ports for outgoing connections from.
const PORTS: Range<u16> = 12000..32000;
/// X displays that nobody uses by habit.
const DISPLAYS: Range<u16> = 100..500;

/// A port that nobody uses on any address, and that no other test will get.
pub(crate) fn free_port() -> u16 {
    pick(PORTS, "port", |port| {
        [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)]
            .into_iter()
            .all(|address| !is_taken(SocketAddr::new(address, port)))
    })
}

/// Whether there are IPv6 addresses here, which not every machine has (C2); says so if not.
pub(crate) fn has_ipv6() -> bool {
    let has = bind((Ipv6Addr::LOCALHOST, 0).into()).is_ok();
    if !has {
        skip_even_in_ci("what needs IPv6: this machine has none");
    }
    has
}

/// Binds, but does not listen: a child that another test forks at that moment has a copy of the socket, and only a
/// listener would keep others from the port (`SO_REUSEADDR`).
fn is_taken(address: SocketAddr) -> bool {
    bind(address).is_err_and(|error| error.kind() == ErrorKind::AddrInUse)
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// An X display that nobody uses, and that no other test will get. Its VNC port is 5900 more, its
/// X port 6000.
pub(crate) fn display() -> u16 {
    pick(DISPLAYS, "display", |number| {
        !Path::new(&format!("/tmp/.X{number}-lock")).exists()
            && !Path::new(&format!("/tmp/.X11-unix/X{number}")).exists()
            && listening(5900 + number).is_empty()
            && listening(6000 + number).is_empty()
    })
}

/// Takes a number from `range` for the life of this process. An abstract Unix socket with the number in its name is the
/// lock: no other test takes the number, in this process or in another one.
fn pick(range: Range<u16>, kind: &str, fits: impl Fn(u16) -> bool) -> u16 {
    make_room();
    let length = u64::from(range.end - range.start);
    let start = RandomState::new().hash_one(0);
    (0..length)
        .map(|step| range.start + u16::try_from(start.wrapping_add(step) % length).unwrap())
        .find(|number| {
            let name = format!("websockify-test-{kind}-{number}");
            let name = std::os::unix::net::SocketAddr::from_abstract_name(name).unwrap();
            UnixListener::bind_addr(&name).is_ok_and(|lock| {
                std::mem::forget(lock);
                fits(*number)
            })
        })
        .unwrap()
}

/// Raises the limit on open files. Each number that is taken keeps a file descriptor, and some tests have five hundred
/// peers: together more than 1024, the usual soft limit.
pub(crate) fn make_room() {
    static ASKED: Once = Once::new();
    ASKED.call_once(|| {
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, most.min(65536), most).unwrap();
    });
}

/// The addresses on which somebody listens on this port.
pub(crate) fn listening(port: u16) -> Vec<SocketAddr> {
    let on_port = listeners().into_iter().filter(|entry| entry.local_address.port() == port);
    on_port.map(|entry| entry.local_address).collect()
}

/// The addresses on which these processes listen.
pub(crate) fn listeners_of(processes: &[Process]) -> Vec<SocketAddr> {
    let inodes: Vec<_> = processes.iter().flat_map(Process::sockets).collect();
    let theirs = listeners().into_iter().filter(|entry| inodes.contains(&entry.inode));
    theirs.map(|entry| entry.local_address).collect()
}

/// The processes among these that listen.
pub(crate) fn who_listens(mut processes: Vec<Process>) -> Vec<Process> {
    let listeners: Vec<_> = listeners().iter().map(|entry| entry.inode).collect();
    processes.retain(|process| process.sockets().iter().any(|inode| listeners.contains(inode)));
    processes
}

fn listeners() -> Vec<TcpNetEntry> {
    let mut entries = procfs::net::tcp().unwrap();
    entries.extend(procfs::net::tcp6().unwrap_or_default());
    entries.retain(|entry| entry.state == TcpState::Listen);
    // The kernel gives a table in pieces. It may give a socket twice if others open or close in between.
    entries.sort_unstable_by_key(|entry| entry.inode);
    entries.dedup_by_key(|entry| entry.inode);
    entries
}

/// Whether a client of this address would be refused.
pub(crate) fn is_refused(address: impl Into<IpAddr>, port: u16) -> bool {
    match TcpStream::connect((address.into(), port)) {
        Ok(_) => false,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => true,
        // The listener was closed while this connection was being made.
        Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
        Err(error) => panic!("cannot connect: {error}"),
    }
}

/// A service in this process; it ends with the process.
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
}

impl Service {
    /// Listens on `address` and hands each connection to `serve`, in a thread of its own.
    pub(crate) fn at(
        address: impl Into<SocketAddr>,
        serve: impl Fn(TcpStream) + Clone + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address.into()).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let serve = serve.clone();
                thread::spawn(move || serve(stream));
            }
        });
        Self { address }
    }

    /// The same on a port of 127.0.0.1 that is free on every address, because `localhost` leads to `::1` as well. It is
    /// no port that the kernel gives to outgoing connections: one to `::1` with this port could connect to itself.
    pub(crate) fn new(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> Self {
        Self::at((Ipv4Addr::LOCALHOST, free_port()), serve)
    }

    /// As a target on the command line.
    pub(crate) fn target(&self) -> String {
        self.address.to_string()
    }
}

/// The payload of the next binary frame that websockify sends.
pub(crate) fn read_frame(stream: &mut impl Read) -> Vec<u8> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(head[0], 0x82);
    let length = match head[1] {
        126 => {
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            u16::from_be_bytes(length).into()
        }
        127 => {
            let mut length = [0; 8];
            stream.read_exact(&mut length).unwrap();
            usize::try_from(u64::from_be_bytes(length)).unwrap()
        }
        length => length.into(),
    };
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).unwrap();
    payload
}

/// A service that sends back what it gets, until its peer has no more.
pub(crate) fn echo_service() -> Service {
    Service::new(echo)
}

/// What [`echo_service`] does with a connection.
pub(crate) fn echo(mut stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let mut bytes = [0; 16384];
    while let Ok(length @ 1..) = stream.read(&mut bytes) {
        if stream.write_all(&bytes[..length]).is_err() {
            return;
        }
    }
}
