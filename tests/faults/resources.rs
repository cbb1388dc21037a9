//! What a machine may have none of any more: room on a disk, descriptors, processes, memory.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::signal::Signal;
use nix::unistd::geteuid;

use crate::service::systemd::Manager;
use crate::support::{
    Actor, Client, Disk, Footprint, MemoryLimit, Refusal, SERVERS, WEBSOCKIFY, Websockify,
    copy_program, echo_service, free_port, needs_root, refuse, text_of, wait_for, wait_until,
    write_script,
};
use crate::wrap::Notes;

/// Somebody whose processes nobody else counts.
const SOMEBODY: u32 = 61_998;

fn exchange(client: &mut Client) {
    client.send("hello");
    assert_eq!(client.read(5), b"hello");
}

/// Changes how much a websockify may have, which takes no right for whom it belongs to; gives how much it could have
/// before. The resource is as prlimit(1) calls it.
fn limit(websockify: &Websockify, resource: &str, most: &str) -> String {
    let owner = fs::metadata(format!("/proc/{}", websockify.pid())).unwrap();
    let prlimit = |option: &str| {
        let mut command = Command::new("prlimit");
        if owner.uid() != geteuid().as_raw() {
            command.uid(owner.uid()).gid(owner.gid());
        }
        command.args(["--raw", "--noheadings", "--output=SOFT", option, "--pid"]);
        let output = command.arg(websockify.pid().to_string()).output().unwrap();
        assert!(output.status.success(), "{}", text_of(&output.stderr));
        text_of(&output.stdout).trim().to_owned()
    };
    let before = prlimit(&format!("--{resource}"));
    prlimit(&format!("--{resource}={most}:"));
    before
}

/// The lowest number that no descriptor of this websockify has.
fn first_free(websockify: &Websockify) -> u64 {
    let open =
        |number: &u64| fs::exists(format!("/proc/{}/fd/{number}", websockify.pid())).unwrap();
    (0..1024).find(|number| !open(number)).unwrap()
}

/// L6, D3: disk of the log full: sessions go on; the lines that are lost are counted, in the first one that has room again.
#[test]
fn l6_a_full_disk_of_the_log_holds_up_no_session() {
    let Some(disk) = Disk::new() else { return };
    let (log, service, port) = (disk.path().join("log"), echo_service(), free_port());
    let line = format!("--log-file={} {port} {}", log.display(), service.target());
    let mut websockify = Websockify::start(&line);
    let session = || {
        let mut client = Client::connect_once_open(port);
        exchange(&mut client);
        client.close();
    };
    session();
    let before = Footprint::at_rest(&websockify);
    let full = disk.fill();
    (0..100).for_each(|_| session());
    fs::remove_file(full).unwrap();
    wait_until("the count of what is lost", || {
        session();
        let text = fs::read_to_string(&log).unwrap();
        text.contains("lines lost: cannot write to the log file: no space left on device")
    });
    before.wait_until_back(&websockify);
    assert_eq!(websockify.stop(), 0);
}

/// L6, L1: out of descriptors: accepting pauses, and one line says so; who is connected notices nothing, and who waits is
/// served as soon as there is one.
#[test]
fn l6_without_descriptors_accepting_pauses_and_goes_on() {
    let (service, port) = (echo_service(), free_port());
    let mut websockify = Websockify::start(&format!("{port} {}", service.target()));
    let mut client = Client::connect_once_open(port);
    exchange(&mut client);
    let before = Footprint::at_rest(&websockify);
    let could = limit(&websockify, "nofile", &first_free(&websockify).to_string());
    let waiting = thread::spawn(move || {
        let mut client = Client::connect(port);
        exchange(&mut client);
        client.close().code
    });
    websockify.wait_for_log(&["WARN", "cannot accept connections for now: too many open files"]);
    exchange(&mut client);
    assert!(!waiting.is_finished());
    limit(&websockify, "nofile", &could);
    assert_eq!(waiting.join().unwrap(), 1000);
    websockify.assert_logged(&["cannot accept connections"], 1);
    exchange(&mut client);
    before.wait_until_back(&websockify);
    assert_eq!(websockify.stop(), 0);
}

