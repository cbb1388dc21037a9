//! Connections that come and go as fast as they can: no client is ever shown with another client's address (A2).
//! `storm.py` asserts a rate of a thousand a second, on a machine that does nothing else.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

use super::{client, session_from, start_address_reporter};
use crate::support::{WEBSOCKIFY, needs, root, text_of};

/// The least rate, clients per second, however busy the machine is: with fewer the test proves little.
const RATE_MIN: f64 = 100.0;

/// How many sessions, and by how many clients at a time.
const SESSIONS: u32 = 4000;
const CLIENTS: u8 = 8;

/// A2: half of the clients wait for the answer, a quarter leave when they have sent their address, and a quarter
/// without a word.
#[test]
fn a2_in_a_storm_nobody_is_shown_as_another() {
    if !needs(&["python3"]) {
        return;
    }
    let (mut websockify, port) = start_address_reporter("--client-address=socket", "edge check");
    let (began, done, answered) = (Instant::now(), AtomicU32::new(0), AtomicU32::new(0));
    thread::scope(|scope| {
        for n in 0..CLIENTS {
            let (done, answered) = (&done, &answered);
            scope.spawn(move || {
                loop {
                    let number = done.fetch_add(1, Ordering::Relaxed);
                    if number >= SESSIONS {
                        return;
                    }
                    let (mut one, from) = session_from(client(n), port);
                    if number % 4 == 3 {
                        continue;
                    }
                    one.send(format!("{} {}", from.ip(), from.port()));
                    if number % 2 == 0 {
                        assert_eq!(one.read_until("\n"), "seen\n");
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let rate = f64::from(SESSIONS) / began.elapsed().as_secs_f64();
    eprintln!("{SESSIONS} sessions, {rate:.0} a second");
    assert!(rate >= RATE_MIN, "{rate:.0} a second");
    assert!(websockify.is_running());
    assert_eq!(answered.into_inner(), SESSIONS / 2);
    assert_eq!(websockify.out.text().matches("MISTAKEN").count(), 0, "{}", websockify.out.text());
}

/// A2: the same by the script, at a thousand a second for two seconds, or as many as the machine manages; half of the
/// clients that leave early do so by a reset, and several processes of the program accept.
#[test]
fn a2_in_a_storm_by_the_script_nobody_is_shown_as_another() {
    if !needs(&["python3"]) {
        return;
    }
    let mut storm = Command::new("python3");
    storm.arg(root().join("tests/client_address/storm.py")).args(["2", "1000"]);
    let output = storm.env("WEBSOCKIFY", WEBSOCKIFY).output().unwrap();
    let (said, errors) = (text_of(&output.stdout), text_of(&output.stderr));
    eprintln!("{said}");
    // 3: no client was taken for another, but the rate was not reached.
    assert!([Some(0), Some(3)].contains(&output.status.code()), "{said}{errors}");
    let (_, rate) = said.split_once(" s: ").unwrap();
    let (rate, rest) = rate.split_once("/s; ").unwrap();
    assert!(rate.parse::<f64>().unwrap() >= RATE_MIN, "{said}");
    assert_eq!(rest.trim_end(), "0 taken for another");
}
