//! The journal (D2, B10, W11), with a real systemd-journald: one for each test, in a mount namespace
//! with a `/run` of its own, so that neither the host's nor another test's is in the way. Only root
//! can do that.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::support::{
    Actor, Client, DEADLINE, Footprint, Process, SERVERS, UPGRADE, WEBSOCKIFY, Websockify,
    echo_service, frame, free_port, needs, needs_root, request, skip, text_of, uninterrupted,
    wait_for, wait_until,
};

const JOURNALD: &str = "/lib/systemd/systemd-journald";

/// A namespace that a journald may run in.
struct Journal {
    /// The process that keeps the namespace.
    holder: Child,
    journald: Option<Child>,
}

impl Journal {
    /// `None` where it cannot be made; the test is then reported as skipped.
    fn prepare() -> Option<Self> {
        if !needs_root() || !needs(&["unshare", "nsenter", "journalctl", "mount"]) {
            return None;
        }
        if !Path::new(JOURNALD).exists() {
            skip("not installed: systemd-journald");
            return None;
        }
        let setup = "mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/log && \
                     mkdir -p /run/systemd/journal && touch /run/prepared && exec sleep infinity";
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--propagation=private", "sh", "-c", setup]);
        let mut holder = unshare.stdin(Stdio::null()).spawn().unwrap();
        let prepared = run_of(&holder).join("prepared");
        let ready = wait_for("a namespace", || match holder.try_wait().unwrap() {
            Some(status) => Some(Err(status)),
            None => prepared.exists().then_some(Ok(())),
        });
        if let Err(status) = ready {
            skip(&format!("no mount namespace: unshare ended with {}", status.into_raw()));
            return None;
        }
        Some(Self { holder, journald: None })
    }

    /// With a journald at work.
    fn start() -> Option<Self> {
        let mut journal = Self::prepare()?;
        journal.start_journald();
        Some(journal)
    }

    fn start_journald(&mut self) {
        let mut journald = self.inside(JOURNALD);
        journald.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.journald = Some(journald.spawn().unwrap());
        let socket = run_of(&self.holder).join("systemd/journal/socket");
        wait_until("journald", || {
            std::os::unix::net::UnixDatagram::unbound().is_ok_and(|us| us.connect(&socket).is_ok())
        });
    }

    fn signal_journald(&self, signal: Signal) {
        let journald = self.journald.as_ref().unwrap();
        kill(Pid::from_raw(journald.id().try_into().unwrap()), signal).unwrap();
    }

    fn stop_journald(&mut self) {
        self.signal_journald(Signal::SIGTERM);
        self.journald.take().unwrap().wait().unwrap();
    }

