//! How the engine `seccomp` answers single system calls, whatever comes between (W14).

use std::fs;
use std::path::Path;
use std::process::Command;

use nix::libc;

use super::Notes;
use super::engine::greeted;
use crate::support::{
    Actor, Client, DEADLINE, Refusal, WEBSOCKIFY, Websockify, can_copy_sockets, copy_program,
    free_port, needs, needs_copied_sockets, needs_root, refuse, skip_even_in_ci, static_actor,
    wait_for_within,
};

const WAIT_KILLABLE: u32 = 1 << 5;

/// Imitates a kernel before 5.19, where signals do not wait until a call is answered.
fn is_before_5_19(command: &mut Command) {
    let flags = Refusal::of(libc::SYS_seccomp, libc::EINVAL);
    refuse(command, &[flags.where_is_at_least(1, WAIT_KILLABLE)]);
}

/// W14: signals without pause, as Go's scheduler sends them, make no call fail; neither in a kernel before 5.19, where a
/// signal interrupts a call that waits for its answer.
#[test]
fn w14_three_thousand_binds_under_a_storm_of_signals() {
    if !needs_copied_sockets() {
        return;
    }
    for is_old in [false, true] {
        let port = free_port();
        let line = format!(
            "{port} --rebind-engine=seccomp -- {} storm 3000 {port} bind {port} listen serve",
            static_actor()
        );
        let mut websockify = Websockify::start_with(&line, |command| {
            if is_old {
                is_before_5_19(command);
            }
        });
        // On a single processor, the process that sends the signals has it most of the time.
        let is_over = || websockify.logged(&["listening on"]).pop();
        wait_for_within(5 * DEADLINE, "the end of the storm", is_over);
        greeted(port);
        assert_eq!(websockify.stop(), 0, "{is_old}");
    }
}

/// The kernel itself carries out all calls that do not concern the program's port: those with errors, with other families and
/// with other ports.
#[test]
fn w14_what_is_not_moved_is_as_it_was() {
    if !needs_copied_sockets() || !needs(&["python3"]) {
        return;
    }
    let notes = Notes::new();
    let port = free_port();
    let script = notes.note("others.py");
    fs::write(
        &script,
        format!(
            r#"
import ctypes, errno, os, socket, threading
libc = ctypes.CDLL(None, use_errno=True)
def fails(call, *arguments):
    assert call(*arguments) == -1
    return errno.errorcode[ctypes.get_errno()]
tcp = socket.socket()
assert fails(libc.bind, tcp.fileno(), ctypes.c_void_p(1), 16) == "EFAULT"
assert fails(libc.bind, tcp.fileno(), ctypes.create_string_buffer(200), 200) == "EINVAL"
assert fails(libc.bind, tcp.fileno(), ctypes.create_string_buffer(16), -1) == "EINVAL"
assert fails(libc.bind, 999, ctypes.create_string_buffer(16), 16) == "EBADF"
assert fails(libc.listen, 999, 1) == "EBADF"
assert fails(libc.listen, os.open("/dev/null", os.O_RDONLY), 1) == "ENOTSOCK"
other = socket.socket()
other.bind(("127.0.0.1", 0)); other.listen(); assert other.getsockname()[1] != {port}
path = socket.socket(socket.AF_UNIX); path.bind({socket:?}); path.listen()
socket.socket(socket.AF_UNIX).connect({socket:?})
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("127.0.0.1", 0))
netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0); netlink.bind((0, 0))
served = socket.socket(); served.bind(("", {port}))
def listen():
    served.listen()
thread = threading.Thread(target=listen); thread.start(); thread.join()
assert served.getsockname()[0] == "127.0.0.1"
while True:
    session, _ = served.accept(); session.sendall(b"all is well\n")
"#,
            socket = notes.note("socket"),
        ),
    )
    .unwrap();
    let mut websockify =
        Websockify::start(&format!("{port} --rebind-engine=seccomp -- python3 {script}"));
    let mut client = Client::connect_once_open(port);
    assert_eq!(client.read_line(), "all is well");
    assert_eq!(websockify.warnings(), Vec::<String>::new());
    assert_eq!(websockify.stop(), 0);
}

