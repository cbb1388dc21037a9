//! A hand-over (O2) after root was given up (W16): the new binary runs as the same user, has no right that was given up,
//! and has the same launcher.

mod refused;

use std::fs::{self, Permissions};
use std::io::{Read, pipe};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use rustix::fs::{OFlags, XattrFlags, fcntl_setfl, setxattr};

use super::apart::launcher;
use super::{NOBODY, Place, Rights, WWW_DATA, assert_stops, engines, low_port, of_threads, rights};
use crate::hand_over::FAULT;
use crate::support::{
    Caller, Client, Process, SERVERS, WEBSOCKIFY, Websockify, can_copy_sockets, compile,
    copy_program, echo_service, free_port, needs, needs_root, skip_even_in_ci, wait_for,
    wait_until,
};

const BOTH: &str = "--user=nobody --program-user=www-data --rebind-engine=preload";

/// A websockify that has changed its user, started from its own copy of the binary.
struct Stage {
    websockify: Websockify,
    place: Place,
}

/// A place with a binary and an actor that every user may execute.
fn place() -> Place {
    let place = Place::new();
    copy_program(WEBSOCKIFY, place.at("websockify"));
    fs::set_permissions(place.at("websockify"), Permissions::from_mode(0o755)).unwrap();
    place.actor();
    place
}

impl Stage {
    fn start(line: &str) -> Self {
        Self::start_with(line, |_| {})
    }

    /// With these arguments, in which `ACTOR` stands for the actor's path.
    fn start_with(line: &str, prepare: impl FnOnce(&mut Command)) -> Self {
        Self::start_in(place(), line, prepare)
    }

    fn start_in(place: Place, line: &str, prepare: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(place.at("websockify"));
        let line = line.replace("ACTOR", &place.named("actor"));
        command.args(line.split_whitespace()).current_dir(place.0.path());
        prepare(&mut command);
        let websockify = Websockify::launch(&mut command);
        websockify.wait_until_open();
        Self { websockify, place }
    }

    fn binary(&self) -> PathBuf {
        self.place.at("websockify")
    }

    /// Makes a hand-over, and waits until the new binary has taken over.
    fn hand_over(&self) {
        let taken = || self.websockify.logged(&["INFO taken over: "]).len();
        let before = taken();
        self.websockify.signal(Signal::SIGUSR2);
        wait_until("another image", || taken() == before + 1);
    }

    /// Puts another file in the binary's place, as an upgrade does.
    fn replace(&self, make: impl FnOnce(&Path)) {
        let new = self.place.at("websockify.new");
        make(&new);
        fs::rename(new, self.binary()).unwrap();
    }

    /// Checks that no thread has more rights than the user, and that no other process of the user can read its memory.
    fn assert_is(&self, user: u32, groups: &str) {
        for thread in of_threads(self.websockify.pid()) {
            thread.assert_of(user, groups);
        }
        assert_closed(self.websockify.pid());
    }

    fn assert_sealed(&self) {
        of_threads(self.websockify.pid()).iter().for_each(Rights::assert_sealed);
    }
}

/// Checks that no other process of the same user can read its memory: it is not dumpable, and then its files in /proc
/// belong to root (proc(5)).
fn assert_closed(pid: i32) {
    assert_eq!(owner(pid), 0, "it can be dumped");
}

fn owner(pid: i32) -> u32 {
    fs::metadata(format!("/proc/{pid}/environ")).unwrap().uid()
}

