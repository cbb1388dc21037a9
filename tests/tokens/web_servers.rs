//! Web servers that know the tokens, of our own making: good, slow, talkative, and leading elsewhere (K4).

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use nix::libc::O_NONBLOCK;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::TempDir;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::{bridge, by_token, named, named_at, refused};
use crate::support::{DEADLINE, SERVERS, Service, WEBSOCKIFY, Websockify, free_port, wait_until};

/// A server, what it was asked, and over how many connections.
pub(super) struct Api {
    pub(super) service: Service,
    asked: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
}

impl Api {
    /// Answers each request with what `answer` makes of its path: a whole HTTP answer.
    pub(super) fn new(answer: impl Fn(&str) -> String + Clone + Send + 'static) -> Self {
        let (asked, connections) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<AtomicUsize>::default());
        let (heads, count) = (Arc::clone(&asked), Arc::clone(&connections));
        let service = Service::new(move |stream| {
            count.fetch_add(1, Ordering::SeqCst);
            serve(&stream, &stream, &heads, &answer);
        });
        Self { service, asked, connections }
    }

    /// The source that asks it by this path.
    fn source(&self, path: &str) -> String {
        format!("--token-source=http://{}{path}", self.service.target())
    }

    fn heads(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// Serves requests until the client has no more, or an answer says `Connection: close`.
fn serve(
    from: impl Read,
    mut to: impl Write,
    asked: &Mutex<Vec<String>>,
    answer: &impl Fn(&str) -> String,
) {
    let mut lines = BufReader::new(from).lines();
    loop {
        let head: Vec<_> =
            lines.by_ref().map_while(Result::ok).take_while(|it| !it.is_empty()).collect();
        let Some(path) = head.first().and_then(|line| line.split(' ').nth(1)) else { return };
        asked.lock().unwrap().push(head.join("\n"));
        let said = answer(path);
        if to.write_all(said.as_bytes()).is_err() || said.contains("Connection: close") {
            return;
        }
    }
}

pub(super) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

pub(super) fn status(status: u16) -> String {
    format!("HTTP/1.1 {status} So\r\nContent-Length: 0\r\n\r\n")
}

pub(super) fn go_to(location: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n")
}

#[test]
fn k4_a_server_says_where_a_token_leads() {
    let (one, directory) = (named("one"), TempDir::new().unwrap());
    named_at(&directory.path().join("socket"), "socket");
    let (target, socket) = (one.target(), directory.path().join("socket").display().to_string());
    let api = Api::new(move |path| match path.strip_prefix("/t/").unwrap() {
        "a" => ok(&format!(" {target}\n")),
        "a%2F..%2F%3Fb%3D%25%20%C5%BC%26" => ok(&target),
        "unix" => ok(&format!("unix_socket:{socket}")),
        "created" => ok(&target).replace("200 OK", "201 Created"),
        "chunked" => format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{target}\r\n0\r\n\r\n",
            target.len()
        ),
        "nonsense" => ok("<html>"),
        "empty" => ok(""),
        "500" => status(500),
        "429" => status(429),
        _ => status(404),
    });
    let (websockify, port) =
        bridge(&directory, &["--token-plugin=BaseTokenAPI", &api.source("/t/%s")]);
    for token in ["a", "a/../?b%3D%25%20%C5%BC%26", "created", "chunked"] {
        assert_eq!(by_token(port, token), Ok("one".into()), "{token}");
    }
    assert_eq!(by_token(port, "unix"), Ok("socket".into()));
    for unknown in ["x", "", ".", "..", &"a".repeat(9000)] {
        assert_eq!(refused(port, unknown), 403, "{unknown}");
    }
    for (token, why) in [
        ("nonsense", "its answer cannot be read: it is not host:port"),
        ("empty", "its answer cannot be read: it is not host:port"),
        ("500", "it answers 500"),
        ("429", "it answers 429"),
    ] {
        assert_eq!(refused(port, token), 503, "{token}");
        let name = format!("cannot look a token up at http://{}: {why} (503", api.service.target());
        websockify.wait_for_log(&["WARN", "refused a handshake", &name]);
    }
    // The server is not asked for tokens that cannot be a part of a URL's path.
    assert_eq!(api.heads().len(), 11);
    assert!(api.connections.load(Ordering::SeqCst) < 6, "connections are kept");
}

