//! Whose a connection is that a proxy has passed on (A3): by real proxies, and by hand where those behave too well.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use super::{Proxy, nginx, websockify};
use crate::support::{
    Caller, Client, DEADLINE, SERVERS, Websockify, ask, connect, connect_unix, echo_service,
    free_port, has_ipv6, needs, read_to_end, skip, text_of, wait_until, write_script,
};

/// What a handshake has besides.
const UPGRADE: [&str; 5] = [
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Origin: http://x",
];

/// A connection to this port from an address of loopback, of which there are many.
pub(super) fn dial_from(last: u8, port: u16) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, last], 0)).into()).unwrap();
    socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.into()
}

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

/// The session of this number is this client's, through a proxy at 127.0.0.1, at both its ends.
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
        let mut streams = vec![dial_from(7, port)];
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
        let mut caller = Caller::anonymous().call_over(dial_from(8, port)).unwrap();
        assert_eq!(caller.upgrade(13, &[]), Ok(101));
        caller.exchange(b"hello");
        number += 1;
        let started = format!("session started: {number}, 127.0.0.8:");
        websockify.wait_for_log(&[&started, " via 127.0.0.1:", "tls 1.3"]);
    }
    assert_eq!(websockify.warnings(), Vec::<String>::new());
}

/// A3: HAProxy's health checks are nobody's: no session, no record, no count, in both versions.
#[test]
fn a3_haproxys_own_checks_are_no_client() {
    if !needs(&["haproxy"]) {
        return;
    }
    let directory = TempDir::new().unwrap();
    let options = "--trusted-proxy=127.0.0.1 --proxy-protocol --allow-from=127.0.0.7 \
        --max-connections-per-client=1";
    let (websockify, to) = websockify(&format!("{options} --web={}", directory.path().display()));
    let (port, status) = (free_port(), free_port());
    let text = format!(
        "listen bridge\n mode http\n bind 127.0.0.1:{port}\n option httpchk\n timeout check 10s\n \
         server one 127.0.0.1:{to} send-proxy-v2 check inter 100ms fall 9 rise 1\n\
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
    let client = session(dial_from(7, port), port);
    assert_eq!(client.close().code, 1000);
    websockify.wait_for_log(&["session ended: 1, 127.0.0.7:", " via 127.0.0.1:"]);
    assert!(checked().contains("L7OK,204"));
    assert_eq!(websockify.warnings(), Vec::<String>::new());
}

/// A3: in HTTP mode, by the headers of each request, as HAProxy is told to set them.
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
        let mut stream = dial_from(7, port);
        let address = stream.local_addr().unwrap();
        // What the client says itself is replaced.
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

/// A3: HAProxy's `option forwardfor` adds a line to the client's own. Who has sent one hides behind the proxy, and is
/// nobody else.
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
    assert_eq!(upgraded(&mut dial_from(7, port), &["X-Forwarded-For: 198.51.100.1"]), 101);
    let started = websockify.wait_for_log(&["session started: 1, 127.0.0.1:"]);
    assert!(!started.contains(" via "), "{started}");
    websockify.wait_for_log(&["WARN", "127.0.0.1: its request has X-Forwarded-For more than once"]);
    assert_eq!(upgraded(&mut dial_from(7, port), &[]), 101);
    websockify.wait_for_log(&["session started: 2, 127.0.0.7 via 127.0.0.1:"]);
}

/// A3: nginx adds the client to what was sent, and may keep one connection for many clients.
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
            let mut stream = dial_from(last, port);
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
    let stream = dial_from(7, port);
    let address = stream.local_addr().unwrap();
    assert_eq!(session(stream, port).close().code, 1000);
    assert_named(&websockify, 1, &address.to_string());
    let mut caller = Caller::anonymous().call_over(dial_from(8, port)).unwrap();
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
        let mut stream = dial_from(last, port);
        assert_eq!(upgraded(&mut stream, headers), 101);
        drop(stream);
        let number = u32::try_from(number + 1).unwrap();
        assert_named(&websockify, number, &format!("127.0.0.{last}"));
    }
    assert_eq!(websockify.warnings(), Vec::<String>::new());
}