/// After exec(2) a program of the same user could read the new binary's memory. So the new binary first of all makes itself
/// not dumpable, in its trial too. Where websockify never was root, it is dumpable again after the hand-over, as before it.
#[test]
fn o2_w16_another_image_is_closed_before_it_has_anything() {
    if !needs_root() || !needs(&["setpriv"]) {
        return;
    }
    let place = place();
    let as_user = |arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=33", "--regid=33", "--clear-groups", &place.named("websockify")]);
        command.args(arguments).current_dir(place.0.path());
        command
    };
    // The pipe is full, so that the trial waits when it writes its answer.
    let (answer, said) = pipe().unwrap();
    fcntl_setfl(&said, OFlags::NONBLOCK).unwrap();
    while rustix::io::write(&said, &[0; 4096]).is_ok() {}
    fcntl_setfl(&said, OFlags::empty()).unwrap();
    let mut tried = as_user(&["--hand-over-trial"]).stdout(said).spawn().unwrap();
    let pid = i32::try_from(tried.id()).unwrap();
    wait_until("its beginning", || Process::find(pid).is_some_and(|it| it.name == "websockify"));
    wait_until("its memory is closed", || owner(pid) == 0);
    drop(answer);
    tried.wait().unwrap();
    let (service, port) = (echo_service(), free_port());
    let websockify = Websockify::launch(&mut as_user(&[&port.to_string(), &service.target()]));
    websockify.wait_until_open();
    assert_eq!(owner(websockify.pid()), WWW_DATA);
    websockify.signal(Signal::SIGUSR2);
    websockify.wait_for_log(&["INFO taken over: "]);
    assert_eq!(owner(websockify.pid()), WWW_DATA);
    assert_stops(websockify);
}

/// A session with the program, after its greeting.
fn session(port: u16) -> Client {
    let mut client = Client::connect_once_open(port);
    client.read_line();
    echo(&mut client);
    client
}

fn echo(client: &mut Client) {
    client.send("hello");
    assert_eq!(client.read(5), b"hello");
}

/// How many Unix sockets of the launcher's type (`SOCK_SEQPACKET`) a process has open.
fn seqpacket_sockets(process: &Process) -> usize {
    let table = fs::read_to_string("/proc/net/unix").unwrap();
    let fields = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    // Number, users, protocol, flags, type, state, inode.
    let packets: Vec<String> = fields
        .filter(|fields| fields.get(4) == Some(&"0005"))
        .map(|fields| format!("socket:[{}]", fields[6]))
        .collect();
    open_files(process).iter().filter(|file| packets.contains(file)).count()
}

fn open_files(process: &Process) -> Vec<String> {
    let files = fs::read_dir(format!("/proc/{}/fd", process.pid)).unwrap();
    let links = files.filter_map(|file| fs::read_link(file.unwrap().path()).ok());
    links.map(|link| link.to_str().unwrap().to_owned()).collect()
}

/// With a user that has a name, and with one that has a number only.
#[test]
fn o2_w16_the_user_stays_and_no_right_comes_back() {
    if !needs_root() {
        return;
    }
    for (typed, user, groups) in [("nobody", NOBODY, "65534"), ("4242:4242", 4242, "4242")] {
        let (service, port) = (echo_service(), low_port());
        let stage = Stage::start(&format!("--user={typed} {port} {}", service.target()));
        let mut client = Client::connect_once_open(port);
        for _ in 0..3 {
            echo(&mut client);
            stage.hand_over();
            echo(&mut client);
            stage.assert_is(user, groups);
            stage.assert_sealed();
        }
        assert_eq!(client.close().code, 1000);
        assert_eq!(stage.websockify.warnings(), Vec::<String>::new());
        assert_stops(stage.websockify);
    }
}

/// Files in a directory of the user can be opened again after a hand-over, and are removed at the end.
#[test]
fn o2_w16_files_in_the_users_directory_stay_his() {
    if !needs_root() {
        return;
    }
    let (service, place) = (echo_service(), place());
    let run = place.directory_of(NOBODY, "run", 0o755);
    let at = |name: &str| run.join(name);
    let mut command = Command::new(place.at("websockify"));
    command.current_dir(&run).args(["--user=nobody", "--pid-file=pid", "--log-file=log"]);
    command.args(["--unix-listen=socket", "--admin=unix:admin", &service.target()]);
    let websockify = Websockify::launch(&mut command);
    websockify.wait_until_open();
    let mut client = Client::at(&at("socket")).unwrap();
    for nth in 1..=2 {
        websockify.signal(Signal::SIGUSR2);
        wait_until("another image", || websockify.logged(&["INFO taken over: 1 "]).len() == nth);
        echo(&mut client);
        for name in ["pid", "log", "socket", "admin"] {
            assert_eq!(fs::metadata(at(name)).unwrap().uid(), NOBODY, "{name}");
        }
    }
    fs::rename(at("log"), at("log.1")).unwrap();
    websockify.signal(Signal::SIGHUP);
    wait_until("a new log", || at("log").exists());
    client.close();
    let mut next = Client::at(&at("socket")).unwrap();
    echo(&mut next);
    next.close();
    assert_eq!(websockify.logged(&[" WARN user nobody "]), Vec::<String>::new());
    assert_stops(websockify);
    for name in ["pid", "socket", "admin"] {
        assert!(!at(name).exists(), "{name}");
    }
}

