//! Kernels older than those that `tests/kernels/run` boots (X1): a core of the tests is run while the system calls
//! that came later are refused. Must not know what any of those tests is about.

use std::process::Command;

use nix::errno::Errno;
use nix::libc;

use crate::support::{Refusal, refuse, text_of};

/// The core where `WEBSOCKIFY_CORE` is not set: parts of the names of tests, one a line.
const SHORT: &str = include_str!("../kernels/short");

/// The first call that Linux 4.19 lacks, and the first that 5.4 lacks.
const AFTER_4_19: libc::c_long = libc::SYS_pidfd_send_signal;
const AFTER_5_4: libc::c_long = libc::SYS_close_range;

fn names(core: &str) -> impl Iterator<Item = &str> {
    core.lines().filter(|line| !line.starts_with('#'))
}

/// Runs the core and `for_x1_a_later_call_is_refused` while these calls are refused; prints the output, and fails
/// where a test does.
fn run_core(refusals: &[Refusal]) {
    let core = std::env::var("WEBSOCKIFY_CORE").unwrap_or_else(|_| SHORT.to_owned());
    let core: Vec<_> = names(&core).collect();
    let mut tests = Command::new(std::env::current_exe().unwrap());
    tests.args(["--include-ignored", "for_x1_"]).args(&core);
    refuse(&mut tests, refusals);
    let output = tests.output().unwrap();
    let said = text_of(&output.stdout);
    println!("{said}");
    assert!(output.status.success(), "{}", text_of(&output.stderr));
}

/// Runs among the tests of the core: proves that later calls are refused there. A close_range(2) that is not refused
/// fails because its range is wrong.
#[test]
#[ignore = "x1 runs it"]
#[allow(unsafe_code)]
fn for_x1_a_later_call_is_refused() {
    // SAFETY: the range is empty, so no descriptor is closed.
    let done = unsafe { libc::syscall(libc::SYS_close_range, 1, 0, 0) };
    let refused = [Errno::ENOSYS, Errno::EPERM].contains(&Errno::last());
    assert!(done == -1 && refused, "{}", Errno::last());
}

#[test]
fn x1_the_core_is_of_tests_that_there_are() {
    let mut list = Command::new(std::env::current_exe().unwrap());
    let tests = text_of(&list.arg("--list").output().unwrap().stdout);
    for name in [SHORT, include_str!("../kernels/core")].iter().flat_map(|core| names(core)) {
        assert!(tests.lines().any(|test| test.contains(name)), "no test has '{name}' in its name");
    }
}

#[test]
fn x1_the_core_holds_with_the_calls_of_linux_4_19() {
    run_core(&[Refusal::since(AFTER_4_19, libc::ENOSYS)]);
}

#[test]
fn x1_the_core_holds_with_the_calls_of_linux_5_4() {
    run_core(&[Refusal::since(AFTER_5_4, libc::ENOSYS)]);
}

/// X1: `EPERM` from a filter that knows no later call. clone3(2) is excepted: where it fails with another error than
/// `ENOSYS`, today's C library starts no thread, so no program of today runs under such a filter.
#[test]
fn x1_the_core_holds_where_an_old_containers_filter_says_eperm() {
    run_core(&[Refusal::never(libc::SYS_clone3), Refusal::since(AFTER_4_19, libc::EPERM)]);
}
