//! `contrib/demo`: what the README tells everybody to run first.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{Client, Websockify, echo_service, free_port, request, wait_for_within};

/// How long a machine may take to build it.
const BUILD: Duration = Duration::from_secs(600);

fn demo(port: u16) -> Websockify {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../contrib/demo");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let mut command = Command::new(script);
    Websockify::launch(command.arg(port.to_string()).env("CARGO_TARGET_DIR", target))
}

/// A guest who has come in and said a name.
fn guest(port: u16, name: &str) -> Client {
    let mut guest = Client::connect(port);
    guest.read_until("What is your name? ");
    guest.send(format!("{name}\r\n"));
    guest.read_until("> ");
    guest
}

fn tell(guest: &mut Client, line: &str) -> String {
    guest.send(format!("{line}\r\n"));
    guest.read_until("> ")
}

/// H4: one command, a page to open, a program that is wrapped, and Ctrl-C for the end.
#[test]
fn h4_the_demo_is_one_command_and_ends_with_ctrl_c() {
    let port = free_port();
    let mut websockify = demo(port);
    let url = format!("http://localhost:{port}/wstelnet.html?autoconnect=1");
    wait_for_within(BUILD, "the address", || websockify.out.text().contains(&url).then_some(()));
    // Who opens it finds the page there.
    let (head, _) = request(port, "/wstelnet.html?autoconnect=1", &[]);
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/html")));
    websockify.assert_alone_on(port);

    let mut ada = guest(port, "Ada");
    // What telnet and a terminal may say beside it: an option, a doubled IAC, an escape sequence.
    ada.send(b"\xff\xfd\x01\xff\xfa\x1f\x00\x50\x00\x18\xff\xf0a \x1b[2Jline of b\xc5\x82ots\r\n");
    ada.read_until("It is written.");
    ada.read_until("> ");
    let mut grace = guest(port, "Grace");
    assert!(tell(&mut grace, "who").contains("Here now: Ada, Grace"));
    let read = tell(&mut grace, "read");
    assert!(read.contains("Ada, just now:\r\n    a [2Jline of błots\r\n"), "{read}");
    grace.send("bye\r\n");
    grace.read_until("Goodbye, Grace.");
    assert_eq!(grace.closing().code, 1000);

    websockify.signal(Signal::SIGINT);
    assert_eq!(ada.closing().code, 1001);
    assert_eq!(websockify.wait(), 0);
    assert_eq!(websockify.remnants(), []);
}

/// H4: a port that somebody else has is no page to open.
#[test]
fn h4_the_demo_sends_nobody_to_a_port_that_is_taken() {
    let taken = echo_service();
    let mut websockify = demo(taken.address.port());
    wait_for_within(BUILD, "an end", || (!websockify.is_running()).then_some(()));
    assert_eq!(websockify.wait(), 1);
    assert_eq!(websockify.out.text(), "");
}
