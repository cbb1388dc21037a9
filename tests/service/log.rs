//! `--log-file`, and the program's own output in it (D3, W11).

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use tempfile::TempDir;

use super::{lines_with, wait_for_line};
use crate::support::{
    Actor, Client, Process, WEBSOCKIFY, Websockify, echo_service, free_port, needs, run, wait_for,
    wait_until,
};

fn in_directory(directory: &Path, options: &str, script: &str) -> Websockify {
    Websockify::start_with(options, |command| {
        command.current_dir(directory).args(["--", "sh", "-c", script]);
    })
}

#[test]
fn d3_a_log_file_is_appended_to_and_opened_again_on_sighup() {
    let directory = TempDir::new().unwrap();
    let (log, old) = (directory.path().join("log"), directory.path().join("log.1"));
    fs::write(&log, "here before\n").unwrap();
    let (port, service) = (free_port(), echo_service());
    let arguments = format!("--log-file={} {port} {}", log.display(), service.target());
    let mut websockify = Websockify::start(&arguments);
    wait_for_line(&log, &["listening on"]);
    assert_eq!(lines_with(&log, &["here before"]).len(), 1);

    let mut client = Client::connect(port);
    client.send("hello");
    client.read(5);
    wait_for_line(&log, &["session started"]);
    fs::rename(&log, &old).unwrap();
    websockify.signal(Signal::SIGHUP);
    wait_until("a new log file", || log.exists());
    client.close();
    wait_for_line(&log, &["session ended"]);
    assert!(lines_with(&old, &["session ended"]).is_empty(), "the session went on (T5)");

    // A log file that cannot be opened is named, and the log goes on in the file that is open.
    fs::rename(&log, &old).unwrap();
    fs::create_dir(&log).unwrap();
    websockify.signal(Signal::SIGHUP);
    wait_for_line(&old, &["WARN", "cannot open log file", "is a directory"]);
    assert_eq!(websockify.stop(), 0);
    // Standard error has had all of it, the second file's part too.
    for part in ["listening on", "session started", "session ended", "cannot open log file"] {
        websockify.assert_logged(&[part], 1);
    }
}

/// Standard error has the log too, as `docker logs` needs it; but only once where the log file is standard error.
#[test]
fn d3_a_log_file_is_beside_standard_error_but_not_where_it_is_the_same() {
    let directory = TempDir::new().unwrap();
    let (port, service) = (free_port(), echo_service());
    let options = format!("--log-file=/dev/stderr {port} {}", service.target());
    for log in ["/dev/stderr", "err"] {
        let options = options.replace("/dev/stderr", log);
        let mut shell = Command::new("sh");
        let script = format!("exec {WEBSOCKIFY} {options} 2>>err");
        let mut websockify =
            Websockify::launch(shell.args(["-c", &script]).current_dir(&directory));
        let err = directory.path().join("err");
        wait_for_line(&err, &["proxying from"]);
        assert_eq!(websockify.stop(), 0);
        assert_eq!(lines_with(&err, &["proxying from"]).len(), 1, "{log}");
        fs::remove_file(err).unwrap();
    }
    // Why a start fails is in both, once in each.
    let output = run(&format!(
        "--log-file={}/log {port} -- nowhere-to-be-found",
        directory.path().display()
    ));
    let said = output.err.iter().filter(|line| line.contains("nowhere-to-be-found: not found"));
    assert_eq!(said.count(), 1, "{output:?}");
    let log = directory.path().join("log");
    assert_eq!(lines_with(&log, &["nowhere-to-be-found: not found"]).len(), 1);
}

/// What Open OnDemand waits for in the output, with the addresses as they were typed.
#[test]
fn u2_the_log_says_from_where_to_where_once_it_accepts() {
    let service = echo_service();
    let target = service.target();
    for source in [free_port().to_string(), format!("127.0.0.1:{}", free_port())] {
        let websockify = Websockify::start(&format!("{source} {target}"));
        let shown = if source.contains(':') { source.clone() } else { format!(":{source}") };
        websockify.wait_for_log(&[&format!("proxying from {shown} to {target}")]);
        let port = source.rsplit(':').next().unwrap().parse().unwrap();
        Client::connect(port).close();
    }
}

#[test]
fn d3_a_log_file_that_cannot_be_opened_is_named() {
    let directory = TempDir::new().unwrap();
    let fifo = directory.path().join("fifo");
    nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    for (file, reason) in [
        ("/nowhere/log".into(), "no such file"),
        ("/etc".into(), "is a directory"),
        (fifo.display().to_string(), "no such device or address"),
    ] {
        let output = run(&format!("--log-file={file} {} localhost:9", free_port()));
        assert_eq!((output.status, output.err.len()), (1, 1), "{output:?}");
        let said = &output.err[0];
        assert!(said.contains(&format!("log file {file}")) && said.contains(reason), "{said}");
    }
}