    /// A command in the namespace. nsenter(1) becomes it.
    fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id())).arg(program);
        command
    }

    fn websockify(&self, arguments: &str, prepare: impl FnOnce(&mut Command)) -> Websockify {
        let mut command = self.inside(WEBSOCKIFY);
        command.args(arguments.split_whitespace());
        prepare(&mut command);
        Websockify::launch(&mut command)
    }

    /// The records that match, as `journalctl -o json` has them.
    fn records(&self, matches: &[&str]) -> Vec<Value> {
        let mut journalctl = self.inside("journalctl");
        journalctl.args(["--directory=/run/log/journal", "-o", "json", "--all", "--no-pager"]);
        let output = journalctl.args(matches).output().unwrap();
        let text = text_of(&output.stdout);
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The first record that matches and has this message, waited for.
    fn wait_for(&self, matches: &[&str], message: &str) -> Value {
        wait_for(&format!("{message:?} of {matches:?} in the journal"), || {
            self.records(matches)
                .into_iter()
                .find(|record| text(record, "MESSAGE").contains(message))
        })
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        for child in self.journald.iter_mut().chain([&mut self.holder]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The `/run` that a process sees (proc(5)).
fn run_of(process: &Child) -> PathBuf {
    ["/proc", &process.id().to_string(), "root", "run"].iter().collect()
}

/// A field of a record, with what is not UTF-8 as journalctl has it: a list of numbers.
fn text(record: &Value, name: &str) -> String {
    match &record[name] {
        Value::String(text) => text.clone(),
        Value::Array(bytes) => bytes
            .iter()
            .map(|byte| char::from(u8::try_from(byte.as_u64().unwrap()).unwrap()))
            .collect(),
        other => panic!("{name} is {other} in {record}"),
    }
}

/// D2, B10: records of sessions with fields to filter on; priorities as journalctl -p knows them.
#[test]
fn d2_sessions_are_records_with_fields() {
    let Some(journal) = Journal::start() else { return };
    let (service, port) = (echo_service(), free_port());
    let mut websockify =
        journal.websockify(&format!("--journald -v {port} {}", service.target()), |_| {});
    journal.wait_for(&["SYSLOG_IDENTIFIER=websockify"], "listening on");
    let mut client = Client::connect(port);
    client.send("hello");
    assert_eq!(client.read(5), b"hello");
    let own_port = client.stream().local_addr().unwrap().port().to_string();
    client.close();

    let of_client = ["WEBSOCKIFY_CLIENT=127.0.0.1", "PRIORITY=6"];
    let started = journal.wait_for(&of_client, "session started");
    let ended = journal.wait_for(&of_client, "session ended");
    for record in [&started, &ended] {
        for (name, value) in [
            ("SYSLOG_IDENTIFIER", "websockify"),
            ("_PID", &websockify.pid().to_string()),
            ("WEBSOCKIFY_SESSION", "1"),
            ("WEBSOCKIFY_PORT", &own_port),
            ("WEBSOCKIFY_VERSION", "13"),
            ("WEBSOCKIFY_PATH", "/"),
            ("WEBSOCKIFY_TARGET", &service.target()),
        ] {
            assert_eq!(text(record, name), value, "{name}");
        }
    }
    for (name, value) in [
        ("WEBSOCKIFY_SENT", "5"),
        ("WEBSOCKIFY_RECEIVED", "5"),
        ("WEBSOCKIFY_CODE", "1000"),
        ("WEBSOCKIFY_REASON", ""),
    ] {
        assert_eq!(text(&ended, name), value, "{name}");
    }
    text(&ended, "WEBSOCKIFY_DURATION_MS").parse::<u64>().unwrap();
    assert_eq!(journal.records(&of_client).len(), 2, "one at the start, one at the end");

    drop(crate::support::connect(port));
    journal.wait_for(&["PRIORITY=7"], "connection ended without a session");
    assert_eq!(websockify.stop(), 0);
    assert_eq!(websockify.err.text(), "");
}

/// A5, A3: the client, the proxy, the user, the token and the target have a field each.
#[test]
fn a5_sessions_have_a_field_for_each_who() {
    let Some(journal) = Journal::start() else { return };
    let (service, port) = (echo_service(), free_port());
    let target = service.target().replace("127.0.0.1", "localhost");
    let directory = tempfile::TempDir::new().unwrap();
    let file = directory.path().join("tokens");
    std::fs::write(&file, format!("desk-one: {target}\n")).unwrap();
    let mut websockify = journal.websockify(
        &format!(
            "--journald {port} --trusted-proxy=127.0.0.1 --target-config={} \
             --auth-plugin=BasicHTTPAuth --auth-source=a:b",
            file.display()
        ),
        |_| {},
    );
    journal.wait_for(&["SYSLOG_IDENTIFIER=websockify"], "listening on");
    let named = ["Authorization: Basic YTpi", "X-Forwarded-For: 198.51.100.1"];
    let headers = [&UPGRADE[..], &named].concat();
    let (head, mut stream) = request(port, "/?token=desk-one", &headers);
    assert_eq!(head.status, 101);
    stream.write_all(&frame(0x82, b"hello")).unwrap();
    stream.read_exact(&mut [0; 7]).unwrap();
    let via = stream.local_addr().unwrap().to_string();
    drop(stream);
    for message in ["session started", "session ended"] {
        let record = journal.wait_for(&["WEBSOCKIFY_CLIENT=198.51.100.1"], message);
        for (name, value) in [
            ("WEBSOCKIFY_VIA", &*via),
            ("WEBSOCKIFY_USER", "a"),
            ("WEBSOCKIFY_TOKEN", "desk…"),
            ("WEBSOCKIFY_TARGET", &target),
            ("WEBSOCKIFY_TARGET_ADDRESS", &service.target()),
        ] {
            assert_eq!(text(&record, name), value, "{name}");
        }
        assert!(record.get("WEBSOCKIFY_PORT").is_none(), "the proxy has not said it: {record}");
    }
    assert_eq!(websockify.stop(), 0);
}

/// A5: records of clients that get no session name the proxy too, also if its PROXY header came before TLS.
#[test]
fn a5_refusals_name_the_proxy_in_the_journal() {
    let Some(journal) = Journal::start() else { return };
    let port = free_port();
    let directory = tempfile::TempDir::new().unwrap();
    let certificate = directory.path().join("self.pem");
    std::fs::write(&certificate, SERVERS.issue("localhost").pem()).unwrap();
    let options = format!("--cert={} --trusted-proxy=127.0.0.1", certificate.display());
    let mut websockify =
        journal.websockify(&format!("--journald {port} {options} --proxy-protocol a:1"), |_| {});
    journal.wait_for(&["SYSLOG_IDENTIFIER=websockify"], "listening on");
    let mut proxy = crate::support::connect(port);
    let via = proxy.local_addr().unwrap().to_string();
    proxy.write_all(b"PROXY TCP4 198.51.100.1 203.0.113.1 9 80\r\n").unwrap();
    // The head of a TLS record, and no handshake in it.
    proxy.write_all(b"\x16\x03\x01\x00\x04....").unwrap();
    let record = journal.wait_for(&["WEBSOCKIFY_CLIENT=198.51.100.1"], "TLS handshake failed");
    assert_eq!(text(&record, "WEBSOCKIFY_VIA"), via);
    assert_eq!(text(&record, "WEBSOCKIFY_PORT"), "9");
    assert_eq!(websockify.stop(), 0);
}

/// D2: warnings have priority 4; W11: the program's lines have its own name and process id, and the
/// priority that they begin with (`<3>`), long ones come whole in pieces, and JOURNAL_STREAM is true of
/// it (systemd.exec(5)).
#[test]
fn w11_the_programs_lines_are_its_own_in_the_journal() {
    let Some(journal) = Journal::start() else { return };
    let script = "echo hello; echo '<3>broken' >&2; \
                  [ $JOURNAL_STREAM = $(stat -L -c %d:%i /proc/self/fd/2) ] && echo its stream; \
                  printf '%0300000d\\n' 7; exit 3";
    let mut websockify = journal.websockify(&format!("--journald {}", free_port()), |command| {
        command.args(["--wrap-mode=respawn", "--", "/bin/sh", "-c", script]);
    });
    let started = journal.wait_for(&["SYSLOG_IDENTIFIER=websockify"], "program started");
    let pid = format!("_PID={}", text(&started, "WEBSOCKIFY_PID"));
    let own = [&pid[..], "SYSLOG_IDENTIFIER=sh"];
    assert_eq!(text(&journal.wait_for(&own, "hello"), "PRIORITY"), "6");
    assert_eq!(text(&journal.wait_for(&own, "broken"), "PRIORITY"), "3", "its own level");
    journal.wait_for(&own, "its stream");
    journal.wait_for(&own, "7");
    let long: String = journal
        .records(&own)
        .iter()
        .map(|record| text(record, "MESSAGE"))
        .filter(|message| message.starts_with('0'))
        .collect();
    assert_eq!((long.len(), long.ends_with('7')), (300_000, true));
    let warning = journal.wait_for(&["PRIORITY=4"], "respawning too fast");
    assert_eq!(text(&warning, "WEBSOCKIFY_PROGRAM"), "/bin/sh");
    assert_eq!(websockify.stop(), 0);
}

/// D2: the journal is chosen if `JOURNAL_STREAM` says that standard error is the journal, and if that is true.
#[test]
fn d2_the_journal_is_chosen_where_standard_error_is_the_journal() {
    let Some(journal) = Journal::start() else { return };
    let (service, port) = (echo_service(), free_port());
    // systemd-cat(1) connects standard error to the journal as systemd does; the test must set the
    // variable itself (systemd.exec(5)).
    let script = format!(
        "JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec {WEBSOCKIFY} {port} {}",
        service.target()
    );
    let mut command = journal.inside("systemd-cat");
    command.args(["--identifier=cat", "sh", "-c", &script]);
    let mut websockify = Websockify::launch(&mut command);
    let record = journal.wait_for(&["SYSLOG_IDENTIFIER=websockify"], "listening on");
    assert_eq!(text(&record, "_TRANSPORT"), "journal", "structured");
    assert_eq!(websockify.stop(), 0);

    // The variable is inherited, but standard error is not the journal.
    let mut websockify = journal.websockify(&format!("{port} {}", service.target()), |command| {
        command.env("JOURNAL_STREAM", "8:1");
    });
    websockify.wait_until_open();
    assert_eq!(websockify.stop(), 0);
}

/// D2: a failure is one record in the journal, with the priority of an error, whether it comes before the log is open or
/// after.
#[test]
fn d2_a_failure_is_an_error_in_the_journal() {
    let Some(journal) = Journal::start() else { return };
    for (arguments, reason) in [
        ("--ssl-only --cert=/nowhere/cert", "cannot read certificate"),
        ("-- no-such-program", "cannot start program"),
    ] {
        let target = if arguments.starts_with("--ssl-only") { "localhost:9" } else { "" };
        let script = format!(
            "JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec {WEBSOCKIFY} {} {target} {arguments}",
            free_port()
        );
        let mut command = journal.inside("systemd-cat");
        command.args(["--identifier=websockify", "sh", "-c", &script]);
        assert_ne!(Websockify::launch(&mut command).wait(), 0);
        journal.wait_for(&["PRIORITY=3"], reason);
        let all = journal.records(&["SYSLOG_IDENTIFIER=websockify"]);
        let with_reason = all.iter().filter(|record| text(record, "MESSAGE").contains(reason));
        assert_eq!(with_reason.count(), 1, "{all:?}");
    }

    // The journal has the failure, and so has the caller's standard error.
    let arguments = format!("--journald {} -- nowhere-to-be-found", free_port());
    let output = journal.websockify(&arguments, |_| {}).output();
    assert_eq!((output.status, output.err.len()), (127, 1), "{output:?}");
    journal.wait_for(&["PRIORITY=3"], "nowhere-to-be-found");
}

/// D2: a daemon logs to the journal where there is one, and says so where there is none.
#[test]
fn d2_a_daemon_logs_to_the_journal_if_there_is_one() {
    let Some(mut journal) = Journal::prepare() else { return };
    let (service, port) = (echo_service(), free_port());
    let arguments = format!("-D {port} {}", service.target());
    let mut without = journal.websockify(&arguments, |_| {});
    assert_eq!(without.wait(), 0);
    without.wait_for_log(&["no log is kept", "--log-file"]);
    assert_eq!(without.err.lines().len(), 1);
    let daemon = super::daemon(&without);
    daemon.signal(Signal::SIGTERM);
    wait_until("its end", || !daemon.is_alive());

    journal.start_journald();
    let mut with = journal.websockify(&arguments, |_| {});
    assert_eq!(with.wait(), 0);
    assert_eq!(with.err.text(), "");
    let daemon = super::daemon(&with);
    let pid = format!("_PID={}", daemon.pid);
    journal.wait_for(&[&pid, "SYSLOG_IDENTIFIER=websockify"], "listening on");
}

/// D2: `--journald` without a journald, or with a socket that is dead: the log goes to standard error, and says so once. A
/// syslog server that cannot be reached either is said, too (U7).
#[test]
fn d2_without_journald_the_log_goes_to_standard_error() {
    let Some(mut journal) = Journal::prepare() else { return };
    let service = echo_service();
    for _round in ["no socket", "a dead socket"] {
        let port = free_port();
        let arguments = format!("--journald --syslog=/nowhere/log {port} {}", service.target());
        let mut websockify = journal.websockify(&arguments, |_| {});
        websockify.wait_until_open();
        websockify.assert_logged(&["cannot reach journald"], 1);
        websockify.assert_logged(&["cannot reach syslog at /nowhere/log"], 1);
        Client::connect(port).close();
        websockify.wait_for_log(&["session ended"]);
        assert_eq!(websockify.stop(), 0);
        journal.start_journald();
        journal.stop_journald();
    }
}

/// D2: a journald that is restarted is found again; meanwhile nothing is held up.
#[test]
fn d2_a_journald_that_is_restarted_is_found_again() {
    let Some(mut journal) = Journal::start() else { return };
    let (service, port) = (echo_service(), free_port());
    let mut websockify =
        journal.websockify(&format!("--journald {port} {}", service.target()), |_| {});
    journal.wait_for(&["SYSLOG_IDENTIFIER=websockify"], "listening on");
    journal.stop_journald();
    Client::connect(port).close();
    journal.start_journald();
    let mut client = Client::connect(port);
    client.send("hello");
    client.read(5);
    client.close();
    let ended = journal.wait_for(&["WEBSOCKIFY_SESSION=2"], "session ended");
    assert_eq!(text(&ended, "WEBSOCKIFY_RECEIVED"), "5");
    assert_eq!(websockify.stop(), 0);
}

/// L6, W11: journald hung: no session is held up, and not our end; what had no room is counted, and the others are not
/// lost.
#[test]
fn w11_a_journald_that_hangs_holds_up_nobody() {
    let Some(journal) = Journal::start() else { return };
    let (service, port) = (echo_service(), free_port());
    let arguments = format!("--journald {port} {}", service.target());
    let mut websockify = journal.websockify(&arguments, |_| {});
    journal.wait_for(&["SYSLOG_IDENTIFIER=websockify"], "listening on");
    let before = Footprint::at_rest(&websockify);
    journal.signal_journald(Signal::SIGSTOP);
    // Each session has two records with the longest path that the log takes: together more than can wait for journald.
    let sessions = 5000;
    let path = format!("/{}", "x".repeat(199));
    for _ in 0..sessions {
        assert_eq!(request(port, &path, &UPGRADE).0.status, 101);
    }
    let mut client = Client::connect(port);
    client.send("hello");
    assert_eq!(client.read(5), b"hello");
    client.close();

    journal.signal_journald(Signal::SIGCONT);
    let said = journal.wait_for(&["PRIORITY=4"], "records dropped: journald is slow");
    let message = text(&said, "MESSAGE");
    let dropped: usize = message.split(' ').next().unwrap().parse().unwrap();
    assert!(dropped > 0, "{message}");
    let path = format!("WEBSOCKIFY_PATH={path}");
    wait_until("all that was not dropped", || {
        let of_sessions =
            journal.records(&[&path]).len() + journal.records(&["WEBSOCKIFY_PATH=/"]).len();
        of_sessions + dropped == (sessions + 1) * 2
    });
    before.wait_until_back(&websockify);

    journal.signal_journald(Signal::SIGSTOP);
    for _ in 0..500 {
        request(port, "/", &UPGRADE);
    }
    assert_eq!(websockify.stop(), 0);
    assert_eq!(websockify.err.text(), "");
    // journald does not answer when websockify starts, either.
    let mut websockify = journal.websockify(&arguments, |_| {});
    Client::connect_once_open(port).close();
    assert_eq!(websockify.stop(), 0);
    journal.signal_journald(Signal::SIGCONT);
}

/// W11: under `ignore` the daemon's output is the journal's stream, which does not end with websockify.
#[test]
fn w11_a_daemon_that_outlives_us_writes_to_the_journal() {
    let Some(journal) = Journal::start() else { return };
    let directory = tempfile::TempDir::new().unwrap();
    let go = directory.path().join("go");
    let port = free_port();
    let script = format!(
        "setsid sh -c 'while ! [ -e {0} ]; do sleep 0.02; done; echo from the daemon' & \
         exec {Actor} bind {port} listen fork-exit 0 serve",
        go.display()
    );
    let arguments = format!("--journald --wrap-mode=ignore {port}");
    let mut websockify = journal.websockify(&arguments, |command| {
        command.args(["--", "sh", "-c", &script]);
    });
    Client::connect_once_open(port).read_line();
    journal.wait_for(&["SYSLOG_IDENTIFIER=websockify"], "daemonized");
    let left: Vec<Process> = websockify.tree();
    assert_eq!(websockify.stop(), 0);
    assert!(left.iter().any(Process::is_alive));
    std::fs::write(go, "").unwrap();
    journal.wait_for(&["SYSLOG_IDENTIFIER=sh"], "from the daemon");
}

/// D2: what one telnet session leaves in the journal, for a person to read.
#[test]
fn d2_a_telnet_session_in_the_journal() {
    if !needs(&["in.telnetd"]) {
        return;
    }
    let Some(journal) = Journal::start() else { return };
    let port = free_port();
    let arguments = format!("--journald --wrap-mode=respawn {port} -- in.telnetd -debug {port}");
    let mut websockify = journal.websockify(&arguments, |_| {});
    let mut client = Client::connect_once_open(port);
    assert!(!client.read(3).is_empty());
    assert_eq!(client.close().code, 1000);
    journal.wait_for(&["WEBSOCKIFY_CLIENT=127.0.0.1"], "session ended");
    let mut journalctl = journal.inside("journalctl");
    journalctl.args(["--directory=/run/log/journal", "--no-pager", "-t", "websockify"]);
    let shown = text_of(&journalctl.output().unwrap().stdout);
    for part in ["program started", "listening on", "session started", "session ended"] {
        assert!(shown.contains(part), "no {part:?} in {shown}");
    }
    let pid = websockify.pid();
    assert!(shown.contains(&format!("websockify[{pid}]: ")), "{shown}");
    println!("{shown}");
    assert_eq!(websockify.stop(), 0);
    assert_eq!(websockify.err.text(), "");
}

/// U4, D2: under inetd, standard error is the client's connection.
#[test]
fn u4_the_journal_has_what_is_not_for_a_client() {
    let Some(journal) = Journal::start() else { return };
    for (line, status, message) in [
        ("localhost:9", 0, "proxying from inetd to localhost:9"),
        ("--web=/nowhere a:1", 1, "cannot serve files from /nowhere"),
        ("80 a:1", 2, "unexpected argument 'a:1'"),
    ] {
        let (client, connection) = UnixStream::pair().unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut shell = journal.inside("sh");
        shell.args(["-c", &format!("exec {WEBSOCKIFY} --inetd {line} >&0 2>&0")]);
        let mut websockify = Websockify::launch_with(OwnedFd::from(connection), &mut shell);
        drop(shell);
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut said = String::new();
        (&client).read_to_string(&mut said).unwrap();
        assert_eq!((websockify.wait(), &*said), (status, ""), "{line}");
        journal.wait_for(&["SYSLOG_IDENTIFIER=websockify"], message);
    }
}

/// W11: where journald hangs and its queue of connections is full, the program is started all the same, and its output is
/// lost, with one warning. The next instance has a stream again, which makes it wait, as a program expects.
#[test]
fn w11_a_journald_that_accepts_no_stream_holds_up_no_start() {
    let Some(journal) = Journal::prepare() else { return };
    let at = |name: &str| run_of(&journal.holder).join("systemd/journal").join(name);
    let records = UnixDatagram::bind(at("socket")).unwrap();
    records.set_read_timeout(Some(DEADLINE)).unwrap();
    let streams = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    streams.bind(&SockAddr::unix(at("stdout")).unwrap()).unwrap();
    streams.listen(0).unwrap();
    streams.set_read_timeout(Some(DEADLINE)).unwrap();
    let first = UnixStream::connect(at("stdout")).unwrap();

    let port = free_port();
    let arguments = format!("--journald --wrap-mode=respawn {port} -- {Actor}");
    let mut websockify = journal.websockify(&arguments, |command| {
        command.args(format!("bind {port} listen accept greet echo").split(' '));
    });
    let next = || {
        let mut record = [0; 4096];
        let length = uninterrupted(|| records.recv(&mut record)).expect("a record in time");
        text_of(&record[..length])
    };
    let warning = "cannot log the program's output: journald accepts no connection";
    while !next().contains(warning) {}
    while !next().contains("program started") {}
    let mut client = Client::connect_once_open(port);
    client.read_line();

    drop((streams.accept().unwrap(), first));
    client.close();
    let mut stream = UnixStream::from(OwnedFd::from(streams.accept().unwrap().0));
    let mut head = [0; 5];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"actor");
    let mut client = Client::connect(port);
    client.read_line();
    let [program] = &websockify.tree()[..] else { panic!("the actor alone") };
    let info = std::fs::read_to_string(format!("/proc/{}/fdinfo/1", program.pid)).unwrap();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:\t")).unwrap();
    assert_eq!(i32::from_str_radix(flags, 8).unwrap() & nix::libc::O_NONBLOCK, 0, "{info}");
    assert_eq!(websockify.stop(), 0);
}