/// The version of this machine's kernel.
fn kernel() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    let mut number = || numbers.next().unwrap().parse().unwrap();
    (number(), number())
}

/// In kernels before 6.17, a thread repeats a call that was answered already if a signal comes with the answer. A repeated
/// bind must succeed, because it was done. So a second bind of a socket fails there only if it is seen not to be a repetition.
#[test]
fn w14_a_bind_that_a_signal_has_repeated_is_done() {
    if !needs_copied_sockets() || !needs(&["python3"]) {
        return;
    }
    let notes = Notes::new();
    for is_old in [false, true] {
        if !is_old && kernel() < (6, 17) {
            continue;
        }
        let port = free_port();
        let script = notes.note("twice.py");
        let bind = |socket: &str| {
            format!(
                "try:\n    {socket}.bind((\"\", {port})); said.append(0)\n\
                 except OSError as error:\n    said.append(error.errno)\n"
            )
        };
        let program = format!(
            "import errno, socket\nsaid = []\nserved = socket.socket()\nother = socket.socket()\n\
             {}{}other.bind((\"127.0.0.1\", 0))\n{}served.listen()\nsession, _ = served.accept()\n\
             session.sendall((\" \".join(map(str, said)) + \"\\n\").encode())\nsession.recv(1)\n",
            bind("served"),
            bind("served"),
            bind("served")
        );
        fs::write(&script, program).unwrap();
        let line = format!("{port} --rebind-engine=seccomp -- python3 {script}");
        let mut websockify = Websockify::start_with(&line, |command| {
            if is_old {
                is_before_5_19(command);
            }
        });
        let mut client = Client::connect_once_open(port);
        let expected = if is_old { "0 0 22" } else { "0 22 22" };
        assert_eq!(client.read_line(), expected, "EINVAL is 22");
        client.close();
        assert_eq!(websockify.wait(), 0);
    }
}

fn thread_named(pid: i32, name: &str) -> i32 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let is_it = |thread: &fs::DirEntry| {
        fs::read_to_string(thread.path().join("comm")).is_ok_and(|comm| comm.trim_end() == name)
    };
    let mut found = threads.filter(is_it);
    found.next().unwrap().file_name().to_str().unwrap().parse().unwrap()
}

/// A signal may interrupt the thread that waits for calls. It must not take that for the end of the filter's listener, after
/// which all calls would fail.
#[test]
fn w14_signals_to_the_thread_that_answers_change_nothing() {
    if !needs_copied_sockets() {
        return;
    }
    let port = free_port();
    let line = format!(
        "{port} --rebind-engine=seccomp -- {} throng 10000 bind {port} listen serve",
        static_actor()
    );
    let mut websockify = Websockify::start(&line);
    let us = websockify.pid();
    websockify.nth_start(1);
    let answers = thread_named(us, "seccomp");
    let is_served = || !websockify.logged(&["listening on"]).is_empty();
    while !is_served() && websockify.logged(&["has ended"]).is_empty() {
        for _ in 0..1000 {
            // SAFETY: it only sends a signal, to a thread of our child that must bear it.
            unsafe { libc::syscall(libc::SYS_tgkill, us, answers, libc::SIGCHLD) };
        }
    }
    let mut client = Client::connect_once_open(port);
    client.read_line();
    client.close();
    assert_eq!(websockify.stop(), 0);
}

/// When its first thread has ended, a process goes on with the others: it is wrapped by either engine, and what it has open
/// is seen.
#[test]
fn w14_w2_a_program_whose_first_thread_has_ended_is_wrapped() {
    for engine in ["preload", "seccomp"] {
        if engine == "seccomp" && (kernel() < (6, 9) || !can_copy_sockets()) {
            continue;
        }
        let port = free_port();
        let line = format!(
            "{port} --rebind-engine={engine} -- {Actor} leave-first-thread bind {port} listen serve"
        );
        let mut websockify = Websockify::start(&line);
        let mut client = Client::connect_once_open(port);
        client.read_line();
        client.close();
        assert_eq!(websockify.warnings(), Vec::<String>::new(), "{engine}");
        assert_eq!(websockify.stop(), 0, "{engine}");
    }
}