/// W11: each line has the program's name and process id; the last ones are there too.
#[test]
fn w11_the_programs_output_is_tagged_in_the_log_file_to_its_last_line() {
    let directory = TempDir::new().unwrap();
    let script = "echo out; echo err >&2; printf 'a\\377b\\n'; printf '%0300000d\\n' 7; \
                  printf 'unfinished'; exit 3";
    let options = format!("--log-file=log {}", free_port());
    let mut websockify = in_directory(directory.path(), &options, script);
    assert_eq!(websockify.wait(), 3);
    let log = directory.path().join("log");
    let started = wait_for_line(&log, &["program started"]);
    let tag = format!("INFO sh[{}]: ", crate::support::field(&started, "pid"));
    let lines: Vec<_> = lines_with(&log, &[&tag])
        .into_iter()
        .map(|line| line.split_once(&tag).unwrap().1.to_owned())
        .collect();
    assert_eq!(lines[..3], ["out", "err", "a\u{fffd}b"]);
    assert_eq!(lines.last().unwrap(), "unfinished");
    let pieces = &lines[3..lines.len() - 1];
    assert!(pieces.iter().all(|piece| piece.len() <= 48 * 1024));
    let whole = pieces.concat();
    assert_eq!((whole.len(), whole.ends_with('7')), (300_000, true));
}

/// W11: a program may end with more in its pipe than has been logged when its end is noticed. All of that is logged before
/// websockify ends; or counted, if this machine's log is slower than its pipe.
#[test]
fn w11_the_programs_last_words_are_logged() {
    if !needs(&["python3"]) {
        return;
    }
    let directory = TempDir::new().unwrap();
    // In one write, into a pipe that is large enough (F_SETPIPE_SZ).
    let script = "exec python3 -c 'import fcntl, os\n\
                  fcntl.fcntl(1, 1031, 1 << 20)\n\
                  os.write(1, b\"! a line\\n\" * 20000); os._exit(0)'";
    let options = format!("--log-file=log {}", free_port());
    assert_eq!(in_directory(directory.path(), &options, script).wait(), 0);
    let log = directory.path().join("log");
    let logged = lines_with(&log, &["sh[", "]: !"]).len();
    let counts = lines_with(&log, &["lines dropped: the log file is slow"]);
    let dropped: usize =
        counts.iter().map(|line| line.split(' ').next().unwrap().parse::<usize>().unwrap()).sum();
    // A line or two of websockify's own may be among those that are counted.
    assert!(logged + dropped >= 20_000, "{logged} logged, {dropped} dropped");
}

/// W11: a log that nobody reads holds up neither the program nor a session, nor the end of websockify; lines that had no
/// room are counted.
#[test]
fn w11_a_log_that_is_not_read_blocks_nobody() {
    let directory = TempDir::new().unwrap();
    let (fifo, port) = (directory.path().join("fifo"), free_port());
    nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    let mut reader =
        File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(&fifo).unwrap();
    let script =
        format!("yes $(printf %0200d 0) | head -n 40000; exec {Actor} bind {port} listen serve");
    let options = format!("--log-file=fifo {port}");
    let mut websockify = in_directory(directory.path(), &options, &script);
    let mut client = Client::connect_once_open(port);
    client.read_line();
    client.send("hello");
    assert_eq!(client.read(5), b"hello", "all of 8 MB was written, or it would not listen");
    websockify.signal(Signal::SIGHUP);
    client.send("again");
    assert_eq!(client.read(5), b"again");

    let mut text = String::new();
    let mut piece = [0; 4096];
    wait_for("the count of what was dropped", || {
        // The lines that wait come first; the next line then says how many were dropped before it.
        client.send("more");
        client.read(4);
        drop(Client::connect(port));
        while let Ok(length @ 1..) = reader.read(&mut piece) {
            text += &String::from_utf8_lossy(&piece[..length]);
        }
        text.contains("lines dropped: the log file is slow").then_some(())
    });
    assert_eq!(websockify.stop(), 0);
}

