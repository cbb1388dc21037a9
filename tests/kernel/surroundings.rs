//! Machines and containers that offer little (X2): what was asked for is done there, or one line says at the start
//! why not. A /proc that hides processes is in `hidden`; where sock_diag or pidfds alone are refused, in `refused`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::libc;
use nix::sys::signal::Signal;

use crate::support::{
    Actor, Client, Lan, MemoryLimit, Refusal, WEBSOCKIFY, Websockify, can_copy_sockets,
    echo_service, free_port, needs, needs_root, refuse, skip_even_in_ci,
};
use crate::wrap::Notes;

/// The library as the build has made it.
const REBIND: &str = concat!(env!("OUT_DIR"), "/rebind.so");

fn assert_echoes(port: u16) {
    let mut client = Client::connect_once_open(port);
    client.read_line();
    client.send("hello");
    assert_eq!(client.read(5), b"hello");
}

/// Starts command lines with `start`, and asserts in every mode that the program is reached, that it is started again
/// where it should be, and that no process is left but a daemon that is meant to be.
fn assert_wraps(start: impl Fn(&str) -> Websockify) {
    for (mode, way) in [("exit", ""), ("ignore", "fork-exit 0"), ("respawn", "fork-exit 0 setsid")]
    {
        let port = free_port();
        let program = format!("{Actor} bind {port} listen {way} serve");
        let mut websockify = start(&format!("{port} --wrap-mode={mode} -- {program}"));
        assert_echoes(port);
        if mode != "exit" {
            websockify.wait_for_log(&["has daemonized"]);
        }
        if mode == "respawn" {
            for process in websockify.tree() {
                process.signal(Signal::SIGKILL);
            }
            websockify.nth_start(2);
            assert_echoes(port);
        }
        assert_eq!(websockify.stop(), 0, "{mode}");
        assert_eq!(websockify.remnants().is_empty(), mode != "ignore", "{mode}");
        assert_eq!(websockify.logged(&["cannot"]), Vec::<String>::new(), "{mode}");
    }
}

/// The same by each engine that can be used here.
fn assert_each_engine_wraps(start: impl Fn(&str) -> Websockify) {
    for engine in ["preload", "seccomp"] {
        if engine == "preload" || can_copy_sockets() {
            assert_wraps(|line| start(&format!("--rebind-engine={engine} {line}")));
        }
    }
}

/// A command that executes websockify with these arguments by way of `words`: `setpriv …`, `unshare …`.
fn by(words: &[&str], arguments: &str) -> Command {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).arg(WEBSOCKIFY).args(arguments.split_whitespace());
    command
}

/// X2: a kernel without IPv6, where no IPv6 socket can be made.
#[test]
fn x2_without_ipv6_all_goes_by_ipv4() {
    let no_ipv6 = || {
        let family = libc::AF_INET6.cast_unsigned();
        Refusal::of(libc::SYS_socket, libc::EAFNOSUPPORT).where_is(0, family)
    };
    let start = |arguments: &str| {
        Websockify::start_with(arguments, |command| refuse(command, &[no_ipv6()]))
    };
    assert_each_engine_wraps(start);
    let (service, port) = (echo_service(), free_port());
    let mut websockify = start(&format!("{port} localhost:{}", service.address.port()));
    let mut client = Client::connect_once_open(port);
    client.send("hello");
    assert_eq!(client.read(5), b"hello");
    let listening = websockify.wait_for_log(&["listening on"]);
    assert!(listening.contains("0.0.0.0") && !listening.contains("[::]"), "{listening}");
    assert_eq!(websockify.warnings(), Vec::<String>::new());
    drop(client);
    assert_eq!(websockify.stop(), 0);
}

/// X2: a machine on which IPv6 is switched off, where there is no IPv6 address.
#[test]
fn x2_where_ipv6_is_switched_off_all_goes_by_ipv4() {
    let Some(lan) = Lan::new() else { return };
    lan.here.set("net/ipv6/conf/all/disable_ipv6", 1);
    lan.here.run(|| assert_each_engine_wraps(Websockify::start));
}

/// X2: without all of these at once, as in gVisor and in old containers.
#[test]
fn x2_without_sock_diag_pidfds_inotify_and_ipv6_programs_are_wrapped() {
    let family = libc::AF_INET6.cast_unsigned();
    let refusals = [
        Refusal::of_sock_diag(libc::EPROTONOSUPPORT),
        Refusal::of(libc::SYS_socket, libc::EAFNOSUPPORT).where_is(0, family),
        Refusal::of(libc::SYS_inotify_init1, libc::ENOSYS),
        Refusal::since(libc::SYS_pidfd_send_signal, libc::ENOSYS),
    ];
    assert_wraps(|line| Websockify::start_with(line, |command| refuse(command, &refusals)));
}

