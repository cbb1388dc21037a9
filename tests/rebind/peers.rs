//! The client addresses that `rebind.so` tells a program: to the byte as the kernel would tell them.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use super::names;
use super::probe::{HeldPorts, Probe, compile, compiler, preloaded, probes, scratch};
use crate::support::{free_port, has_ipv6};

#[path = "../../rebind/src/row.rs"]
#[allow(dead_code, reason = "rebind.so reads")]
mod row;

use row::{LENGTH, ROWS, Row, Sources};

const PEERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/rebind/peers.c");
const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 9, 1, 7);

fn programs() -> &'static [PathBuf] {
    static PROGRAMS: LazyLock<Vec<PathBuf>> = LazyLock::new(|| {
        let build = |cc| Some(compile(compiler(cc)?, &format!("peers-{cc}"), &[PEERS.as_ref()]));
        ["gcc", "musl-gcc"].into_iter().filter_map(build).collect()
    });
    &PROGRAMS
}

/// A file of rows, in which row 5 is this one, if there is one, and all others are empty.
fn table(row: Option<Row>, name: &str) -> PathBuf {
    let mut bytes = vec![0; ROWS * LENGTH];
    if let Some(row) = row {
        let words = row.encode(5);
        for (to, word) in bytes[5 * LENGTH..].chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
    }
    let path = scratch(name);
    fs::write(&path, bytes).unwrap();
    path
}

/// The addresses from which a bridge connects.
pub(super) fn bridges() -> Sources {
    Sources { second: 83, port: free_port() }
}

/// A file in which row 5 is that of a client.
pub(super) fn one_row(name: &str) -> PathBuf {
    table(Some(v4(40007)), name)
}

fn told(program: &Path, ports: &HeldPorts, sources: Sources, table: &Path) -> Probe {
    let mut probe = preloaded(program, ports);
    let Sources { second, port } = sources;
    probe.0.env(names::CLIENTS, format!("{second} {port} anyone {}", table.display()));
    probe
}

fn v4(port: u16) -> Row {
    Row { v6: CLIENT.to_ipv6_mapped().octets(), scope: 0, v4: CLIENT.octets(), port }
}

/// A1: errno, lengths and truncation, for buffers of every size, and without one.
#[test]
fn a1_accept_and_getpeername_answer_as_the_kernel_does() {
    for program in programs() {
        for family in ["inet", "inet6"] {
            let port = free_port();
            let known =
                Probe::new(program).script(&format!("{family} {} {CLIENT} {port}", free_port()));
            assert!(known.contains("errno 14 ") && known.contains("errno 22 "), "{known}");
            let ports = HeldPorts::new();
            let sources = bridges();
            let from = sources.address(5);
            let table = table(Some(v4(port)), "rows");
            let script = format!("{family} {} {} {}", ports.old, from.ip(), from.port());
            let said = told(program, &ports, sources, &table).script(&script);
            for (said, known) in said.lines().zip(known.lines()) {
                assert_eq!(said, known, "{family}");
            }
            assert_eq!(said.lines().count(), known.lines().count());

            // Other connections keep their address, also if they have the bridge's address or its port, but not both.
            for other in [
                SocketAddrV4::new(*from.ip(), free_port()),
                SocketAddrV4::new(CLIENT, sources.port),
            ] {
                let script = |port| format!("{family} {port} {} {}", other.ip(), other.port());
                let known = Probe::new(program).script(&script(free_port()));
                let ports = HeldPorts::new();
                let said = told(program, &ports, sources, &table).script(&script(ports.old));
                assert_eq!(said, known, "{other}");
            }
        }
    }
}

