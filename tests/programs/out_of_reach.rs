//! Programs that no library can be loaded into (W14): under the engine `auto` in each mode, on each address, and as an
//! ordinary user; and once under each of the other two engines.

use std::fs::{self, Permissions};
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use nix::unistd::geteuid;

use super::servers::{Place, kill, listening, visit_echo, visit_web};
use crate::support::{
    Actor, Client, Process, WEBSOCKIFY, Websockify, copy_program, free_port, has_ipv6, is_refused,
    musl_actor, needs, needs_copied_sockets, needs_root, skip_even_in_ci, static_actor, text_of,
    write_script,
};
use crate::wrap::Notes;

const MOVED: &str = "its port is moved by --rebind-engine=seccomp";

/// How a server is told where to listen.
const HOSTS: [&str; 3] = ["", "127.0.0.1", "[::1]"];

/// A program to wrap.
struct Program<'a> {
    place: Place,
    /// Why it is out of reach, as the log says it.
    cause: &'a str,
    /// Its command line for one of [`HOSTS`] and a port.
    command: &'a dyn Fn(&str, u16) -> String,
    /// A session, from its beginning to its end.
    visit: fn(Client),
    /// Whether an ordinary user can have it wrapped.
    is_for_all: bool,
}

/// One way to wrap it.
#[derive(Debug, Clone, Copy)]
struct Way {
    engine: &'static str,
    mode: &'static str,
    host: &'static str,
    as_nobody: bool,
}

impl Program<'_> {
    /// Wraps this program in every way, one after the other.
    fn is_wrapped_in_every_way(&self, notes: &Notes) {
        for mode in ["exit", "ignore", "respawn"] {
            for host in HOSTS.into_iter().filter(|host| *host != "[::1]" || has_ipv6()) {
                self.is_wrapped(notes, Way { engine: "auto", mode, host, as_nobody: false });
            }
            if self.is_for_all && geteuid().is_root() {
                self.is_wrapped(notes, Way { engine: "auto", mode, host: "", as_nobody: true });
            }
        }
        let way = Way { engine: "seccomp", mode: "exit", host: "", as_nobody: false };
        self.is_wrapped(notes, way);
        self.is_named_under_preload();
    }

    fn is_wrapped(&self, notes: &Notes, way: Way) {
        let port = free_port();
        let mut websockify = self.start(notes, port, way);
        if (self.place, way.mode) == (Place::Background, "exit") {
            assert_eq!(websockify.wait(), 0, "{way:?}");
            websockify.wait_for_log(&["daemonized", "--wrap-mode=ignore"]);
            assert_eq!(websockify.remnants(), [], "{way:?}");
            return;
        }
        (self.visit)(Client::connect_once_open(port));
        websockify.assert_alone_on(port);
        if way.mode == "respawn" {
            kill(&websockify);
            websockify.nth_start(2);
            (self.visit)(Client::connect_once_open(port));
            websockify.assert_alone_on(port);
        }
        let cause = if way.engine == "auto" { self.cause } else { "" };
        websockify.assert_logged(&[MOVED, cause], 1);
        if self.place == Place::Background && way.mode == "ignore" {
            websockify.wait_for_log(&["has daemonized"]);
            let daemons = listening(&websockify);
            assert_eq!(websockify.stop(), 0, "{way:?}");
            websockify.wait_for_log(&["left running"]);
            assert!(!daemons.is_empty() && daemons.iter().all(Process::is_alive), "{way:?}");
            return;
        }
        assert_eq!(websockify.warnings(), Vec::<String>::new(), "{way:?}");
        assert_eq!(websockify.stop(), 0, "{way:?}");
        assert_eq!(websockify.remnants(), [], "{way:?}");
        assert!(is_refused(Ipv4Addr::LOCALHOST, port), "{way:?}");
    }

    fn start(&self, notes: &Notes, port: u16, way: Way) -> Websockify {
        let ours = notes.note("websockify");
        if !Path::new(&ours).exists() {
            copy_program(WEBSOCKIFY, &ours);
        }
        let mut command = Command::new(if way.as_nobody { "setpriv" } else { &ours });
        if way.as_nobody {
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups", &ours]);
        }
        let Way { engine, mode, host, .. } = way;
        let program = (self.command)(host, port);
        let line = format!("{port} --rebind-engine={engine} --wrap-mode={mode} -- {program}");
        Websockify::launch(command.args(line.split_whitespace()))
    }

    /// Under the engine `preload`, which does not reach it: the port is not opened, and one line says why.
    fn is_named_under_preload(&self) {
        let port = free_port();
        let program = (self.command)("", port);
        let output =
            Websockify::start(&format!("{port} --rebind-engine=preload -- {program}")).output();
        let named = |line: &&String| line.contains("WARN") && line.contains(self.cause);
        assert_eq!(output.err.iter().filter(named).count(), 1, "{:?}", output.err);
        assert!(!output.err.iter().any(|line| line.contains("listening on")), "{:?}", output.err);
    }
}

/// Two servers in one program, which Go links statically, as for a container `FROM scratch`.
const GO: &str = r#"package main

