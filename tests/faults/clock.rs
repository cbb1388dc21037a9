//! The clock of the day stepped, as by an administrator, or by NTP after a start without a battery. Nothing is awaited by
//! that clock, so nothing ends early or late.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{Actor, Client, Footprint, Websockify, free_port, root, stays, wait_until};
use crate::wrap::Notes;

/// Moves the clock of the day, and no other, by as many seconds as a file says.
const STEP: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t id, struct timespec *now) {
    int (*next)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int result = next(id, now);
    char seconds[32] = "";
    int fd = id == CLOCK_REALTIME ? open(getenv("STEP"), O_RDONLY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        if (read(fd, seconds, sizeof seconds - 1) > 0)
            now->tv_sec += atol(seconds);
        close(fd);
    }
    return result;
}
"#;

const YEAR: i64 = 366 * 24 * 60 * 60;

/// The year of a record in the log.
fn year(line: &str) -> i64 {
    line.split('-').next().unwrap().parse().unwrap()
}

fn compile_step(notes: &Notes) -> PathBuf {
    let (source, library) = (notes.path().join("step.c"), notes.path().join("step.so"));
    fs::write(&source, STEP).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source);
    assert!(compiler.status().unwrap().success());
    library
}

/// L6: clock stepped: by ten years, ahead and back: sessions go on, and end when their limit says so; a program that
/// has ended is started again at once. The log has the new time.
#[test]
fn l6_a_clock_that_is_stepped_ends_nothing_early_and_nothing_late() {
    let notes = Notes::new();
    let (library, step) = (compile_step(&notes), notes.note("step"));
    let port = free_port();
    let line = format!(
        "{port} --session-timeout=6 --wrap-mode=respawn -- {Actor} bind {port} listen serve"
    );
    let mut websockify = Websockify::start_with(&line, |command| {
        command.env("LD_PRELOAD", &library).env("STEP", &step);
    });
    websockify.wait_until_open();
    Client::connect(port).read_line();
    let before = Footprint::at_rest(&websockify);
    let first = year(&websockify.wait_for_log(&["session started: 1,"]));
    for (nth, years) in [(2, 10), (3, -10)] {
        let mut client = Client::connect(port);
        client.read_line();
        fs::write(&step, (years * YEAR).to_string()).unwrap();
        websockify.nth_leader(nth - 1).signal(Signal::SIGKILL);
        websockify.nth_start(nth);
        let ended = || websockify.logged(&[&format!("session ended: {},", 2 * nth - 2)]).len();
        stays(Duration::from_secs(1), "the session", || ended() == 0);
        client.send("hello");
        assert_eq!(client.read(5), b"hello");
        let mut other = Client::connect(port);
        other.read_line();
        let record = websockify.wait_for_log(&[&format!("session started: {},", 2 * nth - 1)]);
        assert_eq!(year(&record), first + years, "{record}");
        let closing = client.closing();
        assert_eq!((closing.code, closing.reason.as_str()), (1000, "session timeout"));
        assert_eq!(other.close().code, 1000);
        wait_until("its record", || ended() == 1);
    }
    assert_eq!(websockify.logged(&["respawning too fast"]), Vec::<String>::new());
    before.wait_until_back(&websockify);
    assert_eq!(websockify.stop(), 0);
}

/// Who asks for the time of day, and what for. No deadline is among them.
const ASK_FOR_THE_DAY: [(&str, &str); 7] = [
    ("bridge/src/directory/jwt/mod.rs", "whether a token is valid, which is said in that time"),
    (
        "bridge/src/directory/token_file/table.rs",
        "how long ago a file was changed, by at most a second",
    ),
    ("bridge/src/private.rs", "compares times that files have, and asks for none"),
    ("supervisor/src/admin/sessions.rs", "shows since when a session is there"),
    ("supervisor/src/admin/standing.rs", "shows since when we are there"),
    (
        "supervisor/src/engine/preload/stale.rs",
        "whether a process is older than a file, both in that time",
    ),
    ("supervisor/src/log/syslog.rs", "the time of a record"),
];

/// No deadline, no delay and no limit is in that time: so nothing else can mind a step. (Certificates are judged in it,
/// too, by rustls, the log is written with it by tracing, and `Date:` by hyper.)
#[test]
fn l6_nothing_else_asks_for_the_time_of_day() {
    let mut found = BTreeSet::new();
    for directory in ["bridge/src", "supervisor/src", "rebind/src"] {
        collect(&root().join(directory), &mut found);
    }
    // The tests of one.
    found.remove("bridge/src/directory/token_file/tests.rs");
    let known: Vec<_> = ASK_FOR_THE_DAY.iter().map(|(file, _)| (*file).to_owned()).collect();
    assert_eq!(found.into_iter().collect::<Vec<_>>(), known);
}

fn collect(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
            continue;
        }
        let text = fs::read_to_string(&path).unwrap_or_default();
        if ["SystemTime", "CLOCK_REALTIME", "gettimeofday"].iter().any(|word| text.contains(word)) {
            let path = path.strip_prefix(root()).unwrap();
            found.insert(path.to_str().unwrap().to_owned());
        }
    }
}
