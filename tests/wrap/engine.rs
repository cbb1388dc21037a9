//! Programs that `rebind.so` cannot reach, whose port the engine `seccomp` moves (W14). All other tests here pass under
//! that engine too: `tests/run` runs them twice.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

use nix::libc;
use nix::sys::signal::Signal;

use super::Notes;
use crate::support::{
    Actor, Client, Process, Refusal, WEBSOCKIFY, Websockify, can_copy_sockets, copy_program,
    free_port, has_ipv6, musl_actor, needs, needs_copied_sockets, needs_root, refuse, run,
    skip_even_in_ci, static_actor, write_script,
};

const MOVED: &str = "its port is moved by --rebind-engine=seccomp";

/// A session with the actor.
pub(super) fn greeted(port: u16) {
    let mut client = Client::connect_once_open(port);
    client.read_line();
    client.send("hello");
    assert_eq!(client.read(5), b"hello");
    client.close();
}

/// A program that binds what it is told to, and then greets and echoes.
struct Served<'a> {
    program: &'a str,
    /// Why `auto` chooses the engine `seccomp` for it, as the log says it.
    cause: &'a str,
}

/// The actor, linked in each way that needs no dynamic linker.
fn out_of_reach() -> Vec<Served<'static>> {
    let mut all = vec![Served { program: static_actor(), cause: "is statically linked" }];
    if needs(&["musl-gcc"]) {
        static MUSL: LazyLock<PathBuf> = LazyLock::new(|| musl_actor("actor-musl", &["-static"]));
        all.push(Served { program: MUSL.to_str().unwrap(), cause: "is statically linked" });
    }
    all
}

/// W14: a program that is seen to be out of reach of the engine `preload` is wrapped in every mode, over IPv4 and IPv6; the
/// choice and its reason are logged once.
#[test]
fn w14_auto_wraps_what_cannot_be_preloaded_in_every_mode() {
    if !needs_copied_sockets() {
        return;
    }
    for Served { program, cause } in out_of_reach() {
        for mode in ["exit", "ignore", "respawn"] {
            for bind in ["bind", "bind-dual", "bind-v6"] {
                if bind == "bind-v6" && !has_ipv6() {
                    continue;
                }
                let port = free_port();
                let line =
                    format!("{port} --wrap-mode={mode} -- {program} {bind} {port} listen serve");
                let mut websockify = Websockify::start_auto(&line);
                greeted(port);
                websockify.assert_alone_on(port);
                websockify.assert_logged(&[MOVED, cause, program], 1);
                assert_eq!(websockify.warnings(), Vec::<String>::new(), "{mode} {bind}");
                assert_eq!(websockify.stop(), 0, "{mode} {bind}");
            }
        }
    }
}

/// W14: the choice is logged once also where `rebind.so` will do: neither the next instance nor the new binary of a
/// hand-over logs it again.
#[test]
fn w14_auto_says_once_that_the_library_will_do() {
    const SAID: [&str; 2] = ["INFO program", "its port is moved by rebind.so, as nothing is seen"];
    let port = free_port();
    let play = format!("{Actor} bind {port} listen accept greet echo");
    let websockify = Websockify::start_auto(&format!("{port} --wrap-mode=respawn -- {play}"));
    for _ in 0..2 {
        greeted(port);
    }
    websockify.nth_start(3);
    websockify.signal(Signal::SIGUSR2);
    websockify.wait_for_log(&["taken over: 0 sessions"]);
    greeted(port);
    websockify.assert_logged(&SAID, 1);
    // Nothing is logged if that engine was asked for.
    let other = free_port();
    let output = run(&format!("{other} --rebind-engine=preload -- {Actor} exit 0"));
    assert!(!output.err.iter().any(|line| line.contains(SAID[1])), "{:?}", output.err);
}

#[test]
fn w14_what_cannot_be_preloaded_is_started_again_and_daemonizes() {
    if !needs_copied_sockets() {
        return;
    }
    for Served { program, .. } in out_of_reach() {
        let port = free_port();
        let line =
            format!("{port} --wrap-mode=respawn -- {program} bind {port} listen accept greet echo");
        let websockify = Websockify::start_auto(&line);
        for _ in 0..5 {
            greeted(port);
        }
        assert!(websockify.nth_start(5) > 0);
        websockify.assert_logged(&[MOVED], 1);
        for daemon in [
            "bind {port} listen fork-exit 0 serve",
            "fork-exit 0 setsid fork-exit 0 bind {port} listen serve",
        ] {
            let port = free_port();
            let play = daemon.replace("{port}", &port.to_string());
            let line = format!("{port} --wrap-mode=respawn -- {program} {play}");
            let mut websockify = Websockify::start_auto(&line);
            greeted(port);
            websockify.wait_for_log(&["daemonized"]);
            // The daemon, and what is left of the session.
            websockify.tree().iter().for_each(|process| process.signal(Signal::SIGKILL));
            websockify.nth_start(2);
            greeted(port);
            assert_eq!(websockify.stop(), 0, "{play}");
        }
    }
}

