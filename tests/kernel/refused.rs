//! System calls that are refused (F2, F3, F7).

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::wait_until_at_rest;
use crate::support::{
    Actor, Client, Refusal, WEBSOCKIFY, Websockify, echo_service, free_port, needs, refuse,
    request, wait_for, wait_until, who_listens,
};
use crate::tokens::{by_token, named_at, refused};

/// The two errors with which a call is refused: `ENOSYS` as by an old kernel, `EPERM` as by old containers' filters.
const ERRORS: [i32; 2] = [libc::ENOSYS, libc::EPERM];

/// Each call alone, and both: one may be refused without the other.
fn without_pidfds() -> Vec<Vec<Refusal>> {
    let sets: [&[libc::c_long]; 3] = [
        &[libc::SYS_pidfd_open],
        &[libc::SYS_pidfd_send_signal],
        &[libc::SYS_pidfd_open, libc::SYS_pidfd_send_signal],
    ];
    let all = sets.into_iter().flat_map(|calls| ERRORS.map(|error| (calls, error)));
    all.map(|(calls, error)| calls.iter().map(|call| Refusal::of(*call, error)).collect()).collect()
}

fn start(arguments: &str, refusals: &[Refusal]) -> Websockify {
    Websockify::start_with(arguments, |command| refuse(command, refusals))
}

#[test]
fn f2_every_process_is_asked_to_end_where_pidfds_are_refused() {
    for refusals in without_pidfds() {
        let directory = TempDir::new().unwrap();
        let told = directory.path().join("told");
        let port = free_port();
        // The leader and its twin write a note on SIGTERM, and the helper does not. The leader is stopped (SIGSTOP).
        let mut websockify = start(
            &format!(
                "{port} --stop-timeout=100 -v -- \
                 {Actor} helper on-term {} bind {port} listen twin serve",
                told.display()
            ),
            &refusals,
        );
        websockify.wait_until_open();
        wait_until("three processes", || websockify.tree().len() == 3);
        let leader = websockify.leader();
        leader.signal(Signal::SIGSTOP);
        // `--stop-timeout` is longer than the test waits for the end: so every process must end by SIGTERM.
        assert_eq!(websockify.stop(), 0);
        assert_eq!(websockify.remnants(), []);
        assert_eq!(fs::read_to_string(&told).unwrap().lines().count(), 2);
        websockify.wait_for_log(&["SIGTERM to", &format!("{} (actor)", leader.pid)]);
        assert_eq!(websockify.logged(&["cannot send"]), Vec::<String>::new());
    }
}

#[test]
fn f2_redis_saves_what_it_has_where_pidfds_are_refused() {
    if !needs(&["redis-server"]) {
        return;
    }
    for error in ERRORS {
        let directory = TempDir::new().unwrap();
        let port = free_port();
        let arguments = format!(
            "{port} -- redis-server --port {port} --save 3600_1 --dir {}",
            directory.path().display()
        );
        let refusals = [
            Refusal::of(libc::SYS_pidfd_open, error),
            Refusal::of(libc::SYS_pidfd_send_signal, error),
        ];
        let mut command = Command::new(WEBSOCKIFY);
        command.args(arguments.split(' ').map(|word| word.replace('_', " ")));
        refuse(&mut command, &refusals);
        let mut websockify = Websockify::launch(&mut command);
        let mut client = Client::connect_once_open(port);
        client.send("SET k v\r\n");
        assert_eq!(client.read_line(), "+OK");
        assert_eq!(websockify.stop(), 0);
        assert!(directory.path().join("dump.rdb").exists(), "it was asked to end");
    }
}

/// F2, W6: a daemon's end is noticed, and waiting for it costs nothing.
#[test]
fn f2_a_daemon_is_watched_where_pidfds_are_refused() {
    for refusals in without_pidfds() {
        let port = free_port();
        let mut websockify = start(
            &format!(
                "{port} --wrap-mode=respawn -- \
                 {Actor} bind {port} helper fork-exit 0 twin listen serve"
            ),
            &refusals,
        );
        websockify.wait_for_log(&["has daemonized"]);
        let holders = || who_listens(websockify.tree());
        wait_until("two listening processes", || holders().len() == 2);
        Client::connect_once_open(port).read_line();
        wait_until_at_rest(&websockify);
        websockify.assert_logged(&["program started"], 1);
        for process in holders() {
            process.signal(Signal::SIGKILL);
        }
        websockify.nth_start(2);
        websockify.wait_for_log(&["has daemonized"]);
        assert_eq!(websockify.stop(), 0);
        assert_eq!(websockify.remnants(), []);
    }
}