import ("fmt"; "io"; "net"; "net/http"; "os"; "runtime")

func main() {
	address := os.Args[2]
	if os.Args[1] == "http" {
		http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello") })
		// From a thread that does not lead the process.
		runtime.LockOSThread()
		done := make(chan error)
		go func() { runtime.LockOSThread(); done <- http.ListenAndServe(address, nil) }()
		fmt.Println(<-done)
		os.Exit(1)
	}
	listener, err := net.Listen("tcp", address)
	if err != nil { fmt.Println(err); os.Exit(1) }
	for {
		session, err := listener.Accept()
		if err != nil { os.Exit(1) }
		go func() { io.Copy(session, session); session.Close() }()
	}
}
"#;

/// The Go program, built once for all tests. Go's cache is kept for the next test run, because Go compiles its library too.
static GO_SERVER: LazyLock<PathBuf> = LazyLock::new(|| {
    let notes = Notes::new();
    let source = notes.note("server.go");
    fs::write(&source, GO).unwrap();
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let unfinished = directory.join(format!("go-server-{}", std::process::id()));
    let mut build = Command::new("go");
    build.args(["build", "-trimpath", "-ldflags=-s -w", "-o"]).arg(&unfinished).arg(&source);
    build.env("CGO_ENABLED", "0").env("GO111MODULE", "off");
    build.env("GOCACHE", directory.join("go-cache")).env("HOME", notes.note("home"));
    let output = build.output().unwrap();
    assert!(output.status.success(), "{}", text_of(&output.stderr));
    let finished = directory.join("go-server");
    fs::rename(unfinished, &finished).unwrap();
    finished
});

/// A copy of the Go program that every user can execute; `None` where Go is not installed.
fn go_server(notes: &Notes) -> Option<String> {
    if !needs(&["go"]) {
        return None;
    }
    let program = notes.note("server");
    copy_program(&*GO_SERVER, &program);
    Some(program)
}

fn is_go_server_wrapped(kind: &str, visit: fn(Client)) {
    let notes = Notes::new();
    let Some(program) = go_server(&notes) else { return };
    let command = &|host: &str, port| format!("{program} {kind} {host}:{port}");
    let cause = "is a Go program";
    Program { place: Place::Foreground, cause, command, visit, is_for_all: true }
        .is_wrapped_in_every_way(&notes);
}

#[test]
fn w14_a_go_server_of_web_pages_is_wrapped_in_every_way() {
    if !needs_copied_sockets() {
        return;
    }
    is_go_server_wrapped("http", visit_web);
}

#[test]
fn w14_a_go_server_of_the_net_package_is_wrapped_in_every_way() {
    if !needs_copied_sockets() {
        return;
    }
    is_go_server_wrapped("net", visit_echo);
}

/// What the actor is told for one of [`HOSTS`].
fn bind(host: &str) -> &'static str {
    match host {
        "" => "bind-dual",
        "127.0.0.1" => "bind",
        _ => "bind-v6",
    }
}

/// W14: it forks twice and closes all descriptors.
#[test]
fn w14_a_static_daemon_of_musl_is_wrapped_in_every_way() {
    if !needs_copied_sockets() {
        return;
    }
    let notes = Notes::new();
    let program = notes.note("daemon");
    let musl = needs(&["musl-gcc"]).then(|| musl_actor("actor-musl-daemon", &["-static"]));
    copy_program(musl.as_deref().unwrap_or(Path::new(static_actor())), &program);
    let command = &|host: &str, port| {
        let bind = bind(host);
        format!("{program} fork-exit 0 setsid fork-exit 0 close-all {bind} {port} listen serve")
    };
    let cause = "is statically linked";
    Program { place: Place::Background, cause, command, visit: visit_echo, is_for_all: true }
        .is_wrapped_in_every_way(&notes);
}

/// Debian's static busybox, which has more commands than its dynamic one; `None` where it is not installed.
fn static_busybox(notes: &Notes) -> Option<String> {
    if !needs(&["busybox-static"]) {
        return None;
    }
    let path = std::env::var_os("PATH").unwrap();
    let mut found = std::env::split_paths(&path).map(|place| place.join("busybox-static"));
    let program = notes.note("busybox-static");
    copy_program(found.find(|path| path.is_file()).unwrap(), &program);
    Some(program)
}

/// Each server of busybox goes to the background, unless the option `foreground` tells it not to.
fn is_busybox_wrapped(
    foreground: &str,
    command: &dyn Fn(&str, &str, u16) -> String,
    visit: fn(Client),
    notes: &Notes,
) {
    let cause = "is statically linked";
    for (place, option) in [(Place::Foreground, foreground), (Place::Background, "")] {
        let command = &|host: &str, port| command(host, option, port);
        Program { place, cause, command, visit, is_for_all: true }.is_wrapped_in_every_way(notes);
    }
}

