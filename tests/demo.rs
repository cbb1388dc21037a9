//! `contrib/demo`: what the README tells everybody to run first.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::{
    Client, DEADLINE, Tools, Websockify, echo_service, free_port, request, root, text_of, wait_for,
    wait_for_within,
};

/// How long the build may take.
const BUILD: Duration = Duration::from_secs(600);

fn demo(port: u16) -> Websockify {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let mut command = Command::new(root().join("contrib/demo"));
    Websockify::launch(command.arg(port.to_string()).env("CARGO_TARGET_DIR", target))
}

/// A client of the guestbook that has given a name.
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
    // The page is there.
    let (head, _) = request(port, "/wstelnet.html?autoconnect=1", &[]);
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/html")));
    websockify.assert_alone_on(port);

    let mut ada = guest(port, "Ada");
    // What telnet and a terminal may send beside the text: an option, a subnegotiation, an escape sequence.
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

/// H4: where the port is taken the demo prints no address to open.
#[test]
fn h4_the_demo_sends_nobody_to_a_port_that_is_taken() {
    let taken = echo_service();
    let mut websockify = demo(taken.address.port());
    wait_for_within(BUILD, "an end", || (!websockify.is_running()).then_some(()));
    assert_eq!(websockify.wait(), 1);
    assert_eq!(websockify.out.text(), "");
}

/// The programs that the demo needs before it builds.
const SHELL: [&str; 6] = ["cut", "dirname", "head", "id", "sed", "sort"];

/// Runs the demo, which must fail, with nothing in PATH but `tools`; gives what it says.
fn failure(tools: &Tools, arguments: &[&str]) -> String {
    let output = tools.run("contrib/demo", arguments, "");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(text_of(&output.stdout), "");
    text_of(&output.stderr)
}

#[test]
fn f37_the_demo_says_what_a_build_needs() {
    let port = free_port().to_string();
    let tools = Tools::of_system(&SHELL);
    assert!(failure(&tools, &[&port]).contains("needs Rust 1.89 or newer, and there is none here"));
    // The versions in Debian 12 and 13.
    for old in ["0.66.0", "1.63.0", "1.85.1"] {
        tools.put("cargo", &format!("echo cargo {old}"));
        let said = failure(&tools, &[&port]);
        assert!(said.contains(&format!("1.89 or newer, and there is {old} here")), "{said}");
        assert!(said.contains("rustup"), "{said}");
    }
    for new in ["1.89.0", "1.100.0-nightly"] {
        tools.put("cargo", &format!("echo 'cargo {new} (0123abcd 2025-01-01)'"));
        assert!(
            failure(&tools, &[&port]).contains("needs a C compiler: apt-get install gcc libc6-dev")
        );
    }
    assert!(!tools.calls().contains("build"), "{}", tools.calls());
}

#[test]
fn f49_a_port_in_use_is_looked_at_before_the_build() {
    let taken = echo_service();
    let port = taken.address.port().to_string();
    let tools = Tools::of_system(&SHELL);
    let said = failure(&tools, &[&port]);
    assert!(
        said.contains(&format!("port {port} is in use")) && said.contains("contrib/demo "),
        "{said}"
    );
}

/// F49: port 2023 is only the default: where it is taken, the demo uses the next free one.
#[test]
fn f49_without_a_port_the_next_free_one_is_taken() {
    // Another process may have the port, as another run of this test does for a moment.
    let began = Instant::now();
    let taken = wait_for("port 2023, which is ours or somebody's for good", || {
        let taken = TcpListener::bind(("127.0.0.1", 2023));
        (taken.is_ok() || began.elapsed() > DEADLINE / 2).then_some(taken)
    });
    let tools = Tools::of_system(&SHELL);
    for program in ["cargo", "cc"] {
        tools.put(program, "echo cargo 1.99.0 >&2; echo cargo 1.99.0");
    }
    std::fs::create_dir(tools.path().join("debug")).unwrap();
    tools.put("debug/websockify", "");
    let output = tools.run("contrib/demo", &[], "");
    assert!(output.status.success(), "{output:?}");
    let calls = tools.calls();
    let (_, port) = calls.split_once("websockify localhost:").unwrap();
    let port: u16 = port.split(' ').next().unwrap().parse().unwrap();
    assert!(port > 2023, "{calls}");
    drop(taken);
}

#[test]
fn f62_a_login_needs_root_and_that_is_said_at_once() {
    let tools = Tools::of_system(&SHELL.map(|name| if name == "id" { "sh" } else { name }));
    tools.put("id", "echo 1000");
    let port = free_port().to_string();
    let said = failure(&tools, &[&port, "telnetd"]);
    assert!(said.contains("in.telnetd needs root"), "{said}");
    assert!(said.contains(&format!("cargo build && sudo contrib/demo {port} telnetd")), "{said}");
}
