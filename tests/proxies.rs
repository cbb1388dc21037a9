//! Reverse proxies from Debian's packages in front of websockify (A3–A5).

mod by_hand;
mod fail2ban;
mod limits;
mod whose;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::support::{
    Client, UPGRADE, Websockify, connect, echo_service, free_port, needs, read_to_end, request,
    text_of, wait_until,
};

/// A proxy in the foreground, which is ended when this is dropped.
pub(crate) struct Proxy(Child);

impl Proxy {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Ends it by SIGTERM, as Apache has children to end.
        let pid = nix::unistd::Pid::from_raw(self.0.id().try_into().unwrap());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// An nginx that passes everything on to `to`, with these directives; and its port.
fn nginx(directory: &Path, to: u16, directives: &str) -> (Proxy, u16) {
    let port = free_port();
    let server = format!(
        "server {{ listen 127.0.0.1:{port};\n\
         location / {{ proxy_pass http://127.0.0.1:{to};\n{directives} }} }}\n"
    );
    (nginx_of(directory, port, &server), port)
}

/// An nginx with this in its block `http`, which has it listen on `port`.
pub(crate) fn nginx_of(directory: &Path, port: u16, http: &str) -> Proxy {
    let at = directory.display();
    let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {at}/{kind};\n"));
    let text = format!(
        "daemon off;\nmaster_process off;\npid {at}/pid;\nerror_log {at}/error;\n\
         events {{ worker_connections 256; }}\n\
         http {{ access_log off;\n{}{http} }}\n",
        paths.concat()
    );
    let configuration = directory.join("nginx.conf");
    fs::write(&configuration, text).unwrap();
    let mut command = Command::new("nginx");
    command.arg("-e").arg(directory.join("error")).arg("-c").arg(&configuration);
    let proxy = Proxy::start(&mut command);
    wait_until("nginx listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    proxy
}

fn websockify(options: &str) -> (Websockify, u16) {
    let port = free_port();
    let target = echo_service().target();
    let websockify = Websockify::start(&format!("{port} {target} {options}"));
    websockify.wait_until_open();
    (websockify, port)
}

/// F21: nginx before 1.29.7 speaks HTTP/1.0 to its servers, unless it is told otherwise.
#[test]
fn f21_nginx_that_speaks_http_1_0_carries_a_session() {
    if !needs(&["nginx"]) {
        return;
    }
    let directory = TempDir::new().unwrap();
    let (websockify, port) = websockify("");
    let directives = "proxy_http_version 1.0;\n\
        proxy_set_header Upgrade $http_upgrade;\nproxy_set_header Connection upgrade;";
    let (_nginx, port) = nginx(directory.path(), port, directives);
    let mut client = Client::connect(port);
    for piece in ["hello".to_owned(), "x".repeat(100_000), "bye".to_owned()] {
        client.send(&piece);
        assert!(client.read(piece.len()) == piece.as_bytes());
    }
    assert_eq!(client.close().code, 1000);
    websockify.wait_for_log(&["session ended", "code 1000"]);
}

/// F24: nginx drops `Upgrade` and `Connection` unless it is told to set them anew.
#[test]
fn f24_nginx_that_drops_upgrade_is_named() {
    if !needs(&["nginx"]) {
        return;
    }
    let directory = TempDir::new().unwrap();
    let (websockify, port) = websockify("");
    let (_nginx, port) = nginx(directory.path(), port, "");
    let head = [&UPGRADE[..], &["Origin: http://x"]].concat();
    let (answer, mut stream) = request(port, "/x", &head);
    assert_eq!(answer.status, 426);
    let said = "a proxy before us dropped `Upgrade: websocket` and `Connection: upgrade`";
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let body = text_of(&read_to_end(&mut stream));
    assert!(body.contains(said), "{body}");
    websockify.wait_for_log(&["INFO", "refused a handshake", said, "426 for \"/x\""]);
}

/// F34: a health check as HAProxy makes it.
#[test]
fn f34_haproxy_finds_us_well() {
    if !needs(&["haproxy"]) {
        return;
    }
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("page"), "a page").unwrap();
    let (_websockify, to) = websockify(&format!("--web={}", directory.path().display()));
    let (port, status) = (free_port(), free_port());
    let text = format!(
        "global\n\
         defaults\n mode http\n timeout connect 5s\n timeout client 5s\n timeout server 5s\n\
         listen bridge\n bind 127.0.0.1:{port}\n option httpchk\n \
         server one 127.0.0.1:{to} check inter 100ms fall 1 rise 1\n\
         frontend status\n bind 127.0.0.1:{status}\n stats enable\n stats uri /\n"
    );
    let configuration = directory.path().join("haproxy.cfg");
    fs::write(&configuration, text).unwrap();
    let _haproxy = Proxy::start(Command::new("haproxy").arg("-db").arg("-f").arg(&configuration));
    let csv = || {
        let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", status)) else {
            return String::new();
        };
        std::io::Write::write_all(&mut stream, b"GET /;csv HTTP/1.0\r\n\r\n").unwrap();
        text_of(&read_to_end(&mut stream))
    };
    // The table has the result of the last check: the layer and the status.
    wait_until("a check that is good", || csv().contains("L7OK,204"));
    let mut stream = connect(port);
    std::io::Write::write_all(&mut stream, b"GET /page HTTP/1.0\r\n\r\n").unwrap();
    let answer = text_of(&read_to_end(&mut stream));
    assert!(answer.starts_with("HTTP/1.") && answer.ends_with("a page"), "{answer}");
}