#[test]
fn k4_a_server_may_answer_in_json() {
    let (one, directory) = (named("one"), TempDir::new().unwrap());
    named_at(&directory.path().join("socket"), "socket");
    let (number, socket) =
        (one.address.port(), directory.path().join("socket").display().to_string());
    let api = Api::new(move |path| match path.strip_prefix("/?x&token=").unwrap() {
        "number" => ok(&format!("{{\"host\": \"127.0.0.1\", \"port\": {number}}}")),
        "string" => ok(&format!("{{\"port\": \"{number}\", \"host\": \"127.0.0.1\", \"x\": [1]}}")),
        "unix" => ok(&format!("{{\"host\": \"unix_socket\", \"port\": \"{socket}\"}}")),
        "text" => ok(&format!("127.0.0.1:{number}")),
        "half" => ok("{\"host\": \"127.0.0.1\""),
        "deep" => ok(&"[".repeat(60_000)),
        _ => ok("{\"host\": \"127.0.0.1\"}"),
    });
    let (websockify, port) =
        bridge(&directory, &["--token-plugin=JSONTokenApi", &api.source("?x&token=%s")]);
    for (token, said) in [("number", "one"), ("string", "one"), ("unix", "socket")] {
        assert_eq!(by_token(port, token), Ok(said.into()), "{token}");
    }
    for (token, why) in [
        ("text", "it is not JSON"),
        ("half", "it is not JSON"),
        ("deep", "it is not JSON"),
        ("other", "it has no port"),
    ] {
        assert_eq!(refused(port, token), 503, "{token}");
        websockify.wait_for_log(&["WARN", &format!("its answer cannot be read: {why} (503")]);
    }
}

#[test]
fn k4_redirects_are_followed_on_the_same_host_only() {
    let one = named("one");
    let target = one.target();
    let elsewhere = Api::new(move |_| ok(&target));
    let port = elsewhere.service.address.port();
    let target = one.target();
    let api = Api::new(move |path| match path {
        "/relative" => go_to("step"),
        "/step" => go_to("/found#x"),
        "/found" => ok(&target),
        "/port" => go_to(&format!("http://127.0.0.1:{port}/x")),
        "/host" => go_to(&format!("http://localhost:{port}/x")),
        "/scheme" => go_to("file:///etc/passwd"),
        _ => go_to("/loop"),
    });
    let directory = TempDir::new().unwrap();
    let source = format!("--token-source=http://user:secret@{}/%s", api.service.target());
    let (websockify, ours) = bridge(&directory, &["--token-plugin=BaseTokenAPI", &source]);
    for token in ["relative", "port"] {
        assert_eq!(by_token(ours, token), Ok("one".into()), "{token}");
    }
    for (token, why) in [
        ("host", "it redirects to another host"),
        ("scheme", "it redirects to what is no URL"),
        ("loop", "it redirects more than 5 times"),
    ] {
        assert_eq!(refused(ours, token), 503, "{token}");
        websockify.wait_for_log(&["WARN", why, "(503"]);
    }
    // The credentials in the URL are sent to the server that the URL names, and to no other; the log does not have them.
    let is_told = |head: &String| head.to_lowercase().contains("authorization: basic ");
    assert!(api.heads().iter().all(is_told), "{:?}", api.heads());
    assert_eq!(elsewhere.heads().len(), 1);
    assert!(!elsewhere.heads().iter().any(is_told), "{:?}", elsewhere.heads());
    assert_eq!(websockify.logged(&["secret"]), Vec::<String>::new());
    assert_eq!(websockify.logged(&["user:"]), Vec::<String>::new());
}

