//! `FAULTS.md`: each fault, what comes of it, and the test that shows it. It is written from the comments of the tests,
//! which begin with `L6: FAULT: OUTCOME`; `BLESS=1` writes it anew.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::promises::rows_before;
use crate::support::{blessed, root};

/// What may go wrong, in the order of the table.
const FAULTS: [&str; 24] = [
    "target gone by RST",
    "target gone by FIN",
    "target gone in silence",
    "client gone by RST",
    "client gone by FIN",
    "client gone in silence",
    "disk of a recording full",
    "disk of the log full",
    "out of descriptors",
    "out of processes",
    "out of memory",
    "fork failing",
    "program deaf to SIGTERM",
    "program that forks faster than it is killed",
    "program stopped by SIGSTOP",
    "clock stepped",
    "rebind.so deleted",
    "notification socket flooded",
    "websockify killed by SIGKILL",
    "websockify stopped and continued",
    "journald hung",
    "syslog hung",
    "Redis hung",
    "helper hung",
];

const INTRODUCTION: &str = "\
# Faults

What may go wrong around websockify, and what comes of it (row L6 of [PROMISES.md](PROMISES.md)). Each row is a test over the real
binary that asserts the outcome, and then that memory, descriptors, threads and children, zombies too, are back where they were
before (`tests/support/footprint.rs`: memory within 8 MiB, the rest no more than it was); or where websockify itself has ended,
that nothing of it is left.

The table is written from the comments of the tests: `BLESS=1 cargo test -p websockify --test end_to_end faults::table`.

| fault | what comes of it | shown by |
|---|---|---|
";

/// Fault, outcome and test, wherever a comment of a test in this text says them.
fn said_in(text: &str) -> Vec<[String; 3]> {
    let (mut found, mut open): (Vec<[String; 3]>, Vec<String>) = (Vec::new(), Vec::new());
    for line in text.lines().map(str::trim) {
        if let Some(comment) = line.strip_prefix("/// ") {
            let begins = rows_before(comment).iter().any(|row| row == "L6");
            match open.last_mut() {
                Some(last) if !begins => last.extend([" ", comment]),
                _ if begins => open.push(comment.split_once(": ").unwrap().1.to_owned()),
                _ => {}
            }
        } else if let Some((_, rest)) = line.split_once("fn ").filter(|_| !open.is_empty()) {
            let name = rest.split('(').next().unwrap();
            found.extend(open.drain(..).filter_map(|said| {
                let (fault, outcome) = said.split_once(": ")?;
                Some([fault, outcome, name].map(str::to_owned))
            }));
        } else if !line.starts_with("#[") {
            open.clear();
        }
    }
    found
}

/// The same of all files below a directory.
fn said_below(directory: &Path) -> Vec<[String; 3]> {
    let mut paths: Vec<_> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let of_path = |path: &Path| {
        if path.is_dir() {
            return said_below(path);
        }
        let is_rust = path.extension().is_some_and(|extension| extension == "rs");
        if is_rust { said_in(&fs::read_to_string(path).unwrap()) } else { Vec::new() }
    };
    paths.iter().flat_map(|path| of_path(path)).collect()
}

#[test]
fn l6_every_fault_has_its_tests_and_stands_in_the_table() {
    let mut rows: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for [fault, outcome, test] in said_below(&root().join("tests")) {
        let at = FAULTS.iter().position(|known| *known == fault);
        let at = at.unwrap_or_else(|| panic!("{test}: {fault:?} is none of the faults"));
        let outcome = outcome.trim_end_matches('.').replace('|', "\\|");
        rows.entry(at).or_default().push(format!("| {fault} | {outcome} | `{test}` |\n"));
    }
    for (at, fault) in FAULTS.iter().enumerate() {
        assert!(rows.contains_key(&at), "{fault:?} has no test");
    }
    let table: String = rows.into_values().flatten().collect();
    blessed("tests/FAULTS.md", &format!("{INTRODUCTION}{table}"), "faults::table");
}

#[test]
fn l6_faults_are_read_from_the_comments_of_tests() {
    let text = "/// L6, W9: one: an end,\n/// told: twice.\n/// L6: two: none.\n#[test]\nfn both() {\n\
                /// L6, W9: three\n#[test]\nfn none() {\n/// L6: four: gone.\n\nfn nothing() {\n";
    let row = |words: [&str; 3]| words.map(str::to_owned);
    let rows = [row(["one", "an end, told: twice.", "both"]), row(["two", "none.", "both"])];
    assert_eq!(said_in(text), rows);
}
