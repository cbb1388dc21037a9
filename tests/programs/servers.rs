//! Servers that go to the background or do not: each is started, recognised, respawned when it is
//! killed, and gone in the end (R6, W5, W6, W9).

use std::fs::{self, Permissions};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::support::{
    Actor, Client, Process, Websockify, free_port, has_ipv6, is_refused, listeners_of, needs,
};

/// Whether the program's first process is the server, or leaves a daemon and ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Foreground,
    Background,
}

use Place::{Background, Foreground};

/// A program to wrap.
struct Server<'a> {
    place: Place,
    /// Gives its command line for a port, and may write files for it into the directory.
    command: &'a dyn Fn(u16, &Path) -> String,
    /// A session, from its beginning to its end.
    visit: fn(Client),
}

/// A port and a directory for one run.
struct Stage {
    directory: TempDir,
    port: u16,
}

impl Stage {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        // The mode of /tmp: some servers change their user.
        fs::set_permissions(&directory, Permissions::from_mode(0o1777)).unwrap();
        Self { directory, port: free_port() }
    }

    fn start(&self, server: &Server, mode: &str) -> Websockify {
        let command = (server.command)(self.port, self.directory.path());
        let arguments = format!("{} --wrap-mode={mode} -- {command}", self.port);
        Websockify::start_with(&arguments, |program| {
            program.current_dir(&self.directory).env("HOME", self.directory.path());
        })
    }
}

impl Server<'_> {
    fn lives_and_dies(&self) {
        self.is_respawned_and_stopped();
        if self.place == Background {
            self.is_stopped_under_exit();
            self.is_left_running_under_ignore();
        }
    }

    fn is_respawned_and_stopped(&self) {
        let stage = Stage::new();
        let mut websockify = stage.start(self, "respawn");
        (self.visit)(Client::connect_once_open(stage.port));
        websockify.assert_alone_on(stage.port);
        if self.place == Background {
            websockify.wait_for_log(&["program has daemonized as"]);
        }
        // If websockify took the program for ended, it would start another instance at once, as this one has served a session.
        websockify.assert_one_instance_for(Duration::from_millis(500));
        assert_eq!(websockify.logged(&["has daemonized"]).is_empty(), self.place == Foreground);
        kill(&websockify);
        websockify.nth_start(2);
        (self.visit)(Client::connect_once_open(stage.port));
        websockify.assert_alone_on(stage.port);
        let mut warnings = websockify.warnings();
        // On a busy machine some servers take longer than ten seconds.
        warnings.retain(|line| !line.contains("does not listen on port"));
        assert_eq!(warnings, Vec::<String>::new());
        assert_eq!(websockify.stop(), 0);
        assert_eq!(websockify.remnants(), [], "left behind");
        assert!(is_refused(Ipv4Addr::LOCALHOST, stage.port));
    }

    fn is_stopped_under_exit(&self) {
        let stage = Stage::new();
        let mut websockify = stage.start(self, "exit");
        assert_eq!(websockify.wait(), 0);
        websockify.wait_for_log(&["daemonized", "--wrap-mode=ignore"]);
        assert_eq!(websockify.remnants(), [], "left behind");
    }

    fn is_left_running_under_ignore(&self) {
        let stage = Stage::new();
        let mut websockify = stage.start(self, "ignore");
        (self.visit)(Client::connect_once_open(stage.port));
        websockify.wait_for_log(&["has daemonized"]);
        let daemons = listening(&websockify);
        assert_eq!(websockify.stop(), 0);
        websockify.wait_for_log(&["left running"]);
        assert!(!daemons.is_empty() && daemons.iter().all(Process::is_alive));
    }
}

/// The processes below websockify that listen.
pub(super) fn listening(websockify: &Websockify) -> Vec<Process> {
    let tree = websockify.tree().into_iter();
    tree.filter(|process| !listeners_of(std::slice::from_ref(process)).is_empty()).collect()
}

/// Kills the processes that listen. All are stopped first, so that none can fork another one in between.
pub(super) fn kill(websockify: &Websockify) {
    let mut stopped = Vec::new();
    while let Some(process) = listening(websockify).into_iter().find(|it| !stopped.contains(it)) {
        process.signal(Signal::SIGSTOP);
        stopped.push(process);
    }
    assert!(!stopped.is_empty());
    for process in &stopped {
        process.signal(Signal::SIGKILL);
    }
}

/// Asks for a page, and gets one.
pub(super) fn visit_web(mut client: Client) {
    client.send("GET / HTTP/1.0\r\n\r\n");
    let closing = client.closing();
    let answer = String::from_utf8_lossy(&closing.bytes);
    assert!(answer.starts_with("HTTP/1.") && answer.contains(" 200 "), "{answer}");
    assert_eq!(closing.code, 1000);
}

fn visit_redis(mut client: Client) {
    client.send("PING\r\n");
    assert_eq!(client.read_line(), "+PONG");
    assert_eq!(client.close().code, 1000);
}