/// W11: the end of websockify does not wait for a log that nobody reads.
#[test]
fn w11_a_log_that_is_not_read_does_not_hold_up_the_end() {
    let directory = TempDir::new().unwrap();
    let (fifo, port) = (directory.path().join("fifo"), free_port());
    nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    let _reader =
        File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(&fifo).unwrap();
    let script = format!("yes | head -n 20000; exec {Actor} bind {port} listen serve");
    let options = format!("--log-file=fifo {port}");
    let mut websockify = in_directory(directory.path(), &options, &script);
    Client::connect_once_open(port).read_line();
    assert_eq!(websockify.stop(), 0);
}

/// W11: a standard error that nobody reads, such as a terminal that was stopped by ^S, holds up nothing either.
#[test]
fn w11_a_standard_error_that_is_not_read_holds_up_no_session() {
    let directory = TempDir::new().unwrap();
    let fifo = directory.path().join("fifo");
    nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    let mut unread =
        File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(&fifo).unwrap();
    let (service, port) = (echo_service(), free_port());
    let mut shell = Command::new("sh");
    let script = format!("exec {WEBSOCKIFY} {port} {} 2>fifo", service.target());
    let mut websockify = Websockify::launch(shell.args(["-c", &script]).current_dir(&directory));
    // A pipe has room for 64 KiB.
    for _ in 0..400 {
        let mut client = Client::connect_once_open(port);
        client.send("hello");
        assert_eq!(client.read(5), b"hello");
    }
    assert_eq!(websockify.stop(), 0);
    let mut said = Vec::new();
    unread.read_to_end(&mut said).unwrap();
    assert!(said.len() > 60_000, "it was full: {}", said.len());
}

/// A daemon that writes a line to its output when the file `go` is there, and the status of that to the file `written`.
fn writing_daemon(port: u16) -> String {
    format!(
        "setsid sh -c 'while ! [ -e go ]; do sleep 0.02; done; echo from the daemon; \
         echo $? >written' & exec {Actor} bind {port} listen fork-exit 0 serve"
    )
}

/// Checks that a daemon that is left running writes without an error after the end of websockify, with this log; gives the
/// file that its standard output was.
fn daemon_outlives(directory: &Path, log: &str) -> PathBuf {
    let port = free_port();
    let options = format!("--wrap-mode=ignore {log} {port}");
    let mut websockify = in_directory(directory, &options, &writing_daemon(port));
    let mut client = Client::connect_once_open(port);
    let server: i32 = client.read_line().parse().unwrap();
    let output = fs::read_link(format!("/proc/{server}/fd/1")).unwrap();
    // The leader's end is what makes it a daemon; under `ignore` it is then left.
    wait_until("the daemon", || {
        websockify.tree().iter().filter(|process| process.name == "sh").count() == 1
            && websockify.tree().iter().any(|process| process.name == "actor")
    });
    websockify.wait_for_log(&["has daemonized"]);
    let left: Vec<Process> = websockify.tree();
    assert_eq!(websockify.stop(), 0);
    assert!(left.iter().any(|process| process.name == "sh" && process.is_alive()), "{left:?}");
    fs::write(directory.join("go"), "").unwrap();
    wait_until("a line written", || directory.join("written").exists());
    wait_until("its status", || {
        fs::read_to_string(directory.join("written")).is_ok_and(|status| status == "0\n")
    });
    fs::remove_file(directory.join("go")).unwrap();
    fs::remove_file(directory.join("written")).unwrap();
    output
}

/// W11: under `ignore` the program writes to the log file itself.
#[test]
fn w11_a_daemon_that_outlives_us_can_still_write() {
    let directory = TempDir::new().unwrap();
    let log = directory.path().join("log");
    let output = daemon_outlives(directory.path(), "--log-file=log");
    assert_eq!(output, log.canonicalize().unwrap());
    assert_eq!(lines_with(&log, &["from the daemon"]).len(), 1);
}

/// W11: a fifo breaks when its reader ends; a daemon gets /dev/null instead, and the log says so.
#[test]
fn w11_a_daemon_is_given_no_pipe_for_a_log() {
    let directory = TempDir::new().unwrap();
    let fifo = directory.path().join("fifo");
    nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    let path = fifo.clone();
    let reader = thread::spawn(move || fs::read_to_string(path).unwrap());
    // The reader's open(2) waits for a writer.
    let writer = wait_for("a reader", || {
        File::options().write(true).custom_flags(nix::libc::O_NONBLOCK).open(&fifo).ok()
    });
    let output = daemon_outlives(directory.path(), "--log-file=fifo");
    assert_eq!(output, Path::new("/dev/null"));
    drop(writer);
    let said = reader.join().unwrap();
    assert!(said.contains("cannot log the program's output"), "{said}");
}
