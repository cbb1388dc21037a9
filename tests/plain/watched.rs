//! What `-v` and `--record` show of a session (B9, S1, S2).

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use tempfile::TempDir;

use super::bridge_to;
use super::old::{ANSWER_76, HIXIE_76, base64_session, expect};
use crate::support::{
    Client, Disk, Footprint, Service, Websockify, echo_service, frame, free_port, needs,
    read_to_end, request, root, wait_until,
};

/// Base64, made from the definition of its alphabet (RFC 4648), independent of the code under test.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits = |index: usize| {
        let byte = bytes.get(index / 8).copied().unwrap_or(0);
        usize::from(byte >> (7 - index % 8) & 1)
    };
    let digits = (bytes.len() * 8).div_ceil(6);
    let digit = |index: usize| (0..6).fold(0, |value, bit| value << 1 | bits(index * 6 + bit));
    let text: String = (0..digits).map(|index| char::from(DIGITS[digit(index)])).collect();
    let padding = digits.next_multiple_of(4) - digits;
    text + &"=".repeat(padding)
}

fn every_byte() -> Vec<u8> {
    (0..=255).collect()
}

/// A recording as node reads it: the encoding, and the bytes of each side in hexadecimal.
fn replay(path: &Path) -> [String; 3] {
    let script = root().join("tests/plain/scripts/replay.mjs");
    let output = Command::new("node").arg(script).arg(path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines.try_into().unwrap()
}

fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from(b"0123456789abcdef"[usize::from(value)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// A file is complete when its last line is there.
fn wait_for_end(path: &Path) {
    wait_until("the end of the recording", || {
        fs::read_to_string(path).is_ok_and(|text| text.ends_with("'EOF'];\n"))
    });
}

#[test]
fn b9_traffic_letters_and_their_legend_are_on_standard_output() {
    let service = echo_service();
    let (websockify, port) = bridge_to(&service, "-v");
    wait_until("the legend", || websockify.out.text().contains("Traffic letters:\n"));
    let legend = websockify.out.text();
    let mut client = Client::connect(port);
    for round in 1..=3 {
        client.send("hello");
        assert_eq!(client.read(5), b"hello");
        // The letter may come after the byte.
        let expected = format!("{legend}{}", "}>{<".repeat(round));
        wait_until("the letters", || websockify.out.text() == expected);
    }
    let half = &frame(0x82, b"in two parts")[..8];
    client.stream().write_all(half).unwrap();
    wait_until("a part", || websockify.out.text().contains("}.>{<"));
    client.stream().write_all(&frame(0x82, b"in two parts")[8..]).unwrap();
    wait_until("the rest", || websockify.out.text().ends_with("}>{<"));
}

#[test]
fn b9_traffic_is_the_letters_alone_in_lines_of_80() {
    let service = echo_service();
    let (mut websockify, port) = bridge_to(&service, "--traffic");
    let mut client = Client::connect(port);
    for _ in 0..25 {
        client.send("hello");
        assert_eq!(client.read(5), b"hello");
    }
    client.close();
    websockify.wait_for_log(&["session ended"]);
    assert_eq!(websockify.stop(), 0);
    wait_until("the last line", || websockify.out.ended());
    let lines = websockify.out.lines();
    assert_eq!(lines, ["}>{<".repeat(20), "}>{<".repeat(5)]);
    assert_eq!(websockify.logged(&["DEBUG"]), Vec::<String>::new());
}

/// B9: a client that reads nothing for a while takes only a part of a frame, and a target only a part of what it is sent.
#[test]
fn b9_what_goes_on_in_parts_has_a_dot() {
    let service = Service::new(|mut stream| {
        stream.write_all(&vec![b'x'; 32 << 20]).unwrap();
        read_to_end(&mut stream);
    });
    let (websockify, port) = bridge_to(&service, "--traffic");
    let mut client = Client::connect(port);
    wait_until("a part for the client", || websockify.out.text().contains("<."));
    assert!(client.read(32 << 20).iter().all(|byte| *byte == b'x'));
    client.close();

    let (go, gate) = mpsc::channel::<()>();
    let gate = Arc::new(Mutex::new(gate));
    let service = Service::new(move |mut stream| {
        let _ = gate.lock().unwrap().recv();
        read_to_end(&mut stream);
    });
    let (websockify, port) = bridge_to(&service, "--traffic");
    let mut client = Client::connect(port);
    let mut sending = client.stream().try_clone().unwrap();
    let sender = thread::spawn(move || {
        sending.write_all(&frame(0x82, &vec![b'x'; 32 << 20])).unwrap();
    });
    wait_until("a part for the target", || websockify.out.text().contains(">."));
    drop(go);
    sender.join().unwrap();
    client.close();
}

#[test]
fn b9_without_v_nothing_is_on_standard_output() {
    let service = echo_service();
    let (mut websockify, port) = bridge_to(&service, "--run-once");
    let mut client = Client::connect(port);
    client.send("hello");
    assert_eq!(client.read(5), b"hello");
    client.close();
    websockify.wait();
    assert_eq!(websockify.output().out, [""; 0]);
}

/// Every byte of a binary, a base64 and a Hixie session is read back.
#[test]
fn s1_recordings_hold_every_byte_both_ways() {
    if !needs(&["node"]) {
        return;
    }
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("session");
    let service = echo_service();
    let (_websockify, port) = bridge_to(&service, &format!("--record={}", path.display()));
    let bytes = every_byte();
    let text = base64(&bytes);

    let mut client = Client::connect(port);
    client.send(&bytes);
    assert_eq!(client.read(256), bytes);
    client.close();

    let mut stream = base64_session(port);
    stream.write_all(&frame(0x81, text.as_bytes())).unwrap();
    let mut head = [0; 4];
    stream.read_exact(&mut head).unwrap();
    expect(&mut stream, text.as_bytes());
    stream.write_all(&frame(0x88, b"")).unwrap();
    read_to_end(&mut stream);

    let mut stream = super::old::connect_hixie(port, HIXIE_76, ANSWER_76);
    let hixie = [&[0], text.as_bytes(), &[0xff]].concat();
    stream.write_all(&hixie).unwrap();
    expect(&mut stream, &hixie);
    stream.write_all(&[0xff, 0x00]).unwrap();
    read_to_end(&mut stream);

    for (number, encoding) in [(1, "binary"), (2, "base64"), (3, "base64")] {
        let file = directory.path().join(format!("session.{number}"));
        wait_for_end(&file);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let [found, client, target] = replay(&file);
        assert_eq!(found, encoding, "session {number}");
        assert_eq!((client, target), (hex(&bytes), hex(&bytes)), "session {number}");
    }
}

/// Also after a restart, which counts its sessions from 1 again; and the file is complete when websockify ends.
#[test]
fn s2_a_recording_never_overwrites_another() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("session");
    for number in 1..=2 {
        let service = echo_service();
        let options = format!("--run-once --record={}", path.display());
        let (mut websockify, port) = bridge_to(&service, &options);
        let mut client = Client::connect(port);
        client.send(format!("session {number}"));
        client.read(9);
        client.close();
        assert_eq!(websockify.wait(), 0);
        for number in 1..=number {
            let file = directory.path().join(format!("session.{number}"));
            let text = fs::read_to_string(file).unwrap();
            assert!(text.contains(&format!("session {number}")), "{text}");
            assert!(text.ends_with("'EOF'];\n"), "{text}");
        }
    }
}

/// L6, S2: disk of a recording full: the recording ends, with one warning, and what there is of it is good; the session goes
/// on.
#[test]
fn s2_a_full_disk_ends_the_recording_and_not_the_session() {
    if !needs(&["node"]) {
        return;
    }
    let Some(disk) = Disk::new() else { return };
    let path = disk.path().join("session");
    let service = echo_service();
    let (websockify, port) = bridge_to(&service, &format!("--record={}", path.display()));
    let before = Footprint::at_rest(&websockify);
    let mut client = Client::connect(port);
    client.send(every_byte());
    client.read(256);
    let recording = disk.path().join("session.1");
    wait_until("its beginning", || fs::metadata(&recording).is_ok_and(|file| file.len() > 0));
    for _ in 0..100 {
        client.send(every_byte().repeat(40));
        client.read(256 * 40);
    }
    websockify.wait_for_log(&["WARN", "recording", "ended early", "session.1"]);
    client.send("hello");
    assert_eq!(client.read(5), b"hello");
    client.close();
    websockify.wait_for_log(&["session ended"]);
    assert_eq!(websockify.warnings().len(), 1, "said once");
    before.wait_until_back(&websockify);
    let [_, client, _] = replay(&recording);
    assert!(hex(&every_byte().repeat(4001)).starts_with(&client), "what there is is good");
}

/// F18: a recording that fails before it has anything of a session leaves no file.
#[test]
fn f18_a_full_disk_leaves_no_file_without_a_session_in_it() {
    let Some(disk) = Disk::new() else { return };
    let at = |name: &str| disk.path().join(name);
    disk.fill();
    let service = echo_service();
    let options = format!("--record={}", at("session").display());
    let (websockify, port) = bridge_to(&service, &options);
    for number in 1..=3 {
        let mut client = Client::connect(port);
        client.send("hello");
        assert_eq!(client.read(5), b"hello");
        client.close();
        websockify.wait_for_log(&["WARN", "cannot record", &format!("session.{number}")]);
        assert!(!at(&format!("session.{number}")).exists());
    }
    assert_eq!(websockify.warnings().len(), 3, "said once each");
}

/// F8: if the disk of the recordings hangs, sessions and pages are served all the same.
#[test]
fn f8_recordings_that_hang_hold_up_no_session_and_no_page() {
    let directory = TempDir::new().unwrap();
    let (source, library) = (directory.path().join("hang.c"), directory.path().join("hang.so"));
    fs::write(&source, HANG).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source);
    assert!(compiler.status().unwrap().success());
    fs::write(directory.path().join("page"), "a page").unwrap();
    let (port, service) = (free_port(), echo_service());
    let line = format!("--record=stuck --web=. {port} {}", service.target());
    let mut websockify = Websockify::start_with(&line, |command| {
        command.env("LD_PRELOAD", &library).current_dir(&directory);
    });
    websockify.wait_until_open();
    // More sessions than there are threads for files.
    for _ in 0..600 {
        let mut client = Client::connect(port);
        client.send("hello");
        assert_eq!(client.read(5), b"hello");
        client.close();
    }
    assert!(!directory.path().join("stuck.1").exists(), "no recording could be opened");
    let (head, mut stream) = request(port, "/page", &["Connection: close"]);
    assert_eq!((head.status, read_to_end(&mut stream)), (200, b"a page".to_vec()));
    let threads = procfs::process::Process::new(websockify.pid()).unwrap().stat().unwrap();
    assert!(threads.num_threads < 50, "{}", threads.num_threads);
    assert_eq!(websockify.stop(), 0);
}

/// A library for `LD_PRELOAD`: to open a recording never returns, as on a disk that hangs.
const HANG: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <string.h>
#include <unistd.h>

int open64(const char *path, int flags, unsigned mode) {
    while (strstr(path, "stuck.")) pause();
    int (*next)(const char *, int, unsigned) = dlsym(RTLD_NEXT, "open64");
    return next(path, flags, mode);
}
"#;