/// Under both engines.
#[test]
fn o2_w16_the_users_program_goes_on_and_is_started_again() {
    if !needs_root() {
        return;
    }
    for engine in engines() {
        if engine == "seccomp" && !can_copy_sockets() {
            continue;
        }
        let port = low_port();
        let stage = Stage::start(&format!(
            "{port} --user=www-data --rebind-engine={engine} --wrap-mode=respawn -- ACTOR bind {port} listen serve"
        ));
        let mut client = session(port);
        for nth in 1..=2 {
            let leader = stage.websockify.nth_leader(nth);
            stage.hand_over();
            echo(&mut client);
            stage.assert_is(WWW_DATA, "33");
            leader.signal(Signal::SIGKILL);
            let next = stage.websockify.nth_leader(nth + 1);
            rights(&next).assert_of(WWW_DATA, "33");
            assert_eq!(next.variable("HOME"), "/var/www");
            client = session(port);
        }
        assert_stops(stage.websockify);
    }
}

/// With `--program-user` alone websockify stays root, and so does the new binary.
#[test]
fn o2_w16_a_root_that_stays_goes_on_to_start_the_program_as_its_user() {
    if !needs_root() {
        return;
    }
    let port = low_port();
    let stage = Stage::start(&format!(
        "{port} --program-user=www-data --rebind-engine=preload --wrap-mode=respawn -- ACTOR bind {port} listen serve"
    ));
    let mut client = session(port);
    stage.hand_over();
    echo(&mut client);
    for thread in of_threads(stage.websockify.pid()) {
        assert_eq!(thread.is("Uid"), "0 0 0 0");
    }
    stage.websockify.leader().signal(Signal::SIGKILL);
    rights(&stage.websockify.nth_leader(2)).assert_of(WWW_DATA, "33");
    session(port);
    assert_stops(stage.websockify);
}

#[test]
fn o2_w16_the_launcher_stays_and_starts_the_program_again() {
    if !needs_root() {
        return;
    }
    let port = low_port();
    let stage = Stage::start(&format!(
        "{port} {BOTH} --wrap-mode=respawn -- ACTOR bind {port} listen serve"
    ));
    let mut client = session(port);
    let launcher = launcher(&stage.websockify);
    for nth in 1..=3 {
        let leader = stage.websockify.nth_leader(nth);
        stage.hand_over();
        echo(&mut client);
        stage.assert_is(NOBODY, "65534");
        stage.assert_sealed();
        assert!(leader.is_alive() && launcher.is_alive());
        leader.signal(Signal::SIGKILL);
        let next = stage.websockify.nth_leader(nth + 1);
        rights(&next).assert_of(WWW_DATA, "33");
        rights(&next).assert_open();
        assert_eq!(next.stat().ppid, stage.websockify.pid(), "it is websockify's child");
        client = session(port);
    }
    rights(&launcher).assert_of(WWW_DATA, "33");
    assert_closed(launcher.pid);
    assert_eq!(launcher.proc().fd().unwrap().count(), 4);
    let ours = Process::find(stage.websockify.pid()).unwrap();
    assert_eq!(seqpacket_sockets(&ours), 1);
    assert_eq!(stage.websockify.warnings(), Vec::<String>::new());
    assert_stops(stage.websockify);
}

