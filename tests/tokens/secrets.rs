//! No secret stands in a log whole (K8): every source of tokens, with tokens of every outcome, in every log, at the
//! most verbose level.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use data_encoding::BASE64;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::json_web_tokens::{SECRET, encoded as in_base64, signed};
use super::web_servers::{Api, go_to, ok, status};
use super::{bridge, handshake, named, named_at};
use crate::support::{Redis, Service, free_port, request};

/// How many characters of a secret a log may have.
const SHOWN: usize = 4;
/// How many characters of a secret these tests look for: a log may have fewer by chance, as a part of a word.
const TELLING: usize = 8;

/// Secrets that clients send beside their tokens, and the password for the sources, which stands on the command line.
const IN_QUERY: &str = "QueryPassword";
const CREDENTIALS: [&str; 2] = ["user:GoodPassword", "user:BadPassword"];
const OF_SOURCE: &str = "SourcePassword";

/// What becomes of a client with a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    LetIn,
    /// The client gets a session, but its target refuses the connection.
    TargetIsDead,
    UnknownOrNotAllowed,
    SourceFails,
}
use Outcome::{LetIn, SourceFails, TargetIsDead, UnknownOrNotAllowed};

/// A token, and what becomes of a client with it.
type Token<'a> = (&'a str, Outcome);

/// The tokens of all sources except JSON Web Tokens. They have characters that a query encodes; one is longer than the
/// part of a path that a log has.
const KNOWN: Token = ("know:Zebra ż+%41 of desk 1", LetIn);
const UNKNOWN: Token = (
    "stra:Zebra ż+%41 of desk 2, which is in no source, and is longer than what a log has of a path: the beginning is \
     there, and nothing of what is behind it, however many letters a stranger may type here to see what becomes of them",
    UnknownOrNotAllowed,
);
const ELSEWHERE: Token = ("else:Zebra ż+%41 of desk 3", UnknownOrNotAllowed);
const DEAD: Token = ("dead:Zebra ż+%41 of desk 4", TargetIsDead);
const FAILING: Token = ("fail:Zebra ż+%41 of desk 5", SourceFails);
const REDIRECTED: Token = ("redi:Zebra ż+%41 of desk 6", SourceFails);
const ALL: [Token; 6] = [KNOWN, UNKNOWN, ELSEWHERE, DEAD, FAILING, REDIRECTED];

/// Targets of all kinds, in and below a directory.
struct Targets {
    directory: TempDir,
    known: Service,
    elsewhere: Service,
    dead: String,
}

impl Targets {
    fn new() -> Self {
        let elsewhere = Service::at(([127, 0, 0, 2], 0), drop);
        let dead = format!("127.0.0.1:{}", free_port());
        Self { directory: TempDir::new().unwrap(), known: named("one"), elsewhere, dead }
    }