/// The errors for a sock_diag socket: where the kernel has no such module, by a seccomp filter, and by
/// `RestrictAddressFamilies=`.
const WITHOUT_SOCK_DIAG: [i32; 3] = [libc::EPROTONOSUPPORT, libc::EPERM, libc::EAFNOSUPPORT];

/// F3, X2: the kernel has no sock_diag module, or a filter refuses it.
#[test]
fn f3_programs_are_wrapped_where_sock_diag_is_refused() {
    for error in WITHOUT_SOCK_DIAG {
        for (mode, way) in [
            ("exit", "listen serve"),
            ("ignore", "listen fork-exit 0 serve"),
            ("respawn", "listen fork-exit 0 setsid fork-exit 0 serve"),
        ] {
            let port = free_port();
            let mut websockify = start(
                &format!("{port} --wrap-mode={mode} -- {Actor} bind-dual {port} {way}"),
                &[Refusal::of_sock_diag(error)],
            );
            let mut client = Client::connect_once_open(port);
            client.read_line();
            client.send("hello");
            assert_eq!(client.read(5), b"hello");
            wait_until_at_rest(&websockify);
            let said = websockify.logged(&["sock_diag is refused"]);
            assert_eq!(said.len(), 1, "{said:?}");
            assert_eq!(websockify.logged(&["cannot see"]), Vec::<String>::new());
            assert_eq!(websockify.logged(&["has daemonized"]).is_empty(), mode == "exit");
            assert_eq!(websockify.stop(), 0, "{mode}");
        }
    }
}

/// F3, W5, W6: the kernel may lack the memory for an answer about sockets, for as long as it likes. That no process is left is seen all
/// the same.
#[test]
fn f3_the_end_of_a_program_is_seen_where_no_socket_is() {
    for way in ["nap exit 3", "fork-exit 3 nap nap"] {
        let mut websockify = start(
            &format!("{} -- {Actor} {way}", free_port()),
            &[Refusal::of_sock_diag(libc::ENOBUFS)],
        );
        assert_eq!(websockify.wait(), 3, "{way}");
        websockify.assert_logged(&["cannot see who listens"], 1);
        assert_eq!(websockify.remnants(), [], "{way}");
    }
}

/// F3, W4: clients of a program that serves one client an instance are let through one by one.
#[test]
fn f3_held_clients_are_served_one_by_one_where_sock_diag_is_refused() {
    let port = free_port();
    let mut websockify = start(
        &format!(
            "{port} --wrap-mode=respawn -- \
             {Actor} bind {port} listen accept close-listener greet read-line exit 1"
        ),
        &[Refusal::of_sock_diag(libc::EPERM)],
    );
    websockify.wait_until_open();
    let visit = || {
        let mut client = Client::connect(port);
        let instance = client.read_line();
        client.send("go\n");
        assert_eq!(client.closing().code, 1000);
        instance
    };
    let mut instances: Vec<_> = std::thread::scope(|scope| {
        let visitors: Vec<_> = (0..6).map(|_| scope.spawn(visit)).collect();
        visitors.into_iter().map(|visitor| visitor.join().unwrap()).collect()
    });
    instances.sort();
    instances.dedup();
    assert_eq!(instances.len(), 6, "each has an instance of its own");
    assert_eq!(websockify.stop(), 0);
}

/// F3, B4: a deadline at the end of a session is put off while a slow reader takes what is under way, also where only
/// proc(5) tells how much that is.
#[test]
fn f3_a_slow_reader_has_the_last_byte_where_sock_diag_is_refused() {
    const LENGTH: usize = 3_000_000;
    let port = free_port();
    let mut websockify = start(
        &format!("{port} -- {Actor} bind {port} listen accept flood {LENGTH} exit 0"),
        &[Refusal::of_sock_diag(libc::EPERM)],
    );
    let mut client = Client::connect_once_open(port);
    let began = Instant::now();
    // Takes longer than the limit of ten seconds in all, and is never as long without a byte.
    let mut left = LENGTH;
    let mut next = Duration::ZERO;
    while left > 0 {
        wait_for("the next piece's time", || (began.elapsed() >= next).then_some(()));
        let piece = left.min(LENGTH / 13);
        assert!(client.read(piece).iter().all(|byte| *byte == b'x'));
        left -= piece;
        next += Duration::from_secs(1);
    }
    assert_eq!(client.closing().code, 1000);
    assert_eq!(websockify.wait(), 0);
}

