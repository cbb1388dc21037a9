//! websockify in the place of the Python websockify (U1): command lines that are in use, and what must work with
//! each.
//!
//! `UNDER_TEST=upstream` runs the same command lines with the Python websockify 0.13, which it gets from PyPI: each
//! must work there too, but for those whose `fault` is named.

mod on_demand;
mod shapes;

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use data_encoding::BASE64URL_NOPAD;
use tempfile::TempDir;

use crate::support::{
    Actor, Caller, DEADLINE, Redis, SERVERS, Service, WEBSOCKIFY, Websockify, echo_service, frame,
    free_port, needs, root,
};
use shapes::{COMMAND_LINES, CommandLine};

/// What must work.
pub(super) enum Expectation {
    /// A session at this path.
    Session(&'static str),
    /// A session at this path, asked for with these header lines.
    Headed(&'static str, &'static str),
    /// A session at the Unix socket of this name.
    Unix(&'static str),
    /// A session for this host.
    Host(&'static str),
    /// An encrypted session at this path.
    Tls(&'static str),
    /// A page at this path.
    Page(&'static str),
    /// The same, encrypted.
    TlsPage(&'static str),
    /// A line of the log has this.
    Shown(&'static str),
}

/// How long a command line may take until it serves.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(50);
/// What tokens are signed with.
const SECRET: &str = "a secret that is at least as long as 256 bits";
/// The message that is sent, and comes back.
const MESSAGE: &[u8] = b"hello";

/// The Python websockify, installed where it is missing, if that is under test (`UNDER_TEST=upstream`).
fn upstream() -> Option<&'static Path> {
    static UPSTREAM: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = UPSTREAM.get_or_init(|| {
        let name = std::env::var("UNDER_TEST").ok().filter(|name| !name.is_empty())?;
        assert_eq!(name, "upstream", "UNDER_TEST");
        let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("upstream-0.13.0");
        let program = venv.join("bin/websockify");
        if !program.exists() {
            run(Command::new("python3").arg("-m").arg("venv").arg(&venv));
            let packages = ["websockify==0.13.0", "requests", "redis", "jwcrypto"];
            run(Command::new(venv.join("bin/pip")).args(["install", "--quiet"]).args(packages));
        }
        Some(program)
    });
    found.as_deref()
}

fn run(command: &mut Command) {
    assert!(command.status().unwrap().success(), "{command:?}");
}

/// The files that the command lines name, and the service behind them.
struct Place {
    directory: TempDir,
    service: Service,
    /// A web server that knows where the service is, as `redis` does.
    api: Service,
    redis: Option<Redis>,
    /// A token that says where the service is.
    jwt: String,
}

/// A Python module with a user's own plugins.
const DESKS: &str = r#"
from websockify.auth_plugins import AuthenticationError
from websockify.token_plugins import BasePlugin

class Desks(BasePlugin):
    def lookup(self, token):
        if token == "vm1": return self.source.split(":")

class Known:
    def __init__(self, src=None):
        self.names = src.split()
    def authenticate(self, headers, target_host, target_port):
        if headers.get("X-Remote-User") not in self.names:
            raise AuthenticationError(response_code=403)
"#;

impl Place {
    fn new() -> Self {
        let service = echo_service();
        let target = service.address;
        let api = Service::new(move |stream| answer(stream, target));
        let jwt = signed(&format!(r#"{{"host":"localhost","port":{}}}"#, target.port()));
        let redis = Redis::start(free_port(), &[]);
        let (plain, json) = (service.target(), format!(r#"'{{"host":"{}"}}'"#, service.target()));
        let words = [format!("SET vm1 {plain}"), format!("SET desk:vm1 {json}")];
        if let Some(redis) = &redis {
            redis.tell(&words);
        }
        let place = Self { directory: TempDir::new().unwrap(), service, api, redis, jwt };
        place.put("secret", &BASE64URL_NOPAD.encode(SECRET.as_bytes()));
        place.put("web/vnc.html", "noVNC");
        place.put("web/vnc_lite.html", "noVNC");
        place.put("web/index.html", "index");
        let target = place.service.target();
        let socket = place.at("sockets/vm1");
        let tokens = format!("# desktops\nvm1: {target}\nvm2: unix_socket:{}\n", socket.display());
        place.put("tokens.cfg", &tokens);
        place.put("tokens/all", &tokens);
        place.put("names/vm1", &target);
        place.put("sockets/.keep", "");
        place.put("site/desks.py", DESKS);
        echo_at(&socket);
        let identity = SERVERS.issue("localhost");
        for name in ["novnc.pem", "self.pem"] {
            place.put(name, &identity.pem());
        }
        place.put("cert.pem", &identity.certificate.pem());
        place.put("key.pem", &identity.key.serialize_pem());
        let (key, locked) = (place.at("key.pem"), place.at("locked.pem"));
        let mut openssl = Command::new("openssl");
        openssl.args(["pkcs8", "-topk8", "-v2", "aes-256-cbc", "-passout", "pass:secret", "-in"]);
        run(openssl.arg(key).arg("-out").arg(locked));
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn put(&self, name: &str, text: &str) {
        let path = self.at(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The text with its placeholders replaced by what they stand for.
    fn fill(&self, text: &str, port: u16) -> String {
        let (port, service) = (port.to_string(), self.service.address.port().to_string());
        let program = format!("{Actor} bind {port} listen serve");
        let redis = self.redis.as_ref().map_or(String::new(), |redis| redis.port.to_string());
        text.replace("WEBSERVER", &self.api.target())
            .replace("REDIS", &redis)
            .replace("SIGNED", &self.jwt)
            .replace("PROGRAM", &program)
            .replace("TARGET", &format!("localhost:{service}"))
            .replace("TPORT", &service)
            .replace("PORT", &port)
            .replace("DIR", self.directory.path().to_str().unwrap())
    }
}

/// Answers a request to a web server that knows where `vm1` is.
fn answer(mut stream: TcpStream, target: SocketAddr) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read_exact(&mut byte).is_err() {
            return;
        }
        head.push(byte[0]);
    }
    let (host, port) = (target.ip(), target.port());
    let body = match std::str::from_utf8(&head).unwrap().split(' ').nth(1) {
        Some("/text/vm1") => format!("{host}:{port}"),
        Some("/json/vm1") => format!(r#"{{"host":"{host}","port":"{port}"}}"#),
        path => panic!("asked for {path:?}"),
    };
    let length = body.len();
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
}

/// A JSON Web Token with these claims (HS256 in RFC 7518).
fn signed(claims: &str) -> String {
    let encode = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
    let text =
        format!("{}.{}", encode(br#"{"alg":"HS256","typ":"JWT"}"#), encode(claims.as_bytes()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    format!("{text}.{}", encode(hmac::sign(&key, text.as_bytes()).as_ref()))
}

/// Sends back what it gets, at a Unix socket.
fn echo_at(path: &Path) {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    });
}

/// Asks for a session, and sends a message to and fro in it.
fn exchange(
    mut stream: impl Read + Write,
    path: &str,
    host: &str,
    headers: &str,
) -> Result<(), String> {
    let (status, _) = ask(
        &mut stream,
        &format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: binary\r\n{headers}\r\n"
        ),
    )?;
    if status != 101 {
        return Err(format!("status {status}"));
    }
    stream.write_all(&frame(0x82, MESSAGE)).map_err(|error| error.to_string())?;
    let mut got = Vec::new();
    // If a program greets, its greeting comes before the message.
    while !got.ends_with(MESSAGE) {
        let mut start = [0; 2];
        stream.read_exact(&mut start).map_err(|error| error.to_string())?;
        let mut payload = vec![0; start[1].into()];
        stream.read_exact(&mut payload).map_err(|error| error.to_string())?;
        if start[0] != 0x82 {
            return Err(format!("a frame that begins with {:#x}: {payload:?}", start[0]));
        }
        got.extend(payload);
    }
    stream.write_all(&frame(0x88, &1000_u16.to_be_bytes())).map_err(|error| error.to_string())
}

fn page(mut stream: impl Read + Write, path: &str) -> Result<(), String> {
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    match ask(&mut stream, &head)? {
        (200, length) if length > 0 => Ok(()),
        (status, length) => Err(format!("status {status}, {length} bytes")),
    }
}

/// The status of the answer, and its `Content-Length`.
fn ask(stream: &mut (impl Read + Write), head: &str) -> Result<(u16, usize), String> {
    stream.write_all(head.as_bytes()).map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).map_err(|error| error.to_string())?;
        answer.push(byte[0]);
    }
    let answer = String::from_utf8(answer).unwrap().to_lowercase();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let length = answer.lines().find_map(|line| line.strip_prefix("content-length: "));
    Ok((status, length.map_or(0, |length| length.parse().unwrap())))
}

impl Expectation {
    /// Whether it works, or why not yet.
    fn works(&self, place: &Place, websockify: &Websockify, port: u16) -> Result<(), String> {
        let plain = || {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
                .map_err(|error| error.to_string())?;
            stream.set_read_timeout(Some(DEADLINE)).map_err(|error| error.to_string())?;
            Ok::<_, String>(stream)
        };
        let encrypted = || {
            drop(plain()?);
            Ok::<_, String>(Caller::anonymous().call(port)?.0)
        };
        match self {
            Self::Session(path) => exchange(plain()?, &place.fill(path, port), "localhost", ""),
            Self::Headed(path, headers) => exchange(plain()?, path, "localhost", headers),
            Self::Unix(name) => {
                let stream =
                    UnixStream::connect(place.at(name)).map_err(|error| error.to_string())?;
                exchange(stream, "/", "localhost", "")
            }
            Self::Host(host) => exchange(plain()?, "/websockify", host, ""),
            Self::Tls(path) => exchange(encrypted()?, path, "localhost", ""),
            Self::Page(path) => page(plain()?, path),
            Self::TlsPage(path) => page(encrypted()?, path),
            Self::Shown(expected) => {
                let expected = place.fill(expected, port);
                // The Python websockify writes it to either of these.
                let mut lines = websockify.err.lines();
                lines.extend(websockify.out.lines());
                let is_shown = lines.iter().any(|line| line.contains(&expected));
                is_shown.then_some(()).ok_or_else(|| format!("no {expected:?} in {lines:?}"))
            }
        }
    }
}

impl CommandLine {
    /// What does not work with this command line.
    fn failures(&self, place: &Place) -> Vec<String> {
        let port = free_port();
        let line = place.fill(self.line, port);
        let mut command = Command::new(upstream().unwrap_or(Path::new(WEBSOCKIFY)));
        command.args(line.split_whitespace()).current_dir(&place.directory);
        command.env("PYTHONPATH", place.directory.path().join("site"));
        let mut websockify = Websockify::launch(&mut command);
        let mut failures = Vec::new();
        for then in self.then {
            let began = Instant::now();
            // Of a command line that goes into the background, the log is not seen here: so this tries until it works.
            let last = loop {
                match then.works(place, &websockify, port) {
                    Ok(()) => break Ok(()),
                    Err(reason) if began.elapsed() > PATIENCE => break Err(reason),
                    Err(_) => sleep(LOOK),
                }
            };
            if let Err(reason) = last {
                let said = websockify.err.lines().join(" | ");
                let ended = if websockify.is_running() { "" } else { " (ended)" };
                failures.push(format!("{} ({}): {reason}{ended}: {said}", self.line, self.whence));
                break;
            }
        }
        failures
    }
}

#[test]
fn u1_command_lines_that_are_in_use_work() {
    if !needs(&["openssl", "python3"]) {
        return;
    }
    let place = Place::new();
    let mut failures = Vec::new();
    // Where Redis is missing, the skip has been reported already.
    let has_redis = place.redis.is_some();
    for shape in COMMAND_LINES.iter().filter(|shape| has_redis || !shape.line.contains("REDIS")) {
        let found = shape.failures(&place);
        match shape.fault.filter(|_| upstream().is_some()) {
            Some(fault) if found.is_empty() => {
                failures.push(format!("{}: not {fault}", shape.line));
            }
            Some(_) => {}
            None => failures.extend(found),
        }
    }
    assert!(COMMAND_LINES.len() >= 40);
    assert_eq!(failures, Vec::<String>::new(), "of {}", COMMAND_LINES.len());
}

/// U1: the command of the manual page that puts this websockify in the place of the Python one in a virtual
/// environment.
#[test]
fn u1_a_virtual_environments_websockify_may_be_this_one() {
    let page = fs::read_to_string(root().join("man/sections/python.roff")).unwrap();
    let line = page.lines().find(|line| line.starts_with("ln ")).unwrap().replace("\\-", "-");
    let place = TempDir::new().unwrap();
    let bin = place.path().join("venv/bin");
    fs::create_dir_all(&bin).unwrap();
    fs::write(bin.join("websockify"), "#!/usr/bin/python3\n").unwrap();
    let installed = "/usr/bin/websockify";
    assert!(line.contains(installed), "{line}");
    let line = line.replace(installed, WEBSOCKIFY);
    run(Command::new("sh").args(["-ec", &line]).current_dir(&place));
    let (port, service) = (free_port().to_string(), echo_service());
    let mut command = Command::new(bin.join("websockify"));
    let websockify = Websockify::launch(command.args([&port, &service.target()]));
    websockify.wait_for_log(&["proxying from"]);
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port.parse().unwrap())).unwrap();
    exchange(stream, "/", "localhost", "").unwrap();
}