/// W9: a program of another user is killed by the launcher, which the old binary has started.
#[test]
fn o2_w16_a_program_that_does_not_end_is_killed_afterwards() {
    if !needs_root() {
        return;
    }
    let port = free_port();
    let mut stage = Stage::start(&format!(
        "{port} {BOTH} --stop-timeout=0.2 -v -- ACTOR ignore-term bind {port} listen helper serve"
    ));
    session(port);
    stage.hand_over();
    stage.websockify.signal(Signal::SIGTERM);
    stage.websockify.wait_for_log(&["SIGKILL to"]);
    assert_eq!(stage.websockify.wait(), 0);
    assert_eq!(stage.websockify.logged(&["cannot send"]), Vec::<String>::new());
    wait_until("the end of all", || stage.websockify.remnants().is_empty());
}

/// W10: only websockify has its end of the launcher's socket. The forked copy of the old process that carries the TLS
/// sessions does not have it.
#[test]
fn o2_w16_the_program_is_told_of_our_death_afterwards() {
    if !needs_root() {
        return;
    }
    let (place, port) = (place(), free_port());
    place.open_to(0, 0o1777);
    let (note, pem) = (place.named("told"), place.at("self.pem"));
    fs::write(&pem, SERVERS.issue("localhost").pem()).unwrap();
    fs::set_permissions(&pem, Permissions::from_mode(0o644)).unwrap();
    let line =
        format!("{port} {BOTH} --cert=self.pem -- ACTOR on-term {note} bind {port} listen serve");
    let mut stage = Stage::start_in(place, &line, |_| {});
    let mut encrypted = Caller::anonymous().session(port, &[]).unwrap();
    let launcher = launcher(&stage.websockify);
    stage.hand_over();
    let is_rest = |process: &Process| process.name.starts_with("websockify-rest");
    let rest =
        wait_for("the rest", || stage.websockify.tree().into_iter().find(|one| is_rest(one)));
    wait_until("its descriptors alone", || seqpacket_sockets(&rest) == 0);
    rights(&rest).assert_of(NOBODY, "65534");
    rights(&rest).assert_sealed();
    assert_closed(rest.pid);
    // The greeting, in a frame of less than 126 bytes.
    let mut head = [0; 2];
    encrypted.0.read_exact(&mut head).unwrap();
    encrypted.0.read_exact(&mut vec![0; head[1].into()]).unwrap();
    encrypted.exchange(b"hello");
    // A stopped process closes nothing: if the copy had the socket, the launcher would not see that websockify has ended.
    rest.signal(Signal::SIGSTOP);
    stage.websockify.signal(Signal::SIGKILL);
    assert_eq!(stage.websockify.wait(), 128 + 9);
    wait_until("the note", || fs::read_to_string(&note).is_ok_and(|note| !note.is_empty()));
    wait_until("the launcher's end", || !launcher.is_alive());
    rest.signal(Signal::SIGCONT);
    wait_until("the end of all", || stage.websockify.remnants().is_empty());
}

/// A new binary has none of websockify's file descriptors in its trial, although it runs as the same user.
#[test]
fn o2_w16_a_program_that_is_tried_has_nothing_of_ours() {
    if !needs_root() {
        return;
    }
    let port = free_port();
    let stage = Stage::start(&format!("{port} {BOTH} -- ACTOR bind {port} listen serve"));
    session(port);
    let source = stage.place.at("program.c");
    fs::write(&source, "#include <unistd.h>\nint main(void) { for (;;) pause(); }").unwrap();
    let compiled = compile(source.to_str().unwrap(), "pauses", &[]);
    stage.replace(|new| copy_program(compiled, new));
    stage.websockify.signal(Signal::SIGUSR2);
    let is_tried = |process: &Process| {
        fs::read_link(format!("/proc/{}/exe", process.pid)).is_ok_and(|exe| exe == stage.binary())
    };
    let tried =
        wait_for("the trial", || stage.websockify.tree().into_iter().find(|one| is_tried(one)));
    assert_eq!(open_files(&tried).len(), 3, "{:?}", open_files(&tried));
    rights(&tried).assert_of(NOBODY, "65534");
    rights(&tried).assert_sealed();
    stage.websockify.wait_for_log(&["cannot hand over", "no answer within 5 s"]);
    assert_stops(stage.websockify);
}