/// X2: root without capabilities, as in many containers.
#[test]
fn x2_root_without_capabilities_wraps() {
    if !needs_root() || !needs(&["setpriv", "unshare"]) {
        return;
    }
    let without = ["--bounding-set", "-all", "--inh-caps", "-all", "--ambient-caps", "-all"];
    let bare: Vec<_> = ["setpriv"].into_iter().chain(without).collect();
    assert_each_engine_wraps(|line| Websockify::launch(&mut by(&bare, line)));

    let mapped = ["unshare", "--user", "--map-root-user"];
    if !Command::new(mapped[0]).args(&mapped[1..]).arg("true").status().unwrap().success() {
        skip_even_in_ci("no user namespace of our own here");
        return;
    }
    let mapped: Vec<_> = mapped.into_iter().chain(bare).collect();
    assert_each_engine_wraps(|line| Websockify::launch(&mut by(&mapped, line)));
}

/// Runs a command where `/`, `/tmp`, `/run`, `/var/tmp` and `$TMPDIR` are read-only. Files can be made in /dev/shm, from
/// which nothing can be executed, and in `$WRITABLE`, if that is set.
const READ_ONLY: &str = r#"
mount --make-rprivate / && mount -t tmpfs -o noexec shm /dev/shm || exit
for place in /tmp /run /var/tmp "$TMPDIR"; do
    mount --bind "$place" "$place" && mount -o remount,bind,ro "$place" || exit
done
[ -z "$WRITABLE" ] || mount -t tmpfs -o mode=1777 writable "$WRITABLE" || exit
mount -o remount,bind,ro / && exec "$@"
"#;

/// websockify in the surroundings of [`READ_ONLY`], in which `writable` is `$WRITABLE`.
fn read_only(arguments: &str, writable: Option<&Path>) -> Websockify {
    let words = ["unshare", "-m", "sh", "-c", READ_ONLY, "sh"];
    let mut command = by(&words, arguments);
    command.env("WRITABLE", writable.unwrap_or(Path::new("")));
    if let Some(writable) = writable {
        command.env("TMPDIR", writable);
    }
    Websockify::launch(&mut command)
}

/// Whether such a mount namespace can be made here, which the kernel or a container may forbid.
fn can_be_read_only() -> bool {
    if !needs_root() || !needs(&["unshare", "mount"]) {
        return false;
    }
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", READ_ONLY, "sh", "true"]).env("TMPDIR", std::env::temp_dir());
    let can = command.status().unwrap().success();
    if !can {
        skip_even_in_ci("nothing can be made read-only here");
    }
    can
}

#[test]
fn x2_with_a_read_only_root_a_target_is_bridged_to_and_files_that_cannot_be_are_named() {
    if !can_be_read_only() {
        return;
    }
    let (service, port) = (echo_service(), free_port());
    let mut websockify = read_only(&format!("{port} {} --web=/usr", service.target()), None);
    let mut client = Client::connect_once_open(port);
    client.send("hello");
    assert_eq!(client.read(5), b"hello");
    drop(client);
    assert_eq!(websockify.stop(), 0);

    for option in ["log-file", "pid-file", "record"] {
        let file = format!("/run/{option}-of-x2");
        let line = format!("--{option}={file} {port} {}", service.target());
        let output = read_only(&line, None).output();
        assert_eq!(output.status, 1);
        let [said] = &output.err[..] else { panic!("{:?}", output.err) };
        assert!(said.contains(&file) && said.ends_with("read-only file system"), "{said}");
    }
}

/// X2: rebind.so is unpacked into a directory from which programs can load it, or is there already (`--rebind-lib`).
#[test]
fn x2_with_a_read_only_root_a_program_is_wrapped_or_one_line_says_why_not() {
    if !can_be_read_only() {
        return;
    }
    let port = free_port();
    let program = format!("{port} -- {Actor} bind {port} listen serve");
    let output = read_only(&program, None).output();
    assert_eq!(output.status, 1);
    let [said] = &output.err[..] else { panic!("{:?}", output.err) };
    assert!(said.starts_with("websockify: cannot unpack the rebind library: "), "{said}");
    for place in ["/tmp: read-only file system", "/dev/shm: mounted noexec", "--rebind-lib"] {
        assert!(said.contains(place), "{said}");
    }

    let notes = Notes::new();
    let writable = PathBuf::from(notes.note("writable"));
    fs::create_dir(&writable).unwrap();
    assert_wraps(|line| read_only(line, Some(&writable)));

    let library = notes.note("rebind.so");
    fs::copy(REBIND, &library).unwrap();
    assert_wraps(|line| read_only(&format!("--rebind-lib={library} {line}"), None));

    // The seccomp engine needs no library.
    if can_copy_sockets() {
        assert_wraps(|line| read_only(&format!("--rebind-engine=seccomp {line}"), None));
    }
}

/// X2: hundreds of sessions whose clients do not read for a while, and a program in every mode.
#[test]
fn x2_256_megabytes_are_enough() {
    const PIECE: usize = 32 << 10;
    if !needs_root() {
        return;
    }
    let Some(limit) = MemoryLimit::new(256 << 20) else { return };
    let (service, port) = (echo_service(), free_port());
    let mut websockify = limit.start(&format!("{port} {}", service.target()));
    let piece = vec![b'x'; PIECE];
    let mut clients: Vec<_> = (0..300).map(|_| Client::connect_once_open(port)).collect();
    for client in &mut clients {
        client.send(&piece);
    }
    for client in &mut clients {
        assert_eq!(client.read(PIECE), piece);
    }
    drop(clients);
    assert_eq!(websockify.stop(), 0);
    assert_wraps(|line| limit.start(line));
}