/// L6, D4: out of descriptors: systemd's watchdog is fed all the same, so that the service is not killed for it.
#[test]
fn l6_without_descriptors_the_watchdog_is_fed() {
    let (manager, service, port) = (Manager::new(), echo_service(), free_port());
    let mut websockify = manager.start(&format!("{port} {}", service.target()), |command| {
        command.env("WATCHDOG_USEC", "500000");
    });
    manager.until("READY=1");
    let before = Footprint::at_rest(&websockify);
    let could = limit(&websockify, "nofile", &first_free(&websockify).to_string());
    let began = Instant::now();
    // What was sent before the limit has come long before two seconds are over.
    while began.elapsed() < Duration::from_secs(2) {
        manager.until("WATCHDOG=1");
    }
    limit(&websockify, "nofile", &could);
    before.wait_until_back(&websockify);
    assert_eq!(websockify.stop(), 0);
    assert_eq!(websockify.warnings(), Vec::<String>::new());
}

/// L6, W9: out of descriptors: a program whose processes cannot be seen gets its SIGTERM as soon as they can be.
#[test]
fn l6_w9_without_descriptors_a_program_is_told_to_end_when_it_is_seen_again() {
    let (notes, port) = (Notes::new(), free_port());
    let farewell = notes.note("farewell");
    let mut websockify = Websockify::start(&format!(
        "{port} --stop-timeout=300 -- {Actor} bind {port} listen on-term {farewell} serve"
    ));
    websockify.wait_until_open();
    // These are open for as long as it runs, so it can open nothing, whatever it closes.
    let could = limit(&websockify, "nofile", "3");
    websockify.signal(Signal::SIGTERM);
    websockify.wait_for_log(&["cannot see the program's processes", "too many open files"]);
    limit(&websockify, "nofile", &could);
    assert_eq!(websockify.wait(), 0);
    assert!(fs::exists(&farewell).unwrap(), "it had the time to end by itself");
    assert_eq!(websockify.remnants(), []);
}

/// L6, F20: out of descriptors: a daemon that is left running keeps the library, also where nobody sees that it runs.
#[test]
fn l6_f20_without_descriptors_the_library_of_a_daemon_stays() {
    let (notes, port) = (Notes::new(), free_port());
    let line = format!(
        "--wrap-mode=ignore --rebind-engine=preload {port} -- {Actor} bind {port} listen fork-exit 0 serve"
    );
    let mut websockify = Websockify::start_with(&line, |command| {
        command.env("TMPDIR", notes.path());
    });
    Client::connect_once_open(port).read_line();
    websockify.wait_for_log(&["daemonized"]);
    limit(&websockify, "nofile", "3");
    assert_eq!(websockify.stop(), 0);
    let [daemon] = &websockify.remnants()[..] else { panic!("no daemon was left") };
    assert!(fs::exists(daemon.variable("LD_PRELOAD")).unwrap());
}

/// A websockify that is not ours. The built one may lie where nobody else may look.
fn of_somebody(notes: &Notes, arguments: &str) -> Websockify {
    let websockify = notes.note("websockify");
    copy_program(WEBSOCKIFY, &websockify);
    let mut command = Command::new(websockify);
    command.args(arguments.split_whitespace()).uid(SOMEBODY).gid(SOMEBODY).current_dir("/");
    // What a panic prints would need all of what is known of the program for debuggers, in memory that stays.
    command.env("RUST_BACKTRACE", "0");
    Websockify::launch(&mut command)
}

