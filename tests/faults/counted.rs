//! Many sessions whose peers end them in every way there is, counted.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt::TcpRepair};
use socket2::{Domain, SockRef, Socket, Type};

use super::{PATIENCE, wait_for_the_end};
use crate::support::{
    Client, Footprint, Service, Websockify, connect, frame, free_port, read_to_end,
    skip_even_in_ci, wait_until,
};

/// How many sessions of each kind there are at once.
const EACH: usize = 12;

/// More than the buffers between a target and a client who does not read.
const MUCH: usize = 8_000_000;

/// Which part of a frame a client sends before it goes; bytes of payload.
const CUT: usize = 44;

/// A head that is not whole.
const BEGUN: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\nUpgr";

/// What a peer does with its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    /// Goes on until the session has ended.
    Stays,
    Closes,
    Resets,
    /// Sends no more, and reads on.
    EndsItsHalf,
    /// Is gone, and its machine knows nothing of it: half-open.
    Vanishes,
}

/// How a session goes: how much the target says, and then what the two do.
#[derive(Debug, Clone, Copy)]
struct Course {
    length: usize,
    target: Deed,
    client: Deed,
}

use Deed::{Closes, EndsItsHalf, Resets, Stays, Vanishes};

#[rustfmt::skip]
const COURSES: [Course; 14] = [
    Course { length: 1, target: Closes, client: Stays },
    Course { length: 1, target: Resets, client: Stays },
    Course { length: 1, target: EndsItsHalf, client: Stays },
    Course { length: 300_000, target: Closes, client: Stays },
    Course { length: 1, target: Stays, client: Closes },
    Course { length: 1, target: Stays, client: Resets },
    Course { length: 1, target: Stays, client: EndsItsHalf },
    Course { length: 1, target: EndsItsHalf, client: EndsItsHalf },
    Course { length: 1, target: Resets, client: Resets },
    Course { length: MUCH, target: Stays, client: Closes },
    Course { length: MUCH, target: Stays, client: Resets },
    Course { length: MUCH, target: Resets, client: Resets },
    // What is sent to somebody who has vanished is answered with a reset.
    Course { length: MUCH, target: Stays, client: Vanishes },
    Course { length: 1, target: Vanishes, client: Stays },
];

impl Deed {
    /// Gives back what is left of the connection.
    fn perform(self, stream: TcpStream) -> Option<TcpStream> {
        match self {
            Stays => return Some(stream),
            Closes => {}
            Resets => SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap(),
            EndsItsHalf => {
                // The other may have ended it already.
                let _ = stream.shutdown(Shutdown::Write);
                return Some(stream);
            }
            // A socket under repair is closed without a word.
            Vanishes => setsockopt(&stream, TcpRepair, &1).unwrap(),
        }
        None
    }
}

/// The target: the first byte from the client says which course to take. Gives its number, and how many bytes came after
/// that.
fn serve(mut stream: TcpStream) -> (u8, usize) {
    let mut number = [0];
    stream.read_exact(&mut number).unwrap();
    let course = COURSES[usize::from(number[0])];
    let _ = stream.write_all(&vec![b'x'; course.length]);
    let mut received = Vec::new();
    if let Some(mut stream) = course.target.perform(stream) {
        let _ = stream.read_to_end(&mut received);
    }
    (number[0], received.len())
}

/// The client, until it has done its part.
fn visit(port: u16, number: u8) {
    let course = COURSES[usize::from(number)];
    let mut client = Client::connect(port);
    client.send([number]);
    client.stream().peek(&mut [0]).unwrap();
    if course.target == Vanishes {
        // Whenever that is: only what is sent to it afterwards shows it.
        client.read(1);
        wait_until("word from websockify", || {
            let _ = client.stream().write_all(&frame(0x82, b"hello?"));
            client.stream().set_nonblocking(true).unwrap();
            let word = client.stream().peek(&mut [0]);
            client.stream().set_nonblocking(false).unwrap();
            !word.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
        });
    }
    if course.client == Stays {
        let closing = client.closing();
        if matches!(course.target, Resets | Vanishes) {
            assert_eq!(closing.code, 1011, "{course:?}");
            assert!(closing.reason.contains("reset"), "{course:?}: {}", closing.reason);
        } else {
            assert_eq!((closing.code, closing.bytes.len()), (1000, course.length), "{course:?}");
        }
        return;
    }
    let mut stream = client.stream().try_clone().unwrap();
    drop(client);
    // In the middle of a frame.
    stream.write_all(&frame(0x82, &[b'x'; 100])[..6 + CUT]).unwrap_or_default();
    if let Some(mut stream) = course.client.perform(stream) {
        read_to_end(&mut stream);
    }
}

/// A client who goes before it has a session.
fn look_in(port: u16, deed: Deed) {
    let mut stream = connect(port);
    stream.write_all(BEGUN).unwrap();
    if let Some(mut stream) = deed.perform(stream) {
        read_to_end(&mut stream);
    }
}

/// L6, L4: target gone by RST: its client hears 1011, and why.
/// L6: target gone by FIN: its client has every byte that it sent, and then 1000.
/// L6: client gone by RST: its target's stream ends.
/// L6: client gone by FIN: its target has every byte that it sent.
#[test]
fn l4_however_peers_go_sessions_end_and_are_freed() {
    let can_vanish = can_vanish();
    let is_possible =
        |course: &Course| can_vanish || course.client != Vanishes && course.target != Vanishes;
    let courses = (0..COURSES.len()).filter(|number| is_possible(&COURSES[*number]));
    let numbers: Vec<_> = courses.map(|number| u8::try_from(number).unwrap()).collect();
    let (tell, told) = mpsc::channel();
    let service = Service::new(move |stream| tell.send(serve(stream)).unwrap());
    let port = free_port();
    let sessions = numbers.len() * EACH;
    // A place that is not given back is missed in the next round.
    let connections = sessions + 3 * EACH;
    let arguments = format!("{port} {} --max-connections={connections}", service.target());
    let mut websockify = Websockify::start(&arguments);
    websockify.wait_until_open();
    visit(port, numbers[0]);
    wait_until("the end of the first", || websockify.logged(&["session ended"]).len() == 1);
    let before = Footprint::at_rest(&websockify);
    for round in 1..=3 {
        let visits = numbers.iter().flat_map(|number| [*number; EACH]);
        let visits = visits.map(|number| thread::spawn(move || visit(port, number)));
        let looks = [Closes, Resets, EndsItsHalf].into_iter().flat_map(|deed| [deed; EACH]);
        let looks = looks.map(|deed| thread::spawn(move || look_in(port, deed)));
        let visitors: Vec<_> = visits.chain(looks).collect();
        for visitor in visitors {
            visitor.join().unwrap();
        }
        wait_for_the_end(&websockify, 1 + round * sessions, &before);
    }
    assert_eq!(websockify.stop(), 0);
    // Each target has come to the end of its stream by now, or comes to it.
    for _ in 0..=3 * sessions {
        let (number, received) = told.recv_timeout(PATIENCE).unwrap();
        if COURSES[usize::from(number)].client == EndsItsHalf {
            assert_eq!(received, CUT, "{:?}", COURSES[usize::from(number)]);
        }
    }
}

/// Whether we may repair sockets, which an administrator of the network may.
fn can_vanish() -> bool {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let may = setsockopt(&socket, TcpRepair, &1).is_ok();
    if !may {
        skip_even_in_ci("peers that vanish: only an administrator of the network can do this");
    }
    may
}
