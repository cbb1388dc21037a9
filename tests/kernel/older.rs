//! Kernels older than those that `tests/kernels/run` boots (X1): a core of the tests, without the system calls
//! that came later. Must not know what any of those tests is about.

use std::process::Command;

use nix::libc;

use crate::support::{Refusal, refuse, text_of};

/// Parts of the names of the tests that are run, a line each, where `WEBSOCKIFY_CORE` has no others.
const SHORT: &str = include_str!("../kernels/short");

/// The first call that Linux 4.19 lacks, and the first that 5.4 lacks.
const AFTER_4_19: libc::c_long = libc::SYS_pidfd_send_signal;
const AFTER_5_4: libc::c_long = libc::SYS_close_range;

/// Runs the core, itself under these refusals too, and says how it went.
fn run_core(refusals: &[Refusal]) {
    let core = std::env::var("WEBSOCKIFY_CORE").unwrap_or_else(|_| SHORT.to_owned());
    let core: Vec<_> = core.lines().filter(|line| !line.starts_with('#')).collect();
    let mut tests = Command::new(std::env::current_exe().unwrap());
    refuse(tests.args(&core), refusals);
    let output = tests.output().unwrap();
    let said = text_of(&output.stdout);
    println!("{said}");
    assert!(output.status.success(), "{}", text_of(&output.stderr));
    for name in core {
        let ran = |line: &str| line.contains(name) && line.ends_with(" ... ok");
        assert!(said.lines().any(ran), "no test has '{name}' in its name");
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

/// X1: `EPERM` from a filter that knows no later call. Today's C library starts no thread without clone3 or
/// `ENOSYS` for it, so that nothing of today's runs where that is refused so as well.
#[test]
fn x1_the_core_holds_where_an_old_containers_filter_says_eperm() {
    run_core(&[Refusal::never(libc::SYS_clone3), Refusal::since(AFTER_4_19, libc::EPERM)]);
}