/// The dynamic linker of another C library loads `rebind.so` as well.
#[test]
fn w14_r6_a_program_of_musl_is_moved_by_either_engine() {
    if !needs(&["musl-gcc"]) {
        return;
    }
    let program = musl_actor("actor-musl-dynamic", &[]);
    for engine in ["preload", "seccomp", "auto"] {
        if engine == "seccomp" && !can_copy_sockets() {
            continue;
        }
        let port = free_port();
        let line = format!(
            "{port} --rebind-engine={engine} -- {} bind {port} listen serve",
            program.display()
        );
        let mut websockify = Websockify::start(&line);
        greeted(port);
        websockify.assert_alone_on(port);
        let moved = usize::from(engine == "seccomp");
        websockify.assert_logged(&[MOVED], moved);
        assert_eq!(websockify.stop(), 0, "{engine}");
    }
}

/// W14, as root: a setuid program gets the user of its file.
#[test]
fn w14_a_setuid_program_is_wrapped_and_stays_one() {
    if !needs_copied_sockets() || !needs_root() {
        return;
    }
    let notes = Notes::new();
    let program = notes.note("program");
    copy_program(Actor, &program);
    chown(&program, Some(65534), Some(65534)).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o4755)).unwrap();
    let port = free_port();
    let mut websockify =
        Websockify::start_auto(&format!("{port} -- {program} bind {port} listen serve"));
    greeted(port);
    websockify.wait_for_log(&[MOVED, "is setuid or setgid"]);
    let status = websockify.leader().proc().status().unwrap();
    assert_eq!(status.euid, 65534);
    assert_eq!(websockify.stop(), 0);
}

/// W14, as a user: the port is moved, and the log says what that costs: setuid programs get no rights.
#[test]
fn w14_a_static_program_of_an_ordinary_user_is_wrapped() {
    if !needs_copied_sockets() || !needs_root() || !needs(&["setpriv"]) {
        return;
    }
    let notes = Notes::new();
    let (websockify, program) = (notes.note("websockify"), notes.note("program"));
    copy_program(WEBSOCKIFY, &websockify);
    copy_program(static_actor(), &program);
    let port = free_port();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", &websockify]);
    command.args([&port.to_string(), "--", &program, "bind", &port.to_string(), "listen", "serve"]);
    let mut websockify = Websockify::launch(&mut command);
    greeted(port);
    websockify.assert_alone_on(port);
    websockify.wait_for_log(&[MOVED, "is statically linked", "such as sudo, get no rights"]);
    assert_eq!(websockify.stop(), 0);
}

/// A daemon that is left running can bind no more sockets, and the log says so.
#[test]
fn w14_a_daemon_that_is_left_is_told_of() {
    if !needs_copied_sockets() {
        return;
    }
    let port = free_port();
    let play = format!("bind {port} listen fork-exit 0 serve");
    let mut websockify =
        Websockify::start_auto(&format!("{port} --wrap-mode=ignore -- {} {play}", static_actor()));
    greeted(port);
    websockify.wait_for_log(&["daemonized"]);
    assert_eq!(websockify.stop(), 0);
    websockify.wait_for_log(&["WARN", "can bind no socket any more"]);
    let left = websockify.remnants();
    assert!(left.iter().any(Process::is_alive), "{left:?}");
    for process in left {
        process.signal(Signal::SIGKILL);
    }
}

/// Before Linux 6.9 a thread has no pidfd. proc(5) says whose thread it is, in a file that has the process's name, which may
/// be cut within a letter.
#[test]
fn w14_a_name_that_is_cut_within_a_letter_is_in_nobodys_way_where_threads_have_no_pidfd() {
    if !needs_copied_sockets() {
        return;
    }
    let notes = Notes::new();
    let (port, program) = (free_port(), notes.note("програмаактор"));
    copy_program(Actor, &program);
    let line = format!("{port} --rebind-engine=seccomp -- {program} bind {port} listen serve");
    let mut websockify = Websockify::start_with(&line, |command| {
        let refusal = Refusal::of(libc::SYS_pidfd_open, libc::EINVAL);
        refuse(command, &[refusal.where_is(1, libc::PIDFD_THREAD)]);
    });
    greeted(port);
    websockify.assert_alone_on(port);
    assert_eq!(websockify.stop(), 0);
}