    /// Where a token of [`ALL`] leads, by its first letters; `None`: it is unknown.
    fn of(&self, token: &str) -> Option<String> {
        match &token[..SHOWN] {
            "know" => Some(self.known.target()),
            "else" => Some(self.elsewhere.target()),
            "dead" => Some(self.dead.clone()),
            _ => None,
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts a websockify with this source, tries each token, and looks at all logs. `removed` is a file of the
    /// source that is gone when tokens are asked for.
    fn check(&self, plugin: &str, source: &str, removed: Option<&str>, tokens: &[Token]) {
        let syslog = UdpSocket::bind("127.0.0.1:0").unwrap();
        let options = [
            "-v",
            "--web=.",
            "--log-file=log",
            &format!("--syslog={}", syslog.local_addr().unwrap()),
            "--auth-plugin=BasicHTTPAuth",
            &format!("--auth-source={}", CREDENTIALS[0]),
            "--target-allow=127.0.0.1/32 unix:run/in",
            &format!("--token-plugin={plugin}"),
            &format!("--token-source={source}"),
        ];
        let (websockify, port) = bridge(&self.directory, &options);
        if let Some(name) = removed {
            fs::rename(self.at(name), self.at("removed")).unwrap();
        }
        for (token, outcome) in tokens {
            for spelt in [encoded(token), wholly_encoded(token)] {
                assert_eq!(ask(port, &spelt), *outcome, "{plugin}: {token}");
            }
        }
        let (path, [good, bad]) = (query(&encoded(tokens[0].0)), CREDENTIALS.map(shows));
        assert_eq!(request(port, &path, &[&good]).0.status, 404, "a page");
        let denied = handshake(port, &path, "localhost", &(bad + "\r\n"));
        assert_eq!(denied.unwrap_err().0, 401, "{plugin}");
        websockify.signal(Signal::SIGTERM);
        let output = websockify.output();
        let out = output.out.join("\n");
        assert_eq!(shown(&out, &secrets(tokens)), [""; 0], "{plugin}: on standard output:\n{out}");
        let file = fs::read_to_string(self.at("log")).unwrap();
        for log in [output.err.join("\n"), file, received(&syslog)] {
            assert_cut(plugin, &log, tokens);
        }
        fs::remove_file(self.at("log")).unwrap();
        if let Some(name) = removed {
            fs::rename(self.at("removed"), self.at(name)).unwrap();
        }
    }
}

/// Checks that a log has the beginnings of these tokens, and no more of any secret.
fn assert_cut(plugin: &str, log: &str, tokens: &[Token]) {
    assert_eq!(shown(log, &secrets(tokens)), [""; 0], "{plugin}:\n{log}");
    let starts = tokens.iter().map(|(token, _)| format!("token={}…", &token[..SHOWN]));
    for start in starts.chain(["password=Quer…".to_owned()]) {
        assert!(log.contains(&start), "{plugin}: no {start} in\n{log}");
    }
}

/// The password comes first, because the log cuts a long path.
fn query(spelt: &str) -> String {
    format!("/websockify?password={IN_QUERY}&token={spelt}&path=websockify%3Ftoken%3D{spelt}")
}

fn shows(credentials: &str) -> String {
    format!("Authorization: Basic {}", BASE64.encode(credentials.as_bytes()))
}

fn ask(port: u16, spelt: &str) -> Outcome {
    match handshake(port, &query(spelt), "localhost", &(shows(CREDENTIALS[0]) + "\r\n")) {
        Ok(said) => {
            assert_eq!(said, "one");
            LetIn
        }
        Err((1011, _)) => TargetIsDead,
        Err((403, _)) => UnknownOrNotAllowed,
        Err((503, _)) => SourceFails,
        Err(other) => panic!("{other:?}"),
    }
}

/// As browsers encode a token, and as web servers are asked for it.
fn encoded(text: &str) -> String {
    spelt(text, |byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
}

fn wholly_encoded(text: &str) -> String {
    spelt(text, |_| false)
}

fn spelt(text: &str, stays: impl Fn(u8) -> bool) -> String {
    let spell =
        |byte: u8| if stays(byte) { char::from(byte).into() } else { format!("%{byte:02X}") };
    text.bytes().map(spell).collect()
}

/// Everything secret that clients and sources send.
fn secrets(tokens: &[Token]) -> Vec<String> {
    let mut secrets: Vec<_> = tokens.iter().map(|(token, _)| (*token).to_owned()).collect();
    for credentials in CREDENTIALS {
        secrets.push(credentials.split_once(':').unwrap().1.to_owned());
        secrets.push(BASE64.encode(credentials.as_bytes()));
    }
    secrets.extend([IN_QUERY.to_owned(), OF_SOURCE.to_owned()]);
    secrets.push(BASE64.encode(format!("user:{OF_SOURCE}").as_bytes()));
    secrets
}

/// The secrets of which a text has more than it may, however they are written.
fn shown(text: &str, secrets: &[String]) -> Vec<String> {
    let text = text.to_lowercase();
    let has = |secret: &&String| {
        let start: String = secret.chars().take(TELLING).collect();
        let spellings = [encoded(&start), wholly_encoded(&start), start.replace(' ', "+"), start];
        spellings.iter().any(|start| text.contains(&start.to_lowercase()))
    };
    secrets.iter().filter(has).cloned().collect()
}

/// What has come by now: all, if its sender has ended.
fn received(server: &UdpSocket) -> String {
    server.set_nonblocking(true).unwrap();
    let mut text = String::new();
    let mut room = [0; 9000];
    while let Ok(length) = server.recv(&mut room) {
        text += &String::from_utf8_lossy(&room[..length]);
        text.push('\n');
    }
    text
}

/// A test that looks for secrets must find them.
#[test]
fn k8_secrets_are_found_where_they_stand() {
    let secrets = secrets(&[KNOWN]);
    for text in [
        format!("?token={}", KNOWN.0),
        format!("?token={}", KNOWN.0.to_uppercase()),
        format!("?token={}", encoded(KNOWN.0)),
        format!("?token={}", wholly_encoded(KNOWN.0).to_lowercase()),
        format!("at http://user:{OF_SOURCE}@127.0.0.1"),
        shows(CREDENTIALS[0]),
        IN_QUERY.into(),
    ] {
        assert_eq!(shown(&text, &secrets).len(), 1, "{text}");
    }
    assert_eq!(shown("?token=know…&password=Quer…, its token is unknown", &secrets), [""; 0]);
}

#[test]
fn k8_no_log_has_a_token_of_a_file_whole() {
    let targets = Targets::new();
    let lines =
        ALL.iter().filter_map(|(token, _)| Some(format!("{token}: {}\n", targets.of(token)?)));
    // A line that cannot be read is named, and its token is not.
    let bad = format!("{}: nonsense\n", FAILING.0);
    fs::write(targets.at("tokens"), lines.collect::<String>() + &bad).unwrap();
    let bad = (FAILING.0, UnknownOrNotAllowed);
    for plugin in ["TokenFile", "ReadOnlyTokenFile"] {
        targets.check(plugin, "tokens", None, &[KNOWN, UNKNOWN, ELSEWHERE, DEAD, bad]);
        targets.check(plugin, "none", None, &[FAILING]);
    }
}

#[test]
fn k8_no_log_has_a_token_whole_that_is_a_name() {
    let targets = Targets::new();
    fs::create_dir(targets.at("files")).unwrap();
    for (token, _) in ALL {
        if let Some(target) = targets.of(token) {
            fs::write(targets.at("files").join(token), target).unwrap();
        }
    }
    fs::write(targets.at("files").join(FAILING.0), "nonsense").unwrap();
    symlink("../log", targets.at("files").join(REDIRECTED.0)).unwrap();
    let led_out = (REDIRECTED.0, UnknownOrNotAllowed);
    let all = [KNOWN, UNKNOWN, ELSEWHERE, DEAD, FAILING, led_out];
    targets.check("TokenFileName", "files", None, &all);
    targets.check("TokenFileName", "files", Some("files"), &[(KNOWN.0, SourceFails)]);

    fs::create_dir_all(targets.at("run/in")).unwrap();
    let [known, dead] = [KNOWN, DEAD].map(|(token, _)| format!("in/{token}"));
    named_at(&targets.at("run").join(&known), "one");
    named_at(&targets.at("run").join(ELSEWHERE.0), "other");
    drop(UnixListener::bind(targets.at("run").join(&dead)).unwrap());
    let all = [(&*known, LetIn), UNKNOWN, ELSEWHERE, (&dead, TargetIsDead)];
    targets.check("UnixDomainSocketDirectory", "run", None, &all);
    targets.check("UnixDomainSocketDirectory", "run", Some("run"), &[(&known, SourceFails)]);
}

/// The server repeats the token in all its answers.
#[test]
fn k8_no_log_has_a_token_whole_that_a_web_server_knows() {
    let targets = Targets::new();
    let answers: Vec<_> =
        ALL.iter().map(|(token, _)| (encoded(token), targets.of(token))).collect();
    for plugin in ["BaseTokenAPI", "JSONTokenApi"] {
        let answers = answers.clone();
        let api = Api::new(move |path| {
            let asked = path.strip_prefix("/t/").unwrap();
            let target = answers.iter().find(|(token, _)| token == asked);
            match target.and_then(|(_, target)| target.as_ref()?.split_once(':')) {
                Some((host, port)) if plugin == "JSONTokenApi" => {
                    ok(&format!(r#"{{"host": "{host}", "port": {port}}}"#))
                }
                Some((host, port)) => ok(&format!("{host}:{port}")),
                None if asked.starts_with("fail") => ok(&format!("<html>no {asked}")),
                None if asked.starts_with("redi") => {
                    go_to(&format!("http://elsewhere.example/{asked}"))
                }
                None => status(404),
            }
        });
        let source = format!("http://user:{OF_SOURCE}@{}/t/%s", api.service.target());
        targets.check(plugin, &source, None, &ALL);
        let source = format!("http://user:{OF_SOURCE}@{}/t/%s", targets.dead);
        targets.check(plugin, &source, None, &[FAILING]);
    }
}

/// All JSON Web Tokens begin alike.
#[test]
fn k8_no_log_has_a_json_web_token_whole() {
    let targets = Targets::new();
    fs::write(targets.at("key"), in_base64(SECRET)).unwrap();
    let token = |secret, target: &str| {
        let (host, port) = target.split_once(':').unwrap();
        signed(secret, &format!(r#"{{"host":"{host}","port":{port}}}"#))
    };
    let known = token(SECRET, &targets.known.target());
    let unknown = token(&[1; 32], &targets.known.target());
    let elsewhere = token(SECRET, &targets.elsewhere.target());
    let dead = token(SECRET, &targets.dead);
    let all = [
        (&*known, LetIn),
        (&*unknown, UnknownOrNotAllowed),
        (&elsewhere, UnknownOrNotAllowed),
        (&dead, TargetIsDead),
    ];
    targets.check("JWTTokenApi", "key", None, &all);
    targets.check("JWTTokenApi", "key", Some("key"), &[(&known, SourceFails)]);
}

/// Redis repeats in its errors what it was told: tokens and passwords.
#[test]
fn k8_no_log_has_a_token_whole_that_redis_knows() {
    let targets = Targets::new();
    let Some(redis) = Redis::start(free_port(), &["--requirepass", OF_SOURCE]) else { return };
    let values = ALL.iter().filter_map(|(token, _)| Some((token, targets.of(token)?)));
    let values = values.chain([(&FAILING.0, format!("no_{OF_SOURCE}"))]);
    let set = values.map(|(token, value)| format!("SET \"{token}\" {value}"));
    redis.tell(&[format!("AUTH {OF_SOURCE}")].into_iter().chain(set).collect::<Vec<_>>());
    let source = |redis: &Redis, rest: &str| format!("127.0.0.1:{}{rest}", redis.port);
    let all = [KNOWN, UNKNOWN, ELSEWHERE, DEAD, FAILING];
    targets.check("TokenRedis", &source(&redis, &format!("::{OF_SOURCE}")), None, &all);
    targets.check("TokenRedis", &source(&redis, ""), None, &[FAILING]);

    let renamed = ["--rename-command", "GET", "", "--rename-command", "AUTH", ""];
    let redis = Redis::start(free_port(), &renamed).unwrap();
    targets.check("TokenRedis", &source(&redis, ""), None, &[FAILING]);
    targets.check("TokenRedis", &source(&redis, &format!("::{OF_SOURCE}")), None, &[FAILING]);
}
