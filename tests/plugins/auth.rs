//! Authentication of clients by a helper program (U9).

use std::io::Write;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{bridge_to, write};
use crate::support::{connect, needs, request, run};
use crate::tokens::helper::example_from;
use crate::tokens::{bridge, handshake, named, read_head};

/// The credentials of the example in RFC 7617.
const ALADDIN: &str = "Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==";

/// The beginning of every helper here; `said(ask)` gives the answer without its id.
const ASKED: &str = r#"
import json, os, sys, time
def serve(said):
    for line in sys.stdin:
        ask = json.loads(line)
        print("asked", line.strip(), file=sys.stderr)
        answer = said(ask)
        answer["id"] = ask["id"]
        print(json.dumps(answer), flush=True)
"#;

const OPTIONS: [&str; 2] = ["--auth-plugin=Helper", "--auth-source=python3 helper.py"];

fn helper(script: &str) -> TempDir {
    let directory = TempDir::new().unwrap();
    write(&directory, "helper.py", &format!("{ASKED}{script}"));
    directory
}

#[test]
fn u9_the_example_of_the_manual_page_asks_for_a_password() {
    if !needs(&["python3"]) {
        return;
    }
    let one = named("one");
    let directory = TempDir::new().unwrap();
    write(&directory, "helper.py", &example_from("import base64"));
    write(&directory, "web/page", "a page");
    let options = [&OPTIONS[..], &["--web=web", "--web-auth"]].concat();
    let (websockify, port) = bridge_to(&one.target(), &directory, &options);
    let stranger = handshake(port, "/", "localhost", "").unwrap_err();
    assert_eq!(stranger, (401, "say who you are\n".into()));
    websockify.wait_for_log(&["INFO", "asked a client for credentials", "(401"]);
    let wrong = handshake(port, "/", "localhost", "Authorization: Basic c2VjcmV0OnNlY3JldA==\r\n");
    assert_eq!(wrong.unwrap_err().0, 401);
    websockify.wait_for_log(&["WARN", "denied a client", "say who you are", "(401"]);
    assert_eq!(handshake(port, "/", "localhost", &format!("{ALADDIN}\r\n")), Ok("one".into()));
    let page = |headers: &[&str]| request(port, "/page", headers).0;
    let refused = page(&[]);
    assert_eq!(
        (refused.status, refused.header("www-authenticate")),
        (401, Some("Basic realm=cave"))
    );
    assert_eq!(page(&[ALADDIN]).status, 200);
    // K8: secrets are logged neither by websockify, nor in what it logs of the helper.
    let secrets: Vec<_> =
        ["QWxhZGRp", "c2VjcmV0"].iter().flat_map(|part| websockify.logged(&[part])).collect();
    assert_eq!(secrets, Vec::<String>::new());
}