pub(super) fn visit_echo(mut client: Client) {
    client.send("hello\n");
    client.read_until("hello\n");
    assert_eq!(client.close().code, 1000);
}

fn redis(daemonize: &str, port: u16, directory: &Path) -> String {
    let configuration = directory.join("redis.conf");
    let text = format!(
        "port {port}\nbind * -::*\nprotected-mode no\ndaemonize {daemonize}\nsave \"\"\n\
         dir {0}\npidfile {0}/pid\nlogfile {0}/log\n",
        directory.display()
    );
    fs::write(&configuration, text).unwrap();
    format!("redis-server {}", configuration.display())
}

#[test]
fn r6_redis_in_the_foreground() {
    if needs(&["redis-server"]) {
        let command = &|port, directory: &Path| redis("no", port, directory);
        Server { place: Foreground, command, visit: visit_redis }.lives_and_dies();
    }
}

#[test]
fn r6_redis_in_the_background() {
    if needs(&["redis-server"]) {
        let command = &|port, directory: &Path| redis("yes", port, directory);
        Server { place: Background, command, visit: visit_redis }.lives_and_dies();
    }
}

fn nginx(daemon: &str, port: u16, directory: &Path) -> String {
    let configuration = directory.join("nginx.conf");
    let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {}/{kind};\n", directory.display()));
    let text = format!(
        "daemon {daemon};\npid {0}/pid;\nerror_log {0}/error;\nworker_processes 2;\n\
         events {{ worker_connections 64; }}\n\
         http {{ access_log off;\n{1}server {{ listen {port}; listen [::]:{port};\n\
         location / {{ return 200 'hello'; }} }} }}\n",
        directory.display(),
        paths.concat()
    );
    fs::write(&configuration, text).unwrap();
    let error = directory.join("error");
    format!("nginx -e {} -c {}", error.display(), configuration.display())
}

#[test]
fn r6_nginx_in_the_foreground() {
    if needs(&["nginx"]) {
        let command = &|port, directory: &Path| nginx("off", port, directory);
        Server { place: Foreground, command, visit: visit_web }.lives_and_dies();
    }
}

#[test]
fn r6_nginx_in_the_background() {
    if needs(&["nginx"]) {
        let command = &|port, directory: &Path| nginx("on", port, directory);
        Server { place: Background, command, visit: visit_web }.lives_and_dies();
    }
}

#[test]
fn r6_python_on_ipv4_and_ipv6() {
    if needs(&["python3"]) {
        for bind in ["", "--bind ::", "--bind 127.0.0.1", "--bind ::1"] {
            if bind.contains("::1") && !has_ipv6() {
                continue;
            }
            let command = &|port, _: &Path| format!("python3 -m http.server {port} {bind}");
            Server { place: Foreground, command, visit: visit_web }.lives_and_dies();
        }
    }
}

#[test]
fn r6_node() {
    if needs(&["node"]) {
        let command = &|port, directory: &Path| {
            let script = directory.join("server.js");
            let text = format!(
                "require('http').createServer((_, reply) => reply.end('hello')).listen({port})"
            );
            fs::write(&script, text).unwrap();
            format!("node {}", script.display())
        };
        Server { place: Foreground, command, visit: visit_web }.lives_and_dies();
    }
}

#[test]
fn r6_socat_on_ipv6() {
    if needs(&["socat"]) {
        let command = &|port, _: &Path| format!("socat TCP6-LISTEN:{port},fork,reuseaddr PIPE");
        Server { place: Foreground, command, visit: visit_echo }.lives_and_dies();
    }
}

fn busybox_httpd(foreground: &str, port: u16, directory: &Path) -> String {
    fs::write(directory.join("index.html"), "hello").unwrap();
    format!("busybox httpd {foreground} -p {port} -h {}", directory.display())
}

/// Debian's busybox, which is a dynamic one, has no telnetd.
#[test]
fn r6_busybox_in_the_foreground() {
    if needs(&["busybox"]) {
        let command = &|port, directory: &Path| busybox_httpd("-f", port, directory);
        Server { place: Foreground, command, visit: visit_web }.lives_and_dies();
    }
}

#[test]
fn r6_busybox_in_the_background() {
    if needs(&["busybox"]) {
        let command = &|port, directory: &Path| busybox_httpd("", port, directory);
        Server { place: Background, command, visit: visit_web }.lives_and_dies();
    }
}

/// A hand-written double fork that closes every descriptor and drops to `nobody`.
#[test]
fn r6_a_daemon_by_the_book() {
    let command = &|port, _: &Path| {
        format!(
            "{Actor} fork-exit 0 setsid fork-exit 0 close-all nobody clear-environment \
             bind-dual {port} listen serve"
        )
    };
    Server { place: Background, command, visit: visit_echo }.lives_and_dies();
}