/// F7, W1: descriptors are closed for the program without a system call for each possible number.
#[test]
fn f7_a_program_starts_where_close_range_is_refused() {
    for error in ERRORS {
        let port = free_port();
        // A limit of a thousand million descriptors cannot be tested. Here it is 4,000, and an fcntl(2) of a number
        // from 900 on, of which none is open, kills the process.
        let refusals = [
            Refusal::of(libc::SYS_close_range, error),
            Refusal::deadly(libc::SYS_fcntl)
                .where_is_at_least(0, 900)
                .where_is(1, libc::F_SETFD.cast_unsigned()),
        ];
        let mut command = Command::new("bash");
        let script = r#"ulimit -n 4000; exec 7</dev/zero 9>/dev/null 800</dev/zero; exec "$@""#;
        command.args(["-c", script, "bash", WEBSOCKIFY, &port.to_string(), "--"]);
        command.arg(Actor.as_ref()).args(["bind", &port.to_string(), "listen", "serve"]);
        refuse(&mut command, &refusals);
        let mut websockify = Websockify::launch(&mut command);
        Client::connect_once_open(port).read_line();
        let program = websockify.leader();
        for inherited in [7, 9, 800] {
            let path = format!("/proc/{}/fd/{inherited}", program.pid);
            assert!(fs::read_link(&path).is_err(), "{inherited} is open");
        }
        assert_eq!(websockify.stop(), 0);
    }
}

/// X1: another call asks whether the recordings' directory can be written to.
#[test]
fn x1_sessions_are_recorded_where_faccessat2_is_refused() {
    for error in ERRORS {
        let directory = TempDir::new().unwrap();
        let recording = directory.path().join("session");
        let (service, port) = (echo_service(), free_port());
        let line = format!("{port} {} --record={}", service.target(), recording.display());
        let mut websockify = start(&line, &[Refusal::of(libc::SYS_faccessat2, error)]);
        let mut client = Client::connect_once_open(port);
        client.send("hello");
        assert_eq!(client.read(5), b"hello");
        assert_eq!(client.close().code, 1000);
        assert_eq!(websockify.stop(), 0);
        assert!(fs::read_to_string(recording.with_extension("1")).unwrap().contains("hello"));
    }
}

/// X1, K3, K7: for directories that are named with `..`, or with a slash at the end, the C library's realpath(3)
/// calls faccessat2(2).
#[test]
fn x1_directories_of_tokens_and_pages_are_found_where_faccessat2_is_refused() {
    for error in ERRORS {
        let directory = TempDir::new().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in ["tokens", "web", "in", "out", "recordings"] {
            fs::create_dir(at(name)).unwrap();
        }
        for place in ["in", "out"] {
            named_at(&at(place).join("socket"), "socket");
            let target = format!("unix_socket:{}\n", at(place).join("socket").display());
            fs::write(at("tokens").join(place), target).unwrap();
        }
        fs::write(at("web").join("page"), "a page").unwrap();
        std::os::unix::fs::symlink("page", at("web").join("link")).unwrap();
        let (above, port) = (directory.path().display(), free_port());
        let line = format!(
            "{port} --token-plugin=TokenFileName --token-source={above}/in/../tokens/ \
             --target-allow=unix:{above}/out/../in/ --web={above}/in/../web/ \
             --record={above}/recordings/session"
        );
        let mut websockify = start(&line, &[Refusal::of(libc::SYS_faccessat2, error)]);
        websockify.wait_until_open();
        assert_eq!(by_token(port, "in"), Ok("socket".to_owned()), "{error}");
        assert_eq!(refused(port, "out"), 403, "{error}");
        for name in ["page", "link"] {
            assert_eq!(request(port, &format!("/{name}"), &[]).0.status, 200, "{error}: {name}");
        }
        assert_eq!(websockify.stop(), 0);
    }
}
