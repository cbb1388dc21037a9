//! Many runs: every status right, nothing leaked (W8).

use std::hash::{BuildHasher, RandomState};
use std::thread;

use crate::support::{Actor, Client, Process, Websockify, field, free_port, run, wait_until};

/// Sessions, each of which tells its program with which status to end.
const RUNS: usize = 1000;

fn random_byte(seed: usize) -> u8 {
    u8::try_from(RandomState::new().hash_one(seed) & 0xff).unwrap()
}

/// A thousand instances under one websockify.
#[test]
fn w8_a_thousand_instances_have_a_thousand_right_codes_and_leak_nothing() {
    let port = free_port();
    let mut websockify = Websockify::start(&format!(
        "{port} --wrap-mode=respawn -- {Actor} bind {port} listen accept exit-byte"
    ));
    websockify.wait_until_open();
    let us = Process::find(websockify.pid()).unwrap();
    let mut codes = Vec::with_capacity(RUNS);
    let mut descriptors = 0;
    for run in 0..RUNS {
        let code = random_byte(run);
        codes.push(code.to_string());
        let mut client = Client::connect(port);
        client.send([code]);
        assert_eq!(client.closing().code, 1000, "run {run}");
        if run == 10 {
            descriptors = us.proc().fd_count().unwrap();
        }
    }
    let ended = || websockify.logged(&["program's first process has ended"]);
    wait_until("the last end", || ended().len() == RUNS);
    let seen: Vec<_> = ended().iter().map(|line| field(line, "status").to_owned()).collect();
    assert_eq!(seen, codes);
    websockify.nth_start(RUNS + 1);
    wait_until("no more descriptors than at the beginning", || {
        us.proc().fd_count().unwrap() <= descriptors
    });
    assert_eq!(children(us.pid), 1, "zombies");
    assert_eq!(websockify.stop(), 0);
}

/// All children, living and dead.
fn children(parent: i32) -> usize {
    procfs::process::all_processes()
        .unwrap()
        .filter_map(|process| process.ok()?.stat().ok())
        .filter(|stat| stat.ppid == parent)
        .count()
}

/// Every code there is, each by a websockify of its own.
#[test]
fn w8_every_code_of_a_program_that_ends_at_once_is_right() {
    thread::scope(|scope| {
        for half in 0..2 {
            scope.spawn(move || {
                let port = free_port();
                for code in (half..256).step_by(2) {
                    let output = run(&format!("{port} -- {Actor} exit {code}"));
                    assert_eq!(output.status, code);
                }
            });
        }
    });
}
