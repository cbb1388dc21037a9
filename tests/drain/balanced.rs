//! Two websockifys behind a load balancer, one of which is stopped (O1): no client is refused, and no session is cut
//! off.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use tempfile::TempDir;

use super::{LONG, assert_echoes};
use crate::proxies::{Proxy, nginx_of};
use crate::support::{Client, Service, Websockify, echo, free_port, needs, wait_until};
use nix::sys::signal::Signal;

/// How many clients come, four at a time, before one websockify is stopped, and how many after that.
const CLIENTS: usize = 60;

/// A websockify whose target sends its name first, and then echoes. It serves pages, so that a health check by HTTP
/// succeeds.
fn named(name: &'static str, pages: &Path) -> (Websockify, u16) {
    let target = Service::new(move |mut stream| {
        let _ = std::io::Write::write_all(&mut stream, name.as_bytes());
        echo(stream);
    });
    let port = free_port();
    let websockify =
        Websockify::start(&format!("{port} {} {LONG} --web={}", target.target(), pages.display()));
    websockify.wait_until_open();
    (websockify, port)
}

/// Clients of `port`, until `enough`: each must get a session, and an echo.
fn visit(port: u16, enough: &AtomicBool, served: &AtomicUsize) {
    while !enough.load(Ordering::Relaxed) {
        let mut client = Client::connect(port);
        client.read(1);
        assert_echoes(&mut client);
        assert_eq!(client.close().code, 1000);
        served.fetch_add(1, Ordering::Relaxed);
    }
}

/// Stops one of the two behind `port` while clients come, and asserts that none of them notices.
fn assert_nobody_notices(port: u16, mut one: Websockify, other: &Websockify) {
    let mut kept: Vec<_> = (0..6).map(|_| Client::connect(port)).collect();
    let mut of_one = 0;
    for client in &mut kept {
        of_one += usize::from(client.read(1) == b"a");
        assert_echoes(client);
    }
    assert!((1..6).contains(&of_one), "{of_one} of 6 are the first one's");
    let (enough, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let visitors: Vec<_> = (0..4)
        .map(|_| {
            let (enough, served) = (Arc::clone(&enough), Arc::clone(&served));
            thread::spawn(move || visit(port, &enough, &served))
        })
        .collect();
    let come = |number| {
        let before = served.load(Ordering::Relaxed);
        wait_until("clients", || {
            served.load(Ordering::Relaxed) >= before + number
                || visitors.iter().any(thread::JoinHandle::is_finished)
        });
    };
    come(CLIENTS);
    one.signal(Signal::SIGTERM);
    one.wait_for_log(&["INFO draining: "]);
    let others = || other.logged(&["session started"]).len();
    let before = others();
    come(CLIENTS);
    assert!(others() > before, "they are served by the other one");
    enough.store(true, Ordering::Relaxed);
    for visitor in visitors {
        visitor.join().expect("each client has had its session");
    }
    kept.iter_mut().for_each(assert_echoes);
    assert!(one.is_running());
    for client in kept {
        assert_eq!(client.close().code, 1000);
    }
    assert_eq!(one.wait(), 0);
}

fn haproxy(directory: &Path, [one, other]: [u16; 2], check: &str) -> (Proxy, u16) {
    let port = free_port();
    // The health check has a long timeout: on a busy machine HAProxy must not give up the other server, too. A
    // request that one server refuses is tried at the next; a server that drains answers 503.
    let text = format!(
        "global\n\
         defaults\n mode http\n timeout connect 5s\n timeout check 10s\n timeout client 20s\n timeout server 20s\n \
         timeout tunnel 1h\n retries 3\n option redispatch 1\n retry-on conn-failure empty-response 503\n\
         listen bridge\n bind 127.0.0.1:{port}\n balance roundrobin\n {check}\n \
         server a 127.0.0.1:{one} check inter 500ms fall 2 rise 1\n \
         server b 127.0.0.1:{other} check inter 500ms fall 2 rise 1\n"
    );
    let configuration = directory.join("haproxy.cfg");
    fs::write(&configuration, text).unwrap();
    let proxy = Proxy::start(Command::new("haproxy").arg("-db").arg("-f").arg(&configuration));
    wait_until("haproxy listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    (proxy, port)
}

#[test]
fn o1_behind_haproxy_nobody_notices() {
    if !needs(&["haproxy"]) {
        return;
    }
    for check in ["option httpchk", "option tcp-check"] {
        let directory = TempDir::new().unwrap();
        let ((one, a), (other, b)) = (named("a", directory.path()), named("b", directory.path()));
        let (_haproxy, port) = haproxy(directory.path(), [a, b], check);
        assert_nobody_notices(port, one, &other);
    }
}

fn nginx(directory: &Path, [one, other]: [u16; 2]) -> (Proxy, u16) {
    let port = free_port();
    let http = format!(
        "upstream bridges {{ server 127.0.0.1:{one}; server 127.0.0.1:{other}; }}\n\
         server {{ listen 127.0.0.1:{port};\n\
         location / {{ proxy_pass http://bridges;\n\
         proxy_http_version 1.1;\nproxy_read_timeout 1h;\n\
         proxy_set_header Upgrade $http_upgrade;\nproxy_set_header Connection upgrade;\n\
         proxy_next_upstream error timeout http_503; }} }}\n"
    );
    (nginx_of(directory, port, &http), port)
}

#[test]
fn o1_behind_nginx_nobody_notices() {
    if !needs(&["nginx"]) {
        return;
    }
    let directory = TempDir::new().unwrap();
    let ((one, a), (other, b)) = (named("a", directory.path()), named("b", directory.path()));
    let (_nginx, port) = nginx(directory.path(), [a, b]);
    assert_nobody_notices(port, one, &other);
}
