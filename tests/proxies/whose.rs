//! The client of a connection that a real proxy has passed on (A3).

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::{Proxy, nginx, websockify};
use crate::support::{
    Caller, Client, SERVERS, UPGRADE, Websockify, ask, dial_from, free_port, has_ipv6, needs,
    read_to_end, skip, text_of, wait_until,
};

fn session(stream: TcpStream, port: u16) -> Client {
    Client::over(stream, (Ipv4Addr::LOCALHOST, port).into()).unwrap()
}

/// The status of the answer to a handshake with these headers besides.
pub(super) fn upgraded(stream: &mut TcpStream, headers: &[&str]) -> u16 {
    ask(stream, "/", &[&UPGRADE[..], headers].concat()).status
}

/// A HAProxy with this configuration, which has it listen on `port`.
pub(super) fn haproxy(directory: &Path, text: &str, port: u16) -> Proxy {
    let configuration = directory.join("haproxy.cfg");
    let defaults = "defaults\n timeout connect 5s\n timeout client 20s\n timeout server 20s\n";
    fs::write(&configuration, format!("global\n{defaults}{text}")).unwrap();
    let proxy = Proxy::start(Command::new("haproxy").arg("-db").arg("-f").arg(&configuration));
    wait_until("haproxy listens", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
    proxy
}

/// Checks that both records of this session name this client, and the proxy at 127.0.0.1.
fn assert_named(websockify: &Websockify, session: u32, client: &str) {
    for record in ["session started", "session ended"] {
        let line = websockify.wait_for_log(&[&format!("{record}: {session}, ")]);
        assert!(line.contains(&format!(": {session}, {client} via 127.0.0.1:")), "{line}");
    }
}

/// A3: in TCP mode, HAProxy names the client before its bytes; also where they are TLS.
#[test]
fn a3_haproxy_names_clients_by_proxy_headers() {
    if !needs(&["haproxy"]) {
        return;
    }
    let directory = TempDir::new().unwrap();
    let certificate = directory.path().join("self.pem");
    fs::write(&certificate, SERVERS.issue("localhost").pem()).unwrap();
    let (websockify, to) = websockify(&format!(
        "--trusted-proxy=127.0.0.1 --proxy-protocol --cert={}",
        certificate.display()
    ));
    let mut number = 0;
    for word in ["send-proxy", "send-proxy-v2", "send-proxy-v2-ssl-cn"] {
        let port = free_port();
        let v6 = if has_ipv6() { format!(" bind [::1]:{port}\n") } else { String::new() };
        let text = format!(
            "listen bridge\n mode tcp\n bind 127.0.0.1:{port}\n{v6} server one 127.0.0.1:{to} {word}\n"
        );
        let _haproxy = haproxy(directory.path(), &text, port);
        let mut streams = vec![dial_from([127, 0, 0, 7], port)];
        if has_ipv6() {
            streams.push(TcpStream::connect(("::1", port)).unwrap());
        }
        for stream in streams {
            let address = stream.local_addr().unwrap();
            let mut client = session(stream, port);
            client.send("hello");
            assert_eq!(client.read(5), b"hello");
            assert_eq!(client.close().code, 1000);
            number += 1;
            assert_named(&websockify, number, &address.to_string());
        }
        let mut caller = Caller::anonymous().call_over(dial_from([127, 0, 0, 8], port)).unwrap();
        assert_eq!(caller.upgrade(13, &[]), Ok(101));
        caller.exchange(b"hello");
        number += 1;
        let started = format!("session started: {number}, 127.0.0.8:");
        websockify.wait_for_log(&[&started, " via 127.0.0.1:", "tls 1.3"]);
    }
    assert_eq!(websockify.warnings(), Vec::<String>::new());
}

/// A3: HAProxy's health checks are good, begin no session and bring no warning, in both versions of the PROXY header. In
/// version 2 they are of no client.
#[test]
fn a3_haproxys_own_checks_are_no_client() {
    if !needs(&["haproxy"]) {
        return;
    }
    let directory = TempDir::new().unwrap();
    // In version 1 the checks name the proxy itself as the client.
    for (word, allowed) in [("send-proxy-v2", "127.0.0.7"), ("send-proxy", "127.0.0.0/29")] {
        let options = "--trusted-proxy=127.0.0.1 --proxy-protocol --max-connections-per-client=1";
        let web = directory.path().display();
        let (websockify, to) = websockify(&format!("{options} --allow-from={allowed} --web={web}"));
        let (port, status) = (free_port(), free_port());
        let text = format!(
            "listen bridge\n mode http\n bind 127.0.0.1:{port}\n option httpchk\n timeout check 10s\n \
             server one 127.0.0.1:{to} {word} check inter 100ms fall 9 rise 1\n\
             frontend status\n mode http\n bind 127.0.0.1:{status}\n stats enable\n stats uri /\n"
        );
        let _haproxy = haproxy(directory.path(), &text, port);
        let checked = || {
            let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, status)) else {
                return String::new();
            };
            stream.write_all(b"GET /;csv HTTP/1.0\r\n\r\n").unwrap();
            text_of(&read_to_end(&mut stream))
        };
        wait_until("a check that is good", || checked().contains("L7OK,204"));
        let client = session(dial_from([127, 0, 0, 7], port), port);
        assert_eq!(client.close().code, 1000);
        websockify.wait_for_log(&["session ended: 1, 127.0.0.7:", " via 127.0.0.1:"]);
        wait_until("a check that is good, still", || checked().contains("L7OK,204"));
        assert_eq!(websockify.warnings(), Vec::<String>::new());
    }
}

