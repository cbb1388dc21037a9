//! A thousand connections a second that come and go: nobody is ever shown as another (A2).

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

use super::{client, session_from, start_teller};
use crate::support::needs;

/// How many sessions, and by how many clients at a time.
const SESSIONS: u32 = 6000;
const CLIENTS: u8 = 8;

/// A2: some wait for the answer, some leave when they have said who they are, and some without a word.
#[test]
fn a2_in_a_storm_nobody_is_shown_as_another() {
    if !needs(&["python3"]) {
        return;
    }
    let (mut websockify, port) = start_teller("--client-address=socket", "edge check");
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
    eprintln!("{SESSIONS} sessions in {:.1} s", began.elapsed().as_secs_f64());
    assert!(websockify.is_running());
    assert_eq!(answered.into_inner(), SESSIONS / 2);
    assert_eq!(websockify.out.text().matches("MISTAKEN").count(), 0, "{}", websockify.out.text());
}