/// L6, W7: out of processes: a program that has ended cannot be started again: that is said, and tried again, ever later; its
/// clients are held, and served when it is there.
#[test]
fn l6_without_processes_a_program_is_tried_again() {
    if !needs_root() {
        return;
    }
    let (notes, port) = (Notes::new(), free_port());
    let program = notes.note("program");
    copy_program(Actor, &program);
    let line = format!("{port} --wrap-mode=respawn -- {program} bind {port} listen serve");
    let mut websockify = of_somebody(&notes, &line);
    Client::connect_once_open(port).read_line();
    let before = Footprint::at_rest(&websockify);
    let could = limit(&websockify, "nproc", "1");
    websockify.leader().signal(Signal::SIGKILL);
    websockify.wait_for_log(&["cannot start program", "resource temporarily unavailable"]);
    let held = thread::spawn(move || Client::connect(port).read_line());
    websockify.wait_for_log(&["respawning too fast", "next start in 400ms"]);
    assert!(!held.is_finished());
    limit(&websockify, "nproc", &could);
    held.join().unwrap();
    websockify.nth_start(2);
    before.wait_until_back(&websockify);
    assert_eq!(websockify.stop(), 0);
    assert_eq!(websockify.remnants(), []);
}

/// The threads that were needed for something end when they have had nothing to do for ten seconds.
fn wait_for_no_idle_thread(websockify: &Websockify) {
    let workers = thread::available_parallelism().unwrap().get();
    wait_until("no thread but those of sessions", || {
        let tasks = fs::read_dir(format!("/proc/{}/task", websockify.pid())).unwrap().flatten();
        let names = tasks.map(|task| fs::read_to_string(task.path().join("comm")));
        names.flatten().filter(|name| name == "tokio-rt-worker\n").count() <= workers
    });
}

/// L6, C4: out of processes: a start with too few threads for the runtime fails with one line, and nothing hangs.
#[test]
fn l6_without_threads_for_the_runtime_the_start_fails_in_one_line() {
    // Nobody else has this user, so it is known how many processes it has.
    const LONER: u32 = 64_023;
    if !needs_root() {
        return;
    }
    let notes = Notes::new();
    let program = notes.note("websockify");
    copy_program(WEBSOCKIFY, &program);
    let workers = u64::try_from(thread::available_parallelism().unwrap().get()).unwrap();
    // A start takes two threads beside the workers, the main thread and that of the log: one less is too few.
    for most in 1..workers + 2 {
        let mut command = Command::new("prlimit");
        command.arg(format!("--nproc={most}")).arg(&program).args(["127.0.0.1:0", "127.0.0.1:9"]);
        command.uid(LONER).gid(LONER).current_dir("/");
        let output = Websockify::launch(&mut command).output();
        assert_eq!((output.status, output.err.len()), (1, 1), "{most}: {output:?}");
        let line = output.err[0].to_lowercase();
        assert!(line.contains("cannot start "), "{most}: {output:?}");
        assert!(line.contains("resource temporarily unavailable"), "{most}: {output:?}");
    }
}

/// L6, B6: out of processes: a name that cannot be looked up for want of a thread is a 1011, and looked up again for the next
/// client.
#[test]
fn l6_without_threads_a_name_is_looked_up_for_the_next_client() {
    if !needs_root() {
        return;
    }
    let (notes, port, service) = (Notes::new(), free_port(), echo_service());
    let websockify = of_somebody(&notes, &format!("{port} localhost:{}", service.address.port()));
    websockify.wait_until_open();
    let session = || {
        let mut client = Client::connect(port);
        exchange(&mut client);
        assert_eq!(client.close().code, 1000);
    };
    session();
    wait_for_no_idle_thread(&websockify);
    let could = limit(&websockify, "nproc", "1");
    let before = Footprint::at_rest(&websockify);
    assert_eq!(Client::connect(port).closing().code, 1011);
    before.wait_until_back(&websockify);
    limit(&websockify, "nproc", &could);
    (0..3).for_each(|_| session());
    before.wait_until_back(&websockify);
}