/// A3: in HTTP mode, HAProxy names the client by the headers of each request, as it is told to set them.
#[test]
fn a3_haproxy_names_clients_by_request_headers() {
    if !needs(&["haproxy"]) {
        return;
    }
    let directory = TempDir::new().unwrap();
    let (websockify, to) = websockify("--trusted-proxy=127.0.0.1");
    let mut number = 0;
    for (directive, has_port) in [
        ("http-request set-header X-Forwarded-For %[src]", false),
        ("http-request set-header X-Forwarded-For %[src]:%[src_port]", true),
        ("http-request set-header Forwarded for=\\\"%[src]:%[src_port]\\\";proto=http", true),
        ("http-request del-header X-Forwarded-For\n option forwardfor", false),
    ] {
        let port = free_port();
        let text = format!(
            "listen bridge\n mode http\n bind 127.0.0.1:{port}\n {directive}\n \
             server one 127.0.0.1:{to}\n"
        );
        let _haproxy = haproxy(directory.path(), &text, port);
        let mut stream = dial_from([127, 0, 0, 7], port);
        let address = stream.local_addr().unwrap();
        // HAProxy replaces the header that the client has sent.
        let headers: &[&str] = if directive.contains("Forwarded for") {
            &["Forwarded: for=198.51.100.1"]
        } else {
            &["X-Forwarded-For: 198.51.100.1"]
        };
        assert_eq!(upgraded(&mut stream, headers), 101, "{directive}");
        drop(stream);
        number += 1;
        let shown = if has_port { address.to_string() } else { address.ip().to_string() };
        assert_named(&websockify, number, &shown);
    }
    assert_eq!(websockify.warnings(), Vec::<String>::new());
}

/// A3: HAProxy's `option forwardfor` adds a line to the client's own. A client that has sent one is taken for the proxy,
/// and for no other client.
#[test]
fn a3_who_hides_behind_haproxy_is_taken_for_it() {
    if !needs(&["haproxy"]) {
        return;
    }
    let directory = TempDir::new().unwrap();
    let (websockify, to) = websockify("--trusted-proxy=127.0.0.1");
    let port = free_port();
    let text = format!(
        "listen bridge\n mode http\n bind 127.0.0.1:{port}\n option forwardfor\n \
         server one 127.0.0.1:{to}\n"
    );
    let _haproxy = haproxy(directory.path(), &text, port);
    assert_eq!(
        upgraded(&mut dial_from([127, 0, 0, 7], port), &["X-Forwarded-For: 198.51.100.1"]),
        101
    );
    let started = websockify.wait_for_log(&["session started: 1, 127.0.0.1:"]);
    assert!(!started.contains(" via "), "{started}");
    websockify.wait_for_log(&["WARN", "127.0.0.1: its request has X-Forwarded-For more than once"]);
    assert_eq!(upgraded(&mut dial_from([127, 0, 0, 7], port), &[]), 101);
    websockify.wait_for_log(&["session started: 2, 127.0.0.7 via 127.0.0.1:"]);
}