/// K1, U9: what the helper is told, and when; an unknown token is refused before the helper is asked.
#[test]
fn u9_it_is_told_who_wants_to_go_where() {
    if !needs(&["python3"]) {
        return;
    }
    let one = named("one");
    let directory = helper(
        r#"
def said(ask):
    if "first" in dict(ask["headers"]).get("x-who", ""):
        return {"allowed": True}
    return {"allowed": False, "code": 302, "headers": [["Location", "/log-in"], ["Content-Length", "7"]], "reason": "not first"}
serve(said)
"#,
    );
    let target = one.target();
    let (_, served) = target.rsplit_once(':').unwrap();
    write(
        &directory,
        "tokens",
        &format!("one: 127.0.0.1:{served}\nsocket: unix_socket:/nowhere/a\n"),
    );
    let options = [&OPTIONS[..], &["--target-config=tokens"]].concat();
    let (websockify, port) = bridge(&directory, &options);
    assert_eq!(handshake(port, "/?token=two", "localhost", "X-Who: first\r\n").unwrap_err().0, 403);
    assert_eq!(websockify.logged(&["]: asked "]), Vec::<String>::new());
    let who = "X-Who: first\r\nX-Twice: a\r\nX-Twice: b\r\n";
    assert_eq!(handshake(port, "/?token=one", "localhost", who), Ok("one".into()));
    websockify.wait_for_log(&[
        "]: asked ",
        r#"["x-twice","a"],["x-twice","b"]"#,
        r#""host":"127.0.0.1""#,
        &format!(r#""port":{served}"#),
        r#""client":"127.0.0.1""#,
        r#""certificate":null"#,
    ]);
    assert_eq!(handshake(port, "/?token=socket", "localhost", "").unwrap_err().0, 302);
    websockify.wait_for_log(&["]: asked ", r#""host":null"#, r#""unix":"/nowhere/a""#]);
    websockify.wait_for_log(&["WARN", "denied a client", "the helper says \"not first\" (302"]);
    // B2: the helper is asked for clients of the old drafts too.
    for (who, status) in [("first", "101"), ("second", "302")] {
        let mut stream = connect(port);
        write!(
            stream,
            "GET /?token=one HTTP/1.1\r\nHost: a\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n\
             Origin: o\r\nX-Who: {who}\r\n\r\n"
        )
        .unwrap();
        let head = read_head(&mut stream);
        assert_eq!(head.split(' ').nth(1), Some(status), "{head}");
        assert_eq!(head.contains("/log-in"), status == "302", "{head}");
    }
}

/// Only the request whose question fails gets 503, and an answer that does not say `"allowed": true` lets nobody in.
#[test]
fn u9_an_authentication_that_fails_lets_nobody_in() {
    if !needs(&["python3"]) {
        return;
    }
    let one = named("one");
    let directory = helper(
        r#"
def said(ask):
    deed = dict(ask["headers"])["x-deed"]
    if deed == "good": return {"allowed": True}
    if deed == "silent": return {}
    if deed == "text": return {"allowed": "true"}
    if deed == "code": return {"allowed": False, "code": 101}
    if deed == "header": return {"allowed": False, "headers": [["a", "b\r\nc: d"]]}
    if deed == "error": return {"error": "unknown: " + dict(ask["headers"])["cookie"]}
    if deed == "dies": os._exit(3)
    if deed == "flood": print("x" * 70000, flush=True)
    if deed == "nonsense": print("[]", flush=True)
serve(said)
"#,
    );
    let (websockify, port) = bridge_to(&one.target(), &directory, &OPTIONS);
    let shake = |deed: &str| {
        handshake(port, "/", "localhost", &format!("X-Deed: {deed}\r\nCookie: id=secretsecret\r\n"))
    };
    for deed in ["silent", "text", "code", "header", "error"] {
        assert_eq!(shake(deed).unwrap_err(), (503, "not available at present\n".into()), "{deed}");
    }
    websockify.wait_for_log(&["the helper says \"unknown: id=s", "(503"]);
    let ours: Vec<_> = websockify.logged(&["secretsecret"]);
    assert!(ours.iter().all(|line| line.contains("]: asked ")), "{ours:?}");
    assert_eq!(websockify.logged(&["started again"]), Vec::<String>::new());
    for (deed, why) in
        [("dies", "it has ended"), ("flood", "longer than 64 KiB"), ("nonsense", "no JSON object")]
    {
        assert_eq!(shake(deed).unwrap_err().0, 503, "{deed}");
        websockify.wait_for_log(&["has failed and is started again", why]);
        assert_eq!(shake("good"), Ok("one".into()), "{deed}");
    }
}

#[test]
fn u9_an_authentication_that_hangs_is_over_after_ten_seconds() {
    if !needs(&["python3"]) {
        return;
    }
    let one = named("one");
    let directory = helper(
        r#"
def one(line):
    ask = json.loads(line)
    if dict(ask["headers"])["x-deed"] == "hang": return
    print(json.dumps({"id": ask["id"], "allowed": True}), flush=True)
for line in sys.stdin: one(line)
"#,
    );
    let (_websockify, port) = bridge_to(&one.target(), &directory, &OPTIONS);
    let shake = move |deed: &str| handshake(port, "/", "localhost", &format!("X-Deed: {deed}\r\n"));
    let began = Instant::now();
    let hanging = std::thread::spawn(move || shake("hang"));
    while !hanging.is_finished() {
        let asked = Instant::now();
        assert_eq!(shake("good"), Ok("one".into()));
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    }
    assert_eq!(hanging.join().unwrap().unwrap_err().0, 503);
    assert!(began.elapsed() >= Duration::from_secs(9), "{:?}", began.elapsed());
}

/// U9, F6: the script of a helper is not served, because it may have a password in it.
#[test]
fn u9_no_helper_is_served_as_a_file() {
    if !needs(&["python3"]) {
        return;
    }
    let directory = helper("serve(lambda ask: {'allowed': True})\n");
    for name in ["mine.py", "far/away.py", "other.py", "tokens.py"] {
        write(&directory, name, "class Mine:\n    def __init__(self, source): pass\n");
    }
    let status = |port: u16, path: &str| request(port, path, &[]).0.status;
    for (options, hidden) in [
        (&OPTIONS[..], &["/helper.py"][..]),
        (&["--auth-plugin=far.away.Mine"], &["/far/away.py"]),
        (
            &[
                "--token-plugin=Helper",
                "--token-source=python3 ./tokens.py",
                "--auth-plugin=mine.Mine",
            ],
            &["/tokens.py", "/mine.py"],
        ),
    ] {
        let all = [options, &["--web=."]].concat();
        let (_websockify, port) = match options.len() {
            3 => bridge(&directory, &all),
            _ => bridge_to("localhost:1", &directory, &all),
        };
        for path in ["/helper.py", "/mine.py", "/far/away.py", "/other.py", "/tokens.py"] {
            let expected = if hidden.contains(&path) { 404 } else { 200 };
            assert_eq!(status(port, path), expected, "{path}: {options:?}");
        }
    }
}

#[test]
fn u9_what_is_no_command_is_a_usage_error() {
    for (line, part) in [
        ("--auth-plugin=Helper --auth-source='a", "'--auth-source': Helper expects a command line"),
        ("--auth-plugin=Helper", "'--auth-plugin' needs '--auth-source'"),
        ("--auth-plugin=.Class --auth-source=x", "invalid value '.Class' for '--auth-plugin'"),
        ("--auth-plugin=module. --auth-source=x", "invalid value 'module.' for '--auth-plugin'"),
    ] {
        let output = run(&format!("1 a:1 {line}"));
        assert_eq!((output.status, output.err.len()), (2, 1), "{line}: {:?}", output.err);
        assert!(output.err[0].contains(part), "{line}: {:?}", output.err);
    }
    let output = run(&format!(
        "{} a:1 --auth-plugin=Helper --auth-source=/nowhere/helper",
        crate::support::free_port()
    ));
    assert_eq!(output.status, 1);
    assert!(output.err[0].contains("cannot start helper /nowhere/helper: no such file"));
}