/// L6, T5, U9: out of processes: neither SIGHUP nor the end of a helper, which both take a thread, ends websockify; the
/// certificates are reloaded as soon as there can be one.
#[test]
fn l6_t5_without_threads_a_reload_waits() {
    if !needs_root() {
        return;
    }
    let (notes, port, service) = (Notes::new(), free_port(), echo_service());
    let (pem, helper) = (notes.note("self.pem"), notes.note("helper"));
    fs::write(&pem, SERVERS.issue("localhost").pem()).unwrap();
    let script = r#"#!/bin/sh
while read -r line; do
    number=${line#*'"id":'}
    echo "{\"id\":${number%%,*},\"host\":\"127.0.0.1\",\"port\":SERVED}"
done
"#;
    write_script(&helper, &script.replace("SERVED", &service.address.port().to_string()));
    let line = format!("{port} --cert={pem} --token-plugin=Helper --token-source={helper}");
    let mut websockify = of_somebody(&notes, &line);
    websockify.wait_until_open();
    let session = || {
        let path = "/?token=any";
        wait_for("a session", || Client::dial_path((Ipv4Addr::LOCALHOST, port).into(), path).ok())
    };
    let mut client = session();
    exchange(&mut client);
    wait_for_no_idle_thread(&websockify);
    let before = Footprint::at_rest(&websockify);
    let could = limit(&websockify, "nproc", "1");
    websockify.signal(Signal::SIGHUP);
    websockify.wait_for_log(&["cannot read the certificates yet: no thread can be started"]);
    exchange(&mut client);
    websockify.tree().iter().for_each(|helper| helper.signal(Signal::SIGKILL));
    websockify.wait_for_log(&["cannot start helper", "resource temporarily unavailable"]);
    exchange(&mut client);
    limit(&websockify, "nproc", &could);
    websockify.wait_for_log(&["certificates are reloaded"]);
    exchange(&mut session());
    exchange(&mut client);
    before.wait_until_back(&websockify);
    assert_eq!(websockify.stop(), 0);
    assert_eq!(websockify.remnants(), []);
}

/// L6: out of memory: in a control group's limit the kernel kills the program, which is the larger; websockify lives, and
/// starts it again for the next client.
#[test]
fn l6_without_memory_the_program_is_killed_and_started_again() {
    let Some(group) = MemoryLimit::new(96 << 20) else { return };
    let port = free_port();
    let mut websockify = group.start(&format!(
        "{port} --wrap-mode=respawn -- {Actor} bind {port} listen accept greet read-line devour"
    ));
    websockify.wait_until_open();
    let before = Footprint::at_rest(&websockify);
    for nth in 1..=3 {
        let mut client = Client::connect(port);
        client.read_line();
        client.send("now\n");
        client.closing();
        websockify.nth_start(nth + 1);
        websockify.assert_logged(&["first process has ended", "status 137"], nth);
    }
    before.wait_until_back(&websockify);
    assert_eq!(websockify.stop(), 0);
}

/// As glibc's fork(3) calls clone(2): with these flags, and never for a thread.
const FORK: u32 =
    (libc::CLONE_CHILD_CLEARTID | libc::CLONE_CHILD_SETTID | libc::SIGCHLD).cast_unsigned();

/// L6, W8: fork failing: at the first start one line says so, the status is 126, and nothing is left.
#[test]
fn l6_a_fork_that_fails_at_the_start_is_told() {
    let port = free_port();
    for mode in ["exit", "respawn"] {
        let line = format!("{port} --wrap-mode={mode} -- {Actor} bind {port} listen serve");
        let refusal = || Refusal::of(libc::SYS_clone, libc::ENOMEM).where_is(0, FORK);
        let websockify = Websockify::start_with(&line, |command| refuse(command, &[refusal()]));
        let output = websockify.output();
        assert_eq!(output.status, 126, "{output:?}");
        let told = output.err.iter().filter(|line| line.contains("cannot start program"));
        let told: Vec<_> = told.collect();
        assert!(matches!(told[..], [one] if one.contains("cannot allocate memory")), "{output:?}");
    }
}