/// K4, L3: answers that are too long, and answers that do not come.
#[test]
fn k4_a_server_that_talks_too_much_or_too_late_costs_its_own_look_ups_only() {
    let one = named("one");
    let target = one.target();
    let api = Api::new(move |path| match path {
        "/good" => ok(&target),
        "/body" => ok(&"a".repeat(65 * 1024)),
        "/chunks" => format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}",
            format!("400\r\n{}\r\n", "a".repeat(1024)).repeat(100)
        ),
        "/head" => format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "a".repeat(200_000)),
        "/nonsense" => "SSH-2.0-none\r\n\r\nConnection: close".into(),
        "/gone" => "Connection: close".into(),
        _ => {
            thread::sleep(DEADLINE);
            String::new()
        }
    });
    let directory = TempDir::new().unwrap();
    let (websockify, port) =
        bridge(&directory, &["--token-plugin=BaseTokenAPI", &api.source("/%s")]);
    let late: Vec<_> = (0..10).map(|_| thread::spawn(move || refused(port, "late"))).collect();
    for (token, why) in [
        ("body", "its answer is longer than 64 KiB"),
        ("chunks", "its answer is longer than 64 KiB"),
        ("head", "message head is too large"),
        ("nonsense", "invalid HTTP version parsed"),
        ("gone", ""),
    ] {
        assert_eq!(refused(port, token), 503, "{token}");
        websockify.wait_for_log(&["WARN", "cannot look a token up at http://127.0.0.1:", why]);
        assert_eq!(by_token(port, "good"), Ok("one".into()), "after {token}");
    }
    for late in late {
        assert_eq!(late.join().unwrap(), 503);
    }
    let name = format!("in http://{}: no answer within 10 s (503", api.service.target());
    websockify.wait_for_log(&["WARN", "cannot look its token up", &name]);
}