/// A3: whoever is not trusted says nothing of who he is, in whichever way.
#[test]
fn a3_what_a_stranger_says_of_himself_changes_nothing() {
    let (websockify, port) = websockify("--trusted-proxy=127.0.0.9");
    let headers = ["X-Forwarded-For: 198.51.100.1", "Forwarded: for=198.51.100.1"];
    let mut stream = dial_from(7, port);
    assert_eq!(upgraded(&mut stream, &headers), 101);
    let started = websockify.wait_for_log(&["session started: 1, 127.0.0.7:"]);
    assert!(!started.contains(" via "), "{started}");
    let (websockify, port) = self::websockify("--trusted-proxy=127.0.0.9 --proxy-protocol");
    let mut stream = dial_from(7, port);
    stream.write_all(b"PROXY TCP4 198.51.100.1 203.0.113.1 1 2\r\n").unwrap();
    assert_eq!(upgraded(&mut stream, &[]), 400);
    assert_eq!(upgraded(&mut dial_from(8, port), &headers), 101);
    let started = websockify.wait_for_log(&["session started: 1, 127.0.0.8:"]);
    assert!(!started.contains(" via "), "{started}");
    // Where headers of connections count, those of requests do not, whoever sends them.
    let mut stream = dial_from(9, port);
    stream.write_all(b"PROXY TCP4 127.0.0.9 203.0.113.1 1 2\r\n").unwrap();
    assert_eq!(upgraded(&mut stream, &headers), 101);
    websockify.wait_for_log(&["session started: 2, 127.0.0.9:1 via 127.0.0.9:"]);
}

/// A3: what a trusted proxy passes on may be of somebody who wants to be another.
#[test]
fn a3_headers_that_are_repeated_folded_or_malformed_change_nothing() {
    let (websockify, port) = websockify("--trusted-proxy=127.0.0.1 --verbose");
    let forged: [&[&str]; 7] = [
        &["X-Forwarded-For: 198.51.100.1", "X-Forwarded-For: 198.51.100.1"],
        &["Forwarded: for=198.51.100.1", "forwarded: for=198.51.100.1"],
        &["X-Forwarded-For: 198.51.100.1, x"],
        &["X-Forwarded-For: 198.51.100.1:x"],
        &["Forwarded: for=198.51.100.1;for=198.51.100.2"],
        &["Forwarded: for=\"198.51.100.1"],
        &["Forwarded: for=198.51.100.1", "X-Forwarded-For: 198.51.100.2"],
    ];
    for (number, headers) in forged.iter().enumerate() {
        assert_eq!(upgraded(&mut connect(port), headers), 101, "{headers:?}");
        let started = format!("session started: {}, 127.0.0.1:", number + 1);
        assert!(!websockify.wait_for_log(&[&started]).contains(" via "), "{headers:?}");
        let doubt = "cannot tell whose request a trusted proxy has passed on: 127.0.0.1: ";
        wait_until("a warning", || websockify.logged(&["WARN", doubt]).len() == number + 1);
    }
    // RFC 9112, section 5.2: who folds a line is answered with 400.
    let folded = ["X-Forwarded-For: 198.51.100.1,\r\n 198.51.100.2"];
    assert_eq!(upgraded(&mut connect(port), &folded), 400);
    assert_eq!(websockify.logged(&["198.51.100."]), Vec::<String>::new());
}

/// A3: one connection of a proxy is for many clients.
#[test]
fn a3_each_request_of_a_connection_has_its_own_client() {
    let (websockify, port) = websockify("--trusted-proxy=127.0.0.1 --verbose");
    let mut stream = connect(port);
    for client in ["198.51.100.1", "198.51.100.2"] {
        let head = ask(&mut stream, "/x", &[&format!("X-Forwarded-For: {client}")]);
        assert_eq!(head.status, 405);
        let mut body = vec![0; head.header("content-length").unwrap().parse().unwrap()];
        stream.read_exact(&mut body).unwrap();
        websockify.wait_for_log(&[&format!("web request: {client}, GET")]);
    }
    assert_eq!(upgraded(&mut stream, &["X-Forwarded-For: 2001:db8::3, 127.0.0.1"]), 101);
    websockify.wait_for_log(&["session started: 1, 2001:db8::3 via 127.0.0.1:"]);
}

