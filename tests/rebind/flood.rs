//! How long a program is held up in `accept` by strangers that connect without end (A6).

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use super::names;
use super::peers::{bridges, one_row};
use super::probe::{HeldPorts, compile, compiler, preloaded};

const FLOOD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/rebind/flood.c");

fn programs() -> &'static [PathBuf] {
    static PROGRAMS: LazyLock<Vec<PathBuf>> = LazyLock::new(|| {
        let build = |cc| {
            let name = format!("flood-{cc}");
            // With -rdynamic, rebind.so calls the close() of this program, too.
            let words = ["-pthread", "-rdynamic", FLOOD].map(AsRef::as_ref);
            Some(compile(compiler(cc)?, &name, &words))
        };
        ["gcc", "musl-gcc"].into_iter().filter_map(build).collect()
    });
    &PROGRAMS
}

/// A6: when the next stranger connects for each one that is closed, `accept` returns after those that were in the queue. A
/// program that watches the socket is told of the others, also by an edge-triggered epoll. A program that blocks in
/// `accept` goes on waiting.
#[test]
fn a6_a_flood_of_strangers_holds_nobody_who_does_not_want_to_wait() {
    for program in programs() {
        for (how, expected) in [
            ("edge", SEEN.replace("HOW", "edge").replace("ERROR", "EAGAIN")),
            ("level", SEEN.replace("HOW", "level").replace("ERROR", "EAGAIN")),
            ("select", SEEN.replace("HOW", "select").replace("ERROR", "EINTR")),
            ("timeout", "timeout: EINTR, 3 closed\n".into()),
            ("blocking", "blocking: accepted, 1000 closed\n".into()),
        ] {
            let (ports, sources) = (HeldPorts::new(), bridges());
            let (from, table) = (sources.address(5), one_row(&format!("flood-{how}")));
            let mut probe = preloaded(program, &ports);
            let told = format!("{} {} bridge {}", sources.second, sources.port, table.display());
            probe.0.env(names::CLIENTS, told);
            let script = format!("{how} {} {} {}", ports.old, from.ip(), from.port());
            assert_eq!(probe.script(&script), expected, "{how}");
            fs::remove_file(table).unwrap();
        }
    }
}

/// Three strangers were in the queue, and a fourth one connected before the first was closed. The fifth one that is closed
/// has come since, and ends the call.
const SEEN: &str = "HOW: ERROR, 5 closed\ntold again: 1\nthe rest: ERROR, 3 closed\ntold again: 1\n\
                    a client: accepted, 0 closed\n";
