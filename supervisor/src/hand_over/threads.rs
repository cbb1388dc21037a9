//! Our threads, as proc(5) shows them. exec(2) ends all but one, and waits for each. A thread that waits in the kernel
//! for a disk that does not answer takes no signal, so exec(2) would wait for it without end.

use std::fs;
use std::time::Duration;

use nix::unistd::{getpid, gettid};
use tokio::time::sleep;

use crate::machine::proc_text;

/// How often we look, and how long we wait between two looks: that a thread waits for a disk for a moment is normal.
const LOOKS: usize = 20;
const REST: Duration = Duration::from_millis(5);

/// Whether this is the main thread.
pub(crate) fn is_main() -> bool {
    gettid() == getpid()
}

/// Waits until no thread of ours is held up in the kernel, but not for ever.
///
/// # Errors
///
/// The name of a thread that is.
pub(crate) async fn settle() -> Result<(), String> {
    let mut held = held_up();
    for _ in 1..LOOKS {
        if held.is_none() {
            break;
        }
        sleep(REST).await;
        held = held_up();
    }
    held.map_or(Ok(()), Err)
}

fn held_up() -> Option<String> {
    let threads = fs::read_dir("/proc/self/task").ok()?;
    let mut stats = threads.filter_map(|thread| fs::read(thread.ok()?.path().join("stat")).ok());
    stats.find_map(|stat| held_up_by(&stat))
}

fn held_up_by(stat: &[u8]) -> Option<String> {
    let (name, mut fields) = proc_text::stat(stat)?;
    (fields.next() == Some("D")).then(|| String::from_utf8_lossy(name).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o2_a_thread_that_is_held_up_is_known_whatever_its_name() {
        for (stat, held) in [
            ("7 (log) D 1 7", Some("log")),
            ("7 (a) R (b) D 1 7", Some("a) R (b")),
            ("7 (a) D (b) S 1 7", None),
            ("7 (log) S 1 7", None),
            ("", None),
        ] {
            assert_eq!(held_up_by(stat.as_bytes()).as_deref(), held, "{stat}");
        }
    }
}