/// A program that a script starts is not seen before the start. It is kept off the public port, and named.
#[test]
fn w14_a_static_program_in_a_script_is_wrapped_when_it_is_asked_for_and_else_named() {
    if !needs_copied_sockets() {
        return;
    }
    let notes = Notes::new();
    let (port, script) = (free_port(), notes.note("script"));
    write_script(&script, &format!("#!/bin/sh\n{} bind {port} listen serve\n", static_actor()));
    let mut websockify = Websockify::start(&format!("{port} --rebind-engine=seccomp -- {script}"));
    greeted(port);
    assert_eq!(websockify.stop(), 0);
    let output = Websockify::start_auto(&format!("{port} -- {script}")).output();
    assert_eq!(output.status, 99, "bind: address already in use");
    let named = |line: &&String| line.contains("WARN") && line.contains("--rebind-engine=seccomp");
    assert_eq!(output.err.iter().filter(named).count(), 1, "{:?}", output.err);
}

/// A program that goes on running is seen, and is named for certain.
#[test]
fn w14_a_static_program_that_a_script_has_started_is_named() {
    let notes = Notes::new();
    let (port, script) = (free_port(), notes.note("script"));
    write_script(&script, &format!("#!/bin/sh\n{} sleep\n", static_actor()));
    let websockify = Websockify::start_auto(&format!("{port} --wrap-timeout=1 -- {script}"));
    let line = websockify.wait_for_log(&["WARN", "(actor-static)"]);
    assert!(line.contains("--rebind-engine=seccomp"), "{line}");
}

/// A program that neither engine reaches is named with the reason, and no engine is recommended.
#[test]
fn w14_a_program_of_another_architecture_in_a_script_is_named() {
    if !cfg!(target_arch = "x86_64") {
        skip_even_in_ci("this architecture runs no other's programs");
        return;
    }
    let notes = Notes::new();
    let (source, program, script) = (notes.note("pause.c"), notes.note("pause"), notes.note("sh"));
    fs::write(
        &source,
        "void _start(void) { for (;;) __asm__ volatile(\"int $0x80\" : : \"a\"(29)); }\n",
    )
    .unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-m32", "-static", "-nostdlib", "-ffreestanding", "-fno-pie", "-no-pie"]);
    assert!(compiler.args(["-o", &program, &source]).status().unwrap().success());
    write_script(&script, &format!("#!/bin/sh\n{program}\n"));
    let port = free_port();
    let websockify = Websockify::start_auto(&format!("{port} --wrap-timeout=1 -- {script}"));
    let line = websockify.wait_for_log(&["WARN", "does not listen"]);
    assert!(line.contains("(pause) is built for another architecture"), "{line}");
    assert!(!line.contains("--rebind-engine"), "{line}");
}

/// Where a kernel or a container forbids the engine `seccomp`, one line says so. It is an error if the engine was asked
/// for; otherwise everything is as without the engine.
#[test]
fn w14_a_kernel_or_a_container_that_forbids_it_is_named() {
    for (call, errno) in [
        (libc::SYS_seccomp, libc::ENOSYS),
        (libc::SYS_seccomp, libc::EPERM),
        (libc::SYS_pidfd_getfd, libc::EPERM),
        (libc::SYS_pidfd_getfd, libc::ENOSYS),
        (libc::SYS_pidfd_open, libc::ENOSYS),
        (libc::SYS_process_vm_readv, libc::ENOSYS),
    ] {
        let port = free_port();
        let line = format!("{port} --rebind-engine=seccomp -- {Actor} bind {port} listen serve");
        let output = Websockify::start_with(&line, |command| {
            refuse(command, &[Refusal::of(call, errno)]);
        })
        .output();
        assert_eq!(output.status, 1, "{:?}", output.err);
        assert_eq!(output.err.len(), 1, "{:?}", output.err);
        assert!(output.err[0].contains("cannot use --rebind-engine=seccomp"), "{:?}", output.err);
        // Where sockets cannot be copied at all, another reason is named first.
        if can_copy_sockets() {
            let is_old = output.err[0].contains("it needs Linux 5.6");
            assert_eq!(is_old, errno == libc::ENOSYS, "{:?}", output.err);
        }
        let line = format!("{port} --rebind-engine=auto -- {} exit 3", static_actor());
        let output = Websockify::start_with(&line, |command| {
            refuse(command, &[Refusal::of(call, errno)]);
        })
        .output();
        assert_eq!(output.status, 3, "{:?}", output.err);
        let count = |part: &str| output.err.iter().filter(|line| line.contains(part)).count();
        assert_eq!(count("cannot use --rebind-engine=seccomp"), 1, "{:?}", output.err);
        assert_eq!(count("so rebind.so cannot move its port"), 1, "{:?}", output.err);
    }
}