#[test]
fn k4_no_more_than_64_are_asked_at_a_time_and_the_rest_wait() {
    let one = named("one");
    let target = one.target();
    let (now, most) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let (counted, seen) = (Arc::clone(&now), Arc::clone(&most));
    let api = Api::new(move |_| {
        seen.fetch_max(counted.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        // Waits until 64 requests are here, the limit.
        wait_until("64 requests", || seen.load(Ordering::SeqCst) >= 64);
        counted.fetch_sub(1, Ordering::SeqCst);
        ok(&target)
    });
    let directory = TempDir::new().unwrap();
    let (_websockify, port) =
        bridge(&directory, &["--token-plugin=BaseTokenAPI", &api.source("/%s")]);
    let clients: Vec<_> = (0..100)
        .map(|number| thread::spawn(move || by_token(port, &format!("token{number}"))))
        .collect();
    for client in clients {
        assert_eq!(client.join().unwrap(), Ok("one".into()));
    }
    assert_eq!(most.load(Ordering::SeqCst), 64);
    assert_eq!(now.load(Ordering::SeqCst), 0);
}

/// A kept connection that has ended meanwhile, and a server that is not there.
#[test]
fn k4_a_server_may_go_and_come_again() {
    let one = named("one");
    let target = one.target();
    let api = Api::new(move |_| ok(&target).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"));
    let directory = TempDir::new().unwrap();
    let (_websockify, port) =
        bridge(&directory, &["--token-plugin=BaseTokenAPI", &api.source("/%s")]);
    for _ in 0..3 {
        assert_eq!(by_token(port, "a"), Ok("one".into()));
    }
    // A server that answers the first request over each connection, and closes it at the second one without an answer.
    let target = one.target();
    let service = Service::new(move |stream| {
        let mut lines = BufReader::new(&stream).lines();
        let mut head =
            || lines.by_ref().map_while(Result::ok).take_while(|it| !it.is_empty()).count();
        if head() > 0 && (&stream).write_all(ok(&target).as_bytes()).is_ok() {
            head();
        }
    });
    let source = format!("--token-source=http://{}/%s", service.target());
    let (_websockify, port) = bridge(&directory, &["--token-plugin=BaseTokenAPI", &source]);
    for _ in 0..5 {
        assert_eq!(by_token(port, "a"), Ok("one".into()));
    }
    let absent = free_port();
    let source = format!("--token-source=http://localhost:{absent}/%s");
    let (websockify, port) = bridge(&directory, &["--token-plugin=BaseTokenAPI", &source]);
    assert_eq!(refused(port, "a"), 503);
    let name = format!("at http://localhost:{absent}: connection refused (503");
    websockify.wait_for_log(&["WARN", &name]);
}

/// The system's authorities, of which an HTTPS server needs one, are read anew on SIGHUP: sessions do not wait for that.
#[test]
fn k4_sessions_do_not_wait_until_authorities_are_read() {
    let one = named("one");
    let target = one.target();
    let api = Api::new(move |_| ok(&target));
    let directory = TempDir::new().unwrap();
    let (authorities, port) = (directory.path().join("authorities"), free_port());
    let mut command = Command::new(WEBSOCKIFY);
    command.args([&port.to_string(), "--token-plugin=BaseTokenAPI", &api.source("/%s")]);
    // With one thread for all sessions each would wait.
    command.env("SSL_CERT_FILE", &authorities).env("TOKIO_WORKER_THREADS", "1");
    let websockify = Websockify::launch(&mut command);
    websockify.wait_until_open();
    assert_eq!(by_token(port, "a"), Ok("one".into()));
    // A file that is never read to its end, as on a server that is away.
    mkfifo(&authorities, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    websockify.signal(Signal::SIGHUP);
    let mut end = None;
    wait_until("the authorities are read", || {
        let mut options = File::options();
        end = options.write(true).custom_flags(O_NONBLOCK).open(&authorities).ok();
        end.is_some()
    });
    assert_eq!(by_token(port, "a"), Ok("one".into()));
    drop(end);
    websockify.wait_for_log(&["tokens are read again"]);
    assert_eq!(by_token(port, "a"), Ok("one".into()));
}

#[test]
fn k4_a_server_may_speak_tls() {
    let one = named("one");
    let target = one.target();
    let identity = SERVERS.issue("localhost");
    let key = PrivateKeyDer::Pkcs8(identity.key.serialize_der().into());
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![identity.certificate.der().clone()], key);
    let config = Arc::new(config.unwrap());
    let connections = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&connections);
    let service = Service::new(move |stream| {
        count.fetch_add(1, Ordering::SeqCst);
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = StreamOwned::new(connection, stream);
        // One at a time: there is one stream for both directions.
        loop {
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read(&mut byte) {
                    Ok(1..) => head.push(byte[0]),
                    _ => return,
                }
            }
            stream.write_all(ok(&target).as_bytes()).unwrap();
        }
    });
    let directory = TempDir::new().unwrap();
    let authority = directory.path().join("authority.pem");
    std::fs::write(&authority, SERVERS.pem()).unwrap();
    let url = |host: &str| format!("--token-source=https://{host}:{}/%s", service.address.port());
    let start = |host: &str, trusted: bool| {
        let port = free_port();
        let mut command = Command::new(WEBSOCKIFY);
        command.args([&port.to_string(), "--token-plugin=BaseTokenAPI", &url(host)]);
        if trusted {
            command.env("SSL_CERT_FILE", &authority);
        }
        let websockify = Websockify::launch(command.current_dir(&directory));
        websockify.wait_until_open();
        (websockify, port)
    };
    let (_websockify, port) = start("localhost", true);
    for _ in 0..10 {
        assert_eq!(by_token(port, "a"), Ok("one".into()));
    }
    assert!(connections.load(Ordering::SeqCst) < 6, "connections are kept");
    // Not signed by one of the system's authorities, and not for this name.
    for (host, trusted) in [("localhost", false), ("127.0.0.1", true)] {
        let (websockify, port) = start(host, trusted);
        assert_eq!(refused(port, "a"), 503, "{host}");
        websockify.wait_for_log(&["WARN", "at https://", "invalid peer certificate", "(503"]);
    }
}