/// A3, B2: the oldest handshakes are read by ourselves.
#[test]
fn a3_hixie_sessions_have_their_client_too() {
    let (websockify, port) = websockify("--trusted-proxy=127.0.0.1");
    let mut stream = connect(port);
    let head = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n\
        Origin: http://x\r\nForwarded: for=\"[2001:db8::3]:9\"\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    websockify.wait_for_log(&["session started: 1, [2001:db8::3]:9 via 127.0.0.1:", "hixie"]);
}

/// A3, T6: the header is required of trusted proxies, whole, and within the time of a head.
#[test]
fn a3_a_trusted_proxy_must_send_its_header_in_time() {
    let (websockify, port) = websockify("--trusted-proxy=127.0.0.1 --proxy-protocol");
    let began = Instant::now();
    let mut silent = connect(port);
    let mut half = connect(port);
    half.write_all(b"PROXY TCP4 198.51").unwrap();
    for (bytes, why) in [
        (&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], "does not begin with a PROXY header"),
        (b"\x16\x03\x01", "does not begin with a PROXY header"),
        (b"PROXY TCP4 198.51.100.1 x 1 2\r\n", "the line of its PROXY header"),
        (b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c", "version or command"),
    ] {
        let mut stream = connect(port);
        stream.write_all(bytes).unwrap();
        assert_eq!(read_to_end(&mut stream), b"", "{bytes:?}");
        let line = "cannot tell whose connection a trusted proxy has passed on: 127.0.0.1: ";
        websockify.wait_for_log(&["WARN", line, why]);
    }
    assert!(began.elapsed() < Duration::from_secs(9));
    for staller in [&mut silent, &mut half] {
        staller.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        assert_eq!(read_to_end(staller), b"");
    }
    assert!(began.elapsed() >= Duration::from_secs(9), "not before their time");
}