/// A websockify that an ordinary user runs.
fn of_an_ordinary_user(notes: &Notes, line: &str) -> Websockify {
    let ours = notes.note("websockify");
    if !Path::new(&ours).exists() {
        copy_program(WEBSOCKIFY, &ours);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", &ours]);
    Websockify::launch(command.args(line.split(' ')))
}

/// A process that may not be looked into is named if the program does not listen, but not for a socket of another kind:
/// agents that protect themselves so are common.
#[test]
fn w14_a_program_that_may_not_be_looked_into_is_named_if_it_does_not_listen() {
    if !needs_copied_sockets() || !needs_root() || !needs(&["setpriv", "python3"]) {
        return;
    }
    let notes = Notes::new();
    let script = notes.note("guarded.py");
    let port = free_port();
    let program = "import ctypes, socket, sys\nset = ctypes.CDLL(None).prctl\nset(4, 0)\n\
                   agent = socket.socket(socket.AF_UNIX); agent.bind(\"\\0\" + sys.argv[2]); agent.listen()\n\
                   set(4, int(sys.argv[1]))\nserved = socket.socket(); served.bind((\"\", int(sys.argv[2])))\n\
                   served.listen()\nsession, _ = served.accept(); session.sendall(b\"served\\n\"); session.recv(1)\n";
    fs::write(&script, program).unwrap();
    let line =
        |guarded| format!("{port} --rebind-engine=seccomp -- python3 {script} {guarded} {port}");
    let mut websockify = of_an_ordinary_user(&notes, &line(1));
    let mut client = Client::connect_once_open(port);
    assert_eq!(client.read_line(), "served");
    client.close();
    assert_eq!(websockify.wait(), 0);
    assert_eq!(websockify.warnings(), Vec::<String>::new());
    let output = of_an_ordinary_user(&notes, &line(0)).output();
    assert_eq!(output.status, 1, "{:?}", output.err);
    let named = |line: &&String| line.contains("WARN") && line.contains("cannot look into process");
    assert_eq!(output.err.iter().filter(named).count(), 1, "{:?}", output.err);
    assert!(!output.err.iter().any(|line| line.contains("ended without listening")));
}

/// The kernel allows only one filter with a listener at a time for a process (seccomp(2): EBUSY).
#[test]
fn w14_one_within_another_is_named() {
    if !needs_copied_sockets() {
        return;
    }
    let port = free_port();
    let line = format!(
        "{port} --rebind-engine=seccomp -- {WEBSOCKIFY} {port} --rebind-engine=seccomp -- true"
    );
    let output = Websockify::start(&line).output();
    assert_eq!(output.status, 1, "{:?}", output.err);
    let named = |line: &&String| line.contains("another one, that of a container perhaps");
    assert_eq!(output.err.iter().filter(named).count(), 1, "{:?}", output.err);
}

/// An MPTCP socket, as Go's servers have them since 1.24, of a program that root has started and that changed its user: its
/// owner cannot be changed to root.
#[test]
fn w14_an_mptcp_socket_of_another_user_is_moved() {
    if !needs_copied_sockets() || !needs_root() {
        return;
    }
    let enabled = fs::read_to_string("/proc/sys/net/mptcp/enabled");
    if !enabled.is_ok_and(|enabled| enabled.trim_end() == "1") {
        skip_even_in_ci("this kernel has no MPTCP");
        return;
    }
    for bind in ["bind", "bind-dual"] {
        let port = free_port();
        let mut websockify = Websockify::start(&format!(
            "{port} --rebind-engine=seccomp -- {Actor} nobody mptcp {bind} {port} listen serve"
        ));
        greeted(port);
        websockify.assert_alone_on(port);
        assert_eq!(websockify.warnings(), Vec::<String>::new(), "{bind}");
        assert_eq!(websockify.stop(), 0, "{bind}");
    }
}