/// A3: nginx replaces the header that the client has sent, or adds the client to it, as it is told to.
#[test]
fn a3_nginx_names_clients_by_request_headers() {
    if !needs(&["nginx"]) {
        return;
    }
    let directory = TempDir::new().unwrap();
    let (websockify, to) = websockify("--trusted-proxy=127.0.0.0/30");
    let upgrade = "proxy_http_version 1.1;\nproxy_set_header Upgrade $http_upgrade;\n\
        proxy_set_header Connection $http_connection;\n";
    let mut number = 0;
    for (directive, header) in [
        ("proxy_set_header X-Forwarded-For $remote_addr;", "X-Forwarded-For: 198.51.100.1"),
        (
            "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
            "X-Forwarded-For: 198.51.100.1, <script>",
        ),
        ("proxy_set_header Forwarded \"for=$remote_addr\";", "Forwarded: for=198.51.100.1"),
    ] {
        let place = TempDir::new_in(directory.path()).unwrap();
        let (_nginx, port) = nginx(place.path(), to, &format!("{upgrade}{directive}"));
        for last in [7, 8] {
            let mut stream = dial_from([127, 0, 0, last], port);
            assert_eq!(upgraded(&mut stream, &[header]), 101, "{directive}");
            drop(stream);
            number += 1;
            assert_named(&websockify, number, &format!("127.0.0.{last}"));
        }
    }
    assert_eq!(websockify.warnings(), Vec::<String>::new());
}

/// A3: nginx's stream module has version 1 only, and passes TLS on.
#[test]
fn a3_nginx_names_clients_by_proxy_headers() {
    const MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";
    if !needs(&["nginx"]) {
        return;
    }
    if !Path::new(MODULE).exists() {
        return skip("nginx has no stream module");
    }
    let directory = TempDir::new().unwrap();
    let certificate = directory.path().join("self.pem");
    fs::write(&certificate, SERVERS.issue("localhost").pem()).unwrap();
    let (websockify, to) = websockify(&format!(
        "--trusted-proxy=127.0.0.1 --proxy-protocol --cert={}",
        certificate.display()
    ));
    let (port, at) = (free_port(), directory.path().display());
    let text = format!(
        "load_module {MODULE};\ndaemon off;\nmaster_process off;\npid {at}/pid;\n\
         error_log {at}/error;\nevents {{ worker_connections 64; }}\n\
         stream {{ server {{ listen 127.0.0.1:{port};\nproxy_pass 127.0.0.1:{to};\n\
         proxy_protocol on; }} }}\n"
    );
    let configuration = directory.path().join("nginx.conf");
    fs::write(&configuration, text).unwrap();
    let mut command = Command::new("nginx");
    command.arg("-e").arg(directory.path().join("error")).arg("-c").arg(&configuration);
    let _nginx = Proxy::start(&mut command);
    wait_until("nginx listens", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
    let stream = dial_from([127, 0, 0, 7], port);
    let address = stream.local_addr().unwrap();
    assert_eq!(session(stream, port).close().code, 1000);
    assert_named(&websockify, 1, &address.to_string());
    let mut caller = Caller::anonymous().call_over(dial_from([127, 0, 0, 8], port)).unwrap();
    assert_eq!(caller.upgrade(13, &[]), Ok(101));
    websockify.wait_for_log(&["session started: 2, 127.0.0.8:", " via 127.0.0.1:", "tls 1.3"]);
}

/// A3: Apache adds the client to the `X-Forwarded-For` that was sent, by itself.
#[test]
fn a3_apache_names_clients_by_request_headers() {
    if !needs(&["apache2"]) {
        return;
    }
    let directory = TempDir::new().unwrap();
    let (websockify, to) = websockify("--trusted-proxy=127.0.0.1");
    let (port, at) = (free_port(), directory.path().display());
    let modules = ["mpm_event", "authz_core", "proxy", "proxy_http"];
    let modules = modules
        .map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"));
    let text = format!(
        "ServerRoot {at}\nServerName localhost\nDefaultRuntimeDir {at}\nPidFile {at}/pid\n\
         ErrorLog {at}/error\n{}Listen 127.0.0.1:{port}\n\
         ProxyPass / http://127.0.0.1:{to}/ upgrade=websocket\n",
        modules.concat()
    );
    let configuration = directory.path().join("apache.conf");
    fs::write(&configuration, text).unwrap();
    let _apache =
        Proxy::start(Command::new("apache2").arg("-DFOREGROUND").arg("-f").arg(&configuration));
    wait_until("apache2 listens", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
    for (number, (last, headers)) in
        [(7, &[][..]), (8, &["X-Forwarded-For: 198.51.100.1"][..])].into_iter().enumerate()
    {
        let mut stream = dial_from([127, 0, 0, last], port);
        assert_eq!(upgraded(&mut stream, headers), 101);
        drop(stream);
        let number = u32::try_from(number + 1).unwrap();
        assert_named(&websockify, number, &format!("127.0.0.{last}"));
    }
    assert_eq!(websockify.warnings(), Vec::<String>::new());
}