/// A3: however its bytes come, and whatever comes with them, nothing behind a header is taken for it.
#[test]
fn a3_a_header_ends_where_it_ends() {
    let directory = TempDir::new().unwrap();
    let certificate = directory.path().join("self.pem");
    fs::write(&certificate, SERVERS.issue("localhost").pem()).unwrap();
    let (websockify, port) = websockify(&format!(
        "--trusted-proxy=127.0.0.1 --proxy-protocol --cert={}",
        certificate.display()
    ));
    let addresses = [198, 51, 100, 1, 203, 0, 113, 1, 0, 9, 0, 80];
    let long = [&addresses[..], &[0xea, 0x03, 0xe8], &[7; 1000]].concat();
    let binary = |addresses: &[u8]| {
        let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
        [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11"[..], &length, addresses].concat()
    };
    let headers = [
        b"PROXY TCP4 198.51.100.1 203.0.113.1 9 80\r\n".to_vec(),
        binary(&addresses),
        binary(&long),
    ];
    let request = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n\r\n", UPGRADE.join("\r\n"));
    let mut number = 0;
    for header in headers {
        let mut whole = connect(port);
        whole.write_all(&[&header[..], request.as_bytes()].concat()).unwrap();
        let mut pieces = connect(port);
        pieces.set_nodelay(true).unwrap();
        for byte in &header {
            pieces.write_all(&[*byte]).unwrap();
        }
        pieces.write_all(request.as_bytes()).unwrap();
        let mut encrypted = connect(port);
        encrypted.write_all(&header).unwrap();
        let mut caller = Caller::anonymous().call_over(encrypted).unwrap();
        assert_eq!(caller.upgrade(13, &[]), Ok(101));
        number += 3;
        let named = || websockify.logged(&["session started", ", 198.51.100.1:9 via 127.0.0.1:"]);
        wait_until("three sessions more", || named().len() == number);
        drop((whole, pieces));
    }
}

/// A3, U3: a proxy on this machine may come through a Unix socket.
#[test]
fn a3_a_proxy_at_a_unix_socket_names_clients() {
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("socket");
    let target = echo_service().target();
    let listen = format!("--unix-listen={} {target} --trusted-proxy=unix", socket.display());
    let user = nix::unistd::geteuid();
    let via = format!(" via unix:uid={user},pid={}", std::process::id());
    let mut websockify = Websockify::start(&listen);
    websockify.wait_until_open();
    let mut stream = connect_unix(&socket).unwrap();
    let request = format!(
        "GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 198.51.100.1\r\n{}\r\n\r\n",
        UPGRADE.join("\r\n")
    );
    stream.write_all(request.as_bytes()).unwrap();
    websockify.wait_for_log(&["session started: 1, 198.51.100.1", &via]);
    drop(stream);
    assert_eq!(websockify.stop(), 0);
    let websockify = Websockify::start(&format!("{listen} --proxy-protocol"));
    websockify.wait_until_open();
    let mut stream = connect_unix(&socket).unwrap();
    let request = request.replace("198.51.100.1", "198.51.100.2");
    stream.write_all(b"PROXY TCP6 2001:db8::7 ::1 9 80\r\n").unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    websockify.wait_for_log(&["session started: 1, [2001:db8::7]:9", &via]);
}

/// A3, F11: who guesses passwords through a proxy waits, and nobody else behind it; denials name him.
#[test]
fn a3_penalties_and_denials_are_the_clients() {
    let options = "--trusted-proxy=127.0.0.1 --auth-plugin=BasicHTTPAuth --auth-source=a:b";
    let (websockify, port) = websockify(options);
    let asked = |client: &str, credentials: &str| {
        let named = format!("X-Forwarded-For: {client}");
        let credentials = format!("Authorization: Basic {credentials}");
        upgraded(&mut connect(port), &[&named, &credentials])
    };
    // So many wrong ones at once close the address for a while.
    let _guesses: Vec<_> = (0..10)
        .map(|_| {
            let guess = ["X-Forwarded-For: 198.51.100.1", "Authorization: Basic YTpj"];
            let lines: String =
                UPGRADE.into_iter().chain(guess).flat_map(|line| [line, "\r\n"]).collect();
            let mut stream = connect(port);
            write!(stream, "GET / HTTP/1.1\r\nHost: x\r\n{lines}\r\n").unwrap();
            stream
        })
        .collect();
    wait_until("ten denials", || {
        websockify.logged(&["denied a client: 198.51.100.1: "]).len() == 10
    });
    assert_eq!(asked("198.51.100.1", "YTpi"), 429, "even with the right one");
    assert_eq!(asked("198.51.100.2", "YTpi"), 101);
    websockify.wait_for_log(&["session started: 1, 198.51.100.2 via 127.0.0.1:"]);
}

/// Lets in who comes from one address.
const HELPER: &str = r#"#!/bin/sh
while read -r line; do
    number=${line#*'"id":'} number=${number%%,*}
    case $line in
        *'"client":"198.51.100.1"'*) echo '{"id":'$number',"allowed":true}' ;;
        *) echo '{"id":'$number',"allowed":false}' ;;
    esac
done
"#;

/// A3, U9: a helper is told of the client.
#[test]
fn a3_a_helper_is_told_who_the_client_is() {
    let directory = TempDir::new().unwrap();
    let helper = directory.path().join("helper");
    write_script(&helper, HELPER);
    let (websockify, port) = websockify(&format!(
        "--trusted-proxy=127.0.0.1 --auth-plugin=Helper --auth-source={}",
        helper.display()
    ));
    let asked =
        |client: &str| upgraded(&mut connect(port), &[&format!("X-Forwarded-For: {client}")]);
    assert_eq!(asked("198.51.100.1"), 101);
    assert_eq!(asked("198.51.100.2"), 403);
    websockify.wait_for_log(&["denied a client: 198.51.100.2: the helper says"]);
}