#[test]
fn w14_r6_a_static_busybox_httpd_is_wrapped_in_every_way() {
    if !needs_copied_sockets() {
        return;
    }
    let notes = Notes::new();
    let Some(busybox) = static_busybox(&notes) else { return };
    let pages = notes.note("pages");
    fs::create_dir(&pages).unwrap();
    fs::write(Path::new(&pages).join("index.html"), "hello").unwrap();
    let command = |host: &str, option: &str, port: u16| {
        let host = if host.is_empty() { String::new() } else { format!("{host}:") };
        format!("{busybox} httpd {option} -p {host}{port} -h {pages}")
    };
    is_busybox_wrapped("-f", &command, visit_web, &notes);
}

#[test]
fn w14_r6_a_static_busybox_telnetd_is_wrapped_in_every_way() {
    if !needs_copied_sockets() {
        return;
    }
    let notes = Notes::new();
    let Some(busybox) = static_busybox(&notes) else { return };
    let login = notes.note("login");
    write_script(&login, "#!/bin/sh\necho who is there\nread name\n");
    let command = |host: &str, option: &str, port: u16| {
        let host = if host.is_empty() { String::new() } else { format!("-b {host}") };
        format!("{busybox} telnetd {option} {host} -p {port} -l {login}")
    };
    let visit = |mut client: Client| {
        client.read_until("who is there");
        assert_eq!(client.close().code, 1000);
    };
    is_busybox_wrapped("-F", &command, visit, &notes);
}

/// W14: the interpreter of a script is recognised as static, and all programs that it starts are reached.
#[test]
fn w14_a_script_that_a_static_shell_runs_is_wrapped() {
    if !needs_copied_sockets() {
        return;
    }
    let notes = Notes::new();
    let Some(busybox) = static_busybox(&notes) else { return };
    let (port, script) = (free_port(), notes.note("script"));
    write_script(&script, &format!("#!{busybox} sh\n{Actor} bind {port} listen serve\n"));
    let mut websockify = Websockify::start_auto(&format!("{port} -- {script}"));
    visit_echo(Client::connect_once_open(port));
    websockify.assert_alone_on(port);
    websockify.wait_for_log(&[MOVED, &busybox, "which is statically linked"]);
    assert_eq!(websockify.stop(), 0);
}

/// W14, as root: the file's setuid bit changes the user. The program may be linked dynamically or statically.
#[test]
fn w14_a_setuid_program_is_wrapped_in_every_way() {
    if !needs_copied_sockets() || !needs_root() {
        return;
    }
    for original in [Actor.as_ref(), Path::new(static_actor())] {
        let notes = Notes::new();
        let program = notes.note("program");
        copy_program(original, &program);
        chown(&program, Some(65534), Some(65534)).unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o4755)).unwrap();
        let is_static = original == Path::new(static_actor());
        let cause = if is_static { "is statically linked" } else { "is setuid or setgid" };
        let command = &|host: &str, port| format!("{program} {} {port} listen serve", bind(host));
        Program { place: Place::Foreground, cause, command, visit: visit_echo, is_for_all: false }
            .is_wrapped_in_every_way(&notes);
    }
}

/// A script that makes a root directory with websockify, the libraries that it is linked to, and the program; then it
/// becomes websockify there.
const SCRATCH: &str = r#"
set -e
root=$1 ours=$2 program=$3
shift 3
mkdir -p "$root/proc" "$root/dev"
for file in $(ldd "$ours" | grep -o '/[^ ]*'); do mkdir -p "$root${file%/*}"; cp -L "$file" "$root$file"; done
cp "$ours" "$root/websockify"
cp "$program" "$root/server"
mount -t proc proc "$root/proc"
: >"$root/dev/null"
mount --bind /dev/null "$root/dev/null"
exec chroot "$@"
"#;

/// W14: as in a container `FROM scratch`, without a shell and without a place for files.
#[test]
fn w14_a_go_server_is_wrapped_in_a_root_directory_with_nothing_else() {
    if !needs_copied_sockets() || !needs_root() || !needs(&["unshare", "mount", "chroot", "ldd"]) {
        return;
    }
    let notes = Notes::new();
    let Some(program) = go_server(&notes) else { return };
    let root = notes.note("root");
    fs::create_dir(&root).unwrap();
    if !Command::new("unshare").args(["-m", "true"]).status().unwrap().success() {
        skip_even_in_ci("no mounts of our own here");
        return;
    }
    for who in ["0:0", "65534:65534"] {
        let port = free_port();
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", SCRATCH, "sh", &root, WEBSOCKIFY, &program]);
        command.args([&format!("--userspec={who}"), &root, "/websockify"]);
        let line = format!("{port} --wrap-mode=respawn -- /server http :{port}");
        let mut websockify = Websockify::launch(command.args(line.split(' ')));
        visit_web(Client::connect_once_open(port));
        websockify.assert_alone_on(port);
        kill(&websockify);
        websockify.nth_start(2);
        visit_web(Client::connect_once_open(port));
        websockify.assert_logged(&[MOVED, "is a Go program"], 1);
        assert_eq!(websockify.warnings(), Vec::<String>::new(), "{who}");
        assert_eq!(websockify.stop(), 0, "{who}");
        assert_eq!(websockify.remnants(), [], "{who}");
    }
}
