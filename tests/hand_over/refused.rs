//! Hand-overs that are refused, for the file or for the moment: one line says why, and everything goes on.

use std::fs;
use std::io::{Write, pipe};
use std::process::Command;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::{Bridge, write};
use crate::support::{
    Caller, Client, SERVERS, WEBSOCKIFY, Websockify, copy_program, echo_service, free_port, run,
    wait_until,
};

impl Bridge {
    /// Asks for a hand-over that must be refused, as the nth one in this test; gives the reason.
    fn refused(&self, nth: usize) -> String {
        self.ask();
        let refusals = || self.websockify.logged(&["WARN cannot hand over"]);
        wait_until("a refusal", || refusals().len() == nth);
        let line = refusals().pop().unwrap();
        assert_eq!(self.websockify.logged(&["handing over to"]), Vec::<String>::new());
        self.assert_serves();
        let (_, why) = line.split_once("cannot hand over").unwrap();
        why.to_owned()
    }
}

#[test]
fn o2_a_file_that_is_no_program_for_us_is_refused() {
    let mut bridge = Bridge::start("");
    let path = bridge.binary();
    let original = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let mut nth = 0;
    let mut refused = |bridge: &Bridge| {
        nth += 1;
        bridge.refused(nth)
    };
    let why = refused(&bridge);
    assert_eq!(why, format!(" to {}: no such file or directory", path.display()));
    for (bytes, mode, reason) in [
        (&original[..], 0o644, "permission denied"),
        (b"", 0o755, "exec format error"),
        (b"hello\n", 0o755, "exec format error"),
        (b"#!/bin/sh\necho good 1\n", 0o755, "no such file or directory"),
        (&original[..4096], 0o755, "tried, it ends by SIGSEGV"),
    ] {
        bridge.replace(|new| write(new, bytes, mode));
        let why = refused(&bridge);
        assert!(why.ends_with(reason), "{why}: {reason}");
    }
    bridge.replace(|new| copy_program("/bin/true", new));
    let why = refused(&bridge);
    assert!(why.ends_with("tried, it ends with status 0 and no answer"), "{why}");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(refused(&bridge).ends_with("is a directory"));
    fs::remove_dir(&path).unwrap();
    // And then a binary that is good.
    copy_program(WEBSOCKIFY, &path);
    bridge.hand_over(1);
    bridge.assert_serves();
    assert_eq!(bridge.websockify.stop(), 0);
}

#[test]
fn o2_one_that_crashes_or_hangs_when_it_is_tried_is_refused() {
    let mut bridge = Bridge::start("");
    let compiled = |bridge: &Bridge, source: &str| {
        let file = bridge.path("program.c");
        fs::write(&file, source).unwrap();
        bridge.replace(|new| {
            let mut cc = std::process::Command::new("cc");
            assert!(cc.arg("-o").arg(new).arg(&file).status().unwrap().success());
        });
    };
    compiled(&bridge, "#include <stdlib.h>\nint main(void) { abort(); }");
    assert!(bridge.refused(1).ends_with("tried, it ends by SIGABRT"));
    compiled(&bridge, "#include <unistd.h>\nint main(void) { for (;;) pause(); }");
    bridge.ask();
    wait_until("a trial", || !bridge.websockify.tree().is_empty());
    // Sessions go on during the trial, and a second request is refused.
    bridge.assert_serves();
    let why = bridge.refused(2);
    assert_eq!(why, ": a hand-over is under way already");
    wait_until("its end", || bridge.websockify.logged(&["WARN cannot hand over"]).len() == 3);
    let last = bridge.websockify.logged(&["WARN cannot hand over"]).pop().unwrap();
    assert!(last.ends_with("tried, it gives no answer within 5 s"), "{last}");
    assert_eq!(bridge.websockify.tree(), [], "what was tried has ended");
    assert_eq!(bridge.websockify.stop(), 0);
}

/// O2: a binary that does not know the saved state: in its file, the words with which every state begins are changed.
#[test]
fn o2_one_that_cannot_read_the_state_is_refused() {
    let mut bridge = Bridge::start("");
    let mut bytes = fs::read(bridge.binary()).unwrap();
    let name = b"websockify hand-over ";
    let all = 0..bytes.len() - name.len();
    let places: Vec<_> = all.filter(|at| bytes[*at..].starts_with(name)).collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at] = b'W';
    }
    bridge.replace(|new| write(new, &bytes, 0o755));
    let why = bridge.refused(1);
    assert!(why.ends_with("tried, it ends with status 1: it is no state of websockify"), "{why}");
    assert_eq!(bridge.websockify.stop(), 0);
}

/// O2, C4: a file that the new binary cannot read is an error for it, as at a start.
#[test]
fn o2_one_that_could_not_be_started_any_more_is_refused() {
    let options = "--auth-plugin=BasicHTTPAuth --auth-source-file=password";
    let mut bridge = Bridge::start_with(options, |command| {
        let directory = command.get_current_dir().unwrap();
        fs::write(directory.join("password"), "me:secret\n").unwrap();
    });
    fs::remove_file(bridge.path("password")).unwrap();
    bridge.ask();
    let line = bridge.websockify.wait_for_log(&["WARN cannot hand over"]);
    assert!(line.contains("cannot read password: no such file or directory"), "{line}");
    assert_eq!(bridge.websockify.stop(), 0);
}