/// A1: a connection of the bridge without a row is closed by `accept`, whether or not the program asks for its address.
#[test]
fn a1_a_connection_of_the_bridges_without_a_row_is_closed() {
    for program in programs() {
        let sources = bridges();
        let from = sources.address(5);
        for table in [table(None, "no-rows"), scratch("no-such-file"), {
            let short = scratch("short");
            fs::write(&short, [0; 4096]).unwrap();
            short
        }] {
            let ports = HeldPorts::new();
            let script = format!("inet {} {} {}", ports.old, from.ip(), from.port());
            let (_, output) = told(program, &ports, sources, &table).arguments(&script).finish();
            let said = String::from_utf8(output.stdout).unwrap();
            let accepts: Vec<_> = said.lines().filter(|line| line.starts_with("accept")).collect();
            assert!(accepts.len() > 30, "{said}");
            // Invalid arguments are refused by the kernel before.
            let is_closed = |line: &&str| {
                line.contains("-1 errno 103 ")
                    || line.contains("errno 22 ")
                    || line.contains("errno 14 ")
            };
            assert!(accepts.iter().all(is_closed), "{said}");
            let complaint = String::from_utf8(output.stderr).unwrap();
            assert!(complaint.contains("accept: "), "{complaint}");
        }
    }
}

/// A1: IPv6 has only one loopback address, so a socket that listens for IPv6 alone is moved to one of IPv4, which no
/// other socket has. A socket whose bind fails is as it was.
#[test]
fn a1_a_socket_for_ipv6_alone_is_moved_where_clients_can_be_told_apart() {
    if !has_ipv6() {
        return;
    }
    let sources = bridges();
    let table = table(None, "of-nobody");
    for program in probes() {
        let ports = HeldPorts::new();
        let HeldPorts { old, new, .. } = ports;
        for (v6_only, wanted, moved) in [
            (1, "::", "::ffff:127.0.0.6"),
            (1, "::1", "::ffff:127.0.0.6"),
            (0, "::1", "::ffff:127.0.0.6"),
            (0, "::", "::ffff:127.0.0.1"),
            (0, "::ffff:0.0.0.0", "::ffff:127.0.0.1"),
        ] {
            let script =
                format!("socket tcp6 v6only {v6_only} bind inet6 {wanted} {old} full listen name");
            let said = told(program, &ports, sources, &table).script(&script);
            let expected = format!("bind 0 errno 77\nlisten 0 errno 77\nname {moved} {new}\n");
            assert_eq!(said, expected, "{script}");
        }
        let bind = format!("socket tcp6 v6only 1 bind inet6 :: {old} full");
        let twice = format!("{bind} listen {bind} bind inet6 ::1 0 full name");
        let said = told(program, &ports, sources, &table).script(&twice);
        assert!(said.contains("bind -1 errno 98\nbind 0 errno 77\nname ::1 "), "{said}");
        let own = format!("socket tcp4 bind inet 0.0.0.0 {old} full listen {bind} listen name");
        let said = told(program, &ports, sources, &table).script(&own);
        assert!(said.ends_with(&format!("name ::ffff:127.0.0.6 {new}\n")), "both: {said}");
    }
}

/// A1: `rebind.so` makes no system call that the program does not make: a filter that allows no others ends nothing.
#[test]
fn a1_no_other_system_call_is_made() {
    for program in programs() {
        let ports = HeldPorts::new();
        let sources = bridges();
        let from = sources.address(5);
        let table = table(Some(v4(40007)), "confined-rows");
        let script = format!("inet {} {} {} confined", ports.old, from.ip(), from.port());
        assert_eq!(told(program, &ports, sources, &table).script(&script), "told\n");
    }
}

/// A row that is half written does not count.
#[test]
fn a1_a_row_is_whole_or_none() {
    let row = Row { v6: [7; 16], scope: 3, v4: [1, 2, 3, 4], port: 40007 };
    let words = row.encode(9);
    assert_eq!(Row::decode(&words, 9), Some(row));
    assert_eq!(Row::decode(&words, 8), None, "another's place");
    assert_eq!(Row::decode(&[0; row::WORDS], 0), None);
    for at in 0..row::WORDS {
        let mut torn = words;
        torn[at] ^= 0x100;
        assert_eq!(Row::decode(&torn, 9), None);
    }
}