/// After a failed hand-over, the old binary has the launcher again, and the program that it has started.
#[test]
fn o2_w16_who_comes_back_has_the_launcher_still() {
    if !needs_root() {
        return;
    }
    for fault in ["crash", "late"] {
        let (place, port) = (place(), free_port());
        let library = place.named("fault.so");
        copy_program(&*FAULT, &library);
        fs::set_permissions(&library, Permissions::from_mode(0o755)).unwrap();
        let line = format!("{port} {BOTH} --wrap-mode=respawn -- ACTOR bind {port} listen serve");
        let stage = Stage::start_in(place, &line, |command| {
            command.env("LD_PRELOAD", &library).env("FAULT", fault);
        });
        let mut client = session(port);
        let launcher = launcher(&stage.websockify);
        for nth in 1..=2 {
            stage.websockify.signal(Signal::SIGUSR2);
            let backs = || stage.websockify.logged(&["WARN cannot hand over to ", "SIGSEGV"]);
            wait_until("the image before", || backs().len() == nth);
            echo(&mut client);
            stage.assert_is(NOBODY, "65534");
            stage.assert_sealed();
            assert!(launcher.is_alive());
            stage.websockify.nth_leader(nth).signal(Signal::SIGKILL);
            rights(&stage.websockify.nth_leader(nth + 1)).assert_of(WWW_DATA, "33");
            client = session(port);
        }
        assert_stops(stage.websockify);
    }
}

/// The program can kill the launcher, because both run as the same user. The new binary finds that the launcher has ended,
/// and says so when it needs it.
#[test]
fn o2_w16_a_launcher_that_was_killed_before_is_named() {
    if !needs_root() {
        return;
    }
    let port = free_port();
    let line = format!("{port} {BOTH} --wrap-mode=respawn -- ACTOR bind {port} listen serve");
    let mut stage = Stage::start(&line);
    session(port);
    let launcher = launcher(&stage.websockify);
    launcher.signal(Signal::SIGKILL);
    wait_until("its end", || !launcher.is_alive());
    stage.hand_over();
    session(port);
    stage.websockify.leader().signal(Signal::SIGKILL);
    assert_eq!(stage.websockify.wait(), 1);
    stage.websockify.assert_logged(&["ERROR cannot start program", "the launcher", "has ended"], 1);
}

/// Capabilities that the file of the new binary gives (capabilities(7)) are given up again, where `no_new_privs` is not
/// set so that setuid programs still work.
#[test]
fn o2_w16_capabilities_of_the_new_programs_file_are_given_up() {
    if !needs_root() {
        return;
    }
    let port = free_port();
    let stage = Stage::start(&format!(
        "{port} --user=nobody --rebind-engine=preload --wrap-mode=respawn -- ACTOR bind {port} listen serve"
    ));
    let mut client = session(port);
    // Version 2, effective; CAP_CHOWN, CAP_SETUID and CAP_NET_BIND_SERVICE permitted (linux/capability.h).
    let words: [u32; 5] = [0x0200_0001, 1 | 1 << 7 | 1 << 10, 0, 0, 0];
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let given = setxattr(stage.binary(), "security.capability", &bytes, XattrFlags::empty());
    if given.is_err() {
        return skip_even_in_ci("files have no capabilities here");
    }
    for nth in 1..=2 {
        stage.hand_over();
        echo(&mut client);
        stage.assert_is(NOBODY, "65534");
        stage.websockify.nth_leader(nth).signal(Signal::SIGKILL);
        rights(&stage.websockify.nth_leader(nth + 1)).assert_of(NOBODY, "65534");
        client = session(port);
    }
    assert_stops(stage.websockify);
}
