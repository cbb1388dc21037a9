//! The way back: a new image that was good when it was tried, and then is not.

use std::path::PathBuf;
use std::sync::LazyLock;

use super::Bridge;
use crate::support::{compile_library, wait_until};

static FAULT: LazyLock<PathBuf> = LazyLock::new(|| compile_library("fault"));

/// O2: the image before goes on, as the same process, and can be asked again.
fn comes_back_from(fault: &str, why: &str) {
    let mut bridge = Bridge::start_with("--pid-file=pid --admin=unix:admin.sock", |command| {
        command.env("LD_PRELOAD", &*FAULT).env("FAULT", fault);
    });
    let line = bridge.command_line();
    for nth in 1..=2 {
        bridge.ask();
        let backs = || bridge.websockify.logged(&["WARN cannot hand over to ", why]);
        wait_until("the image before", || backs().len() == nth);
        bridge.assert_serves();
        assert_eq!(bridge.command_line(), line);
    }
    assert!(bridge.path("pid").exists() && bridge.path("admin.sock").exists());
    assert_eq!(bridge.websockify.stop(), 0);
    assert!(!bridge.path("pid").exists() && !bridge.path("admin.sock").exists());
}

#[test]
fn o2_one_that_crashes_makes_room_again() {
    comes_back_from("crash", ": it was ended by SIGSEGV; 0 sessions go on");
    comes_back_from("abort", ": it was ended by SIGABRT; 0 sessions go on");
}

#[test]
fn o2_one_whose_thread_crashes_makes_room_again() {
    comes_back_from("thread", ": it was ended by SIGSEGV; 0 sessions go on");
}

#[test]
fn o2_one_that_hangs_makes_room_again() {
    comes_back_from("hang", ": it did not settle within 5 s; 0 sessions go on");
}

#[test]
fn o2_one_that_fails_makes_room_again() {
    comes_back_from("fail", ": cannot start the runtime: invalid argument; 0 sessions go on");
}