/// O2, K2: tokens that are read once are known to the old binary alone, if their file has gone.
#[test]
fn o2_one_that_could_not_read_the_tokens_is_refused() {
    let (port, service, directory) = (free_port(), echo_service(), TempDir::new().unwrap());
    let (tokens, moved) = (directory.path().join("tokens"), directory.path().join("moved"));
    fs::write(&tokens, format!("a: {}\n", service.target())).unwrap();
    let options = format!("--token-plugin=ReadOnlyTokenFile --token-source=tokens {port}");
    let mut websockify = Websockify::start_with(&options, |command| {
        command.current_dir(&directory);
    });
    let address = ([127, 0, 0, 1], port).into();
    let assert_serves = || {
        let mut client = Client::dial_path(address, "/?token=a").unwrap();
        client.send("hello");
        assert_eq!(client.read(5), b"hello");
        assert_eq!(client.close().code, 1000);
    };
    websockify.wait_until_open();
    assert_serves();
    fs::rename(&tokens, &moved).unwrap();
    websockify.signal(Signal::SIGUSR2);
    let line = websockify.wait_for_log(&["WARN cannot hand over"]);
    let why = format!("cannot read tokens from {}: no such file", tokens.display());
    assert!(line.contains(&why), "{line}");
    assert_serves();
    fs::rename(&moved, &tokens).unwrap();
    websockify.signal(Signal::SIGUSR2);
    websockify.wait_for_log(&["INFO taken over: "]);
    assert_serves();
    assert_eq!(websockify.stop(), 0);
}

#[test]
fn o2_nothing_is_handed_over_in_a_drain() {
    let mut bridge = Bridge::start("--drain-timeout=1000");
    let mut client = Client::connect(bridge.port);
    bridge.websockify.signal(Signal::SIGTERM);
    bridge.websockify.wait_for_log(&["INFO draining: "]);
    bridge.ask();
    let line = bridge.websockify.wait_for_log(&["WARN cannot hand over"]);
    assert!(line.ends_with("websockify is draining"), "{line}");
    client.send("hello");
    assert_eq!(client.read(5), b"hello");
    assert_eq!(client.close().code, 1000);
    assert_eq!(bridge.websockify.wait(), 0);
}

/// O2, C4: the option and the variable that websockify uses for a hand-over give an error line to whoever else uses
/// them.
#[test]
fn o2_what_is_for_our_own_use_is_refused_in_words() {
    let tried = run("--hand-over-trial");
    assert_eq!((tried.status, tried.out.len()), (1, 1));
    assert!(tried.out[0].starts_with("there is nothing to try"), "{:?}", tried.out);
    for value in ["", "3", "0,1", "9,8", "x,y", "-1,-1", "999999999999,1"] {
        let websockify = crate::support::Websockify::start_with("0 a:1", |command| {
            command.env("WEBSOCKIFY_HAND_OVER", value);
        });
        let output = websockify.output();
        assert_eq!((output.status, output.err.len()), (1, 1), "{value}: {:?}", output.err);
        assert!(output.err[0].contains("there is nothing to take over"), "{:?}", output.err);
    }
}

/// O2, T5: a certificate that has been taken away is still in use; a new binary would have none.
#[test]
fn o2_t5_no_hand_over_turns_tls_off() {
    for option in ["", "--cert=self.pem"] {
        let mut bridge = Bridge::start_with(option, |command| {
            let pem = command.get_current_dir().unwrap().join("self.pem");
            fs::write(pem, SERVERS.issue("localhost").pem()).unwrap();
        });
        let serves = |bridge: &Bridge| {
            Caller::anonymous().session(bridge.port, &[]).unwrap().exchange(b"hello");
        };
        serves(&bridge);
        fs::rename(bridge.path("self.pem"), bridge.path("away.pem")).unwrap();
        bridge.ask();
        bridge.websockify.wait_for_log(&["WARN cannot hand over to", "self.pem: no such file"]);
        serves(&bridge);
        fs::rename(bridge.path("away.pem"), bridge.path("self.pem")).unwrap();
        bridge.hand_over(1);
        serves(&bridge);
        assert_eq!(bridge.websockify.stop(), 0);
    }
}

/// O2, C9: what was read from standard input cannot be read again; the binary that is tried has the state there.
#[test]
fn o2_c9_a_password_from_standard_input_is_not_there_again() {
    let (service, port) = (echo_service(), free_port());
    let (stdin, mut given) = pipe().unwrap();
    given.write_all(b"me:secret\n").unwrap();
    drop(given);
    let line = format!(
        "{port} {} --auth-plugin=BasicHTTPAuth --auth-source-file=/dev/stdin",
        service.target()
    );
    let mut command = Command::new(WEBSOCKIFY);
    let mut websockify = Websockify::launch_with(stdin, command.args(line.split_whitespace()));
    websockify.wait_until_open();
    websockify.signal(Signal::SIGUSR2);
    websockify.wait_for_log(&["WARN cannot hand over to", "/dev/stdin: it is empty"]);
    assert_eq!(websockify.stop(), 0);
}
