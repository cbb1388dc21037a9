//! Sources of tokens that change, fail, hang, or lead where none may (K2, K3, K7).

use std::fs;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::{bridge, by_token, named, named_at, refused};
use crate::support::{Client, Service, stays, wait_for};

/// Does this again and again in a thread of its own, until it is dropped.
struct Again {
    is_over: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Again {
    fn and_again(mut act: impl FnMut() + Send + 'static) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let watched = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            while !watched.load(Ordering::Relaxed) {
                act();
            }
        });
        Self { is_over, thread: Some(thread) }
    }
}

impl Drop for Again {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(thread::JoinHandle::join);
        assert!(thread::panicking() || ended.is_some_and(|ended| ended.is_ok()));
    }
}

/// As a control plane does it: a directory of files, rewritten in place and renamed over, while clients come.
#[test]
fn k2_a_thousand_tokens_are_rewritten_while_they_are_used() {
    let service = named("desk");
    let directory = TempDir::new().unwrap();
    let tokens = directory.path().join("tokens");
    fs::create_dir(&tokens).unwrap();
    let target = service.target();
    let text = move |file: usize| {
        let lines = (0..100).map(|number| format!("token-{file}-{number}: {target}\n"));
        lines.collect::<Vec<_>>().concat()
    };
    for file in 0..10 {
        fs::write(tokens.join(format!("{file}.cfg")), text(file)).unwrap();
    }
    let (_websockify, port) = bridge(&directory, &["--target-config=tokens"]);
    let mut round = 0;
    let writing = Again::and_again(move || {
        let path = tokens.join(format!("{}.cfg", round % 10));
        if round % 2 == 0 {
            fs::write(&path, text(round % 10)).unwrap();
        } else {
            let next = tokens.join(".next");
            fs::write(&next, text(round % 10)).unwrap();
            fs::rename(&next, &path).unwrap();
        }
        round += 1;
    });
    for number in 0..100 {
        let token = format!("token-{}-{number}", number % 10);
        assert_eq!(by_token(port, &token), Ok("desk".into()), "{token}");
    }
    drop(writing);
    assert_eq!(refused(port, "token-0-100"), 403);
}

#[test]
fn k2_what_is_in_the_file_now_counts_and_sessions_go_on() {
    let (one, two) = (named("one"), named("two"));
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("tokens");
    fs::write(&path, format!("a: {}\nbad line\n", one.target())).unwrap();
    let (websockify, port) = bridge(&directory, &["--target-config=tokens"]);
    let address = (Ipv4Addr::LOCALHOST, port).into();
    let mut session = Client::dial_path(address, "/websockify?token=a").unwrap();
    assert_eq!(session.read(3), b"one");
    assert_eq!(by_token(port, "a"), Ok("one".into()));
    assert_eq!(refused(port, "b"), 403);
    // The bad line is named once, not at each look-up, and not again when another line changes.
    let named_lines =
        || websockify.logged(&["WARN", "line 2", "tokens: it is not 'token: target'"]).len();
    wait_for("the unreadable line", || (named_lines() == 1).then_some(()));
    fs::write(&path, format!("a: {0}\nbad line\nb: {0}\n", two.target())).unwrap();
    assert_eq!(by_token(port, "b"), Ok("two".into()));
    assert_eq!(by_token(port, "a"), Ok("two".into()));
    assert_eq!(refused(port, "c"), 403);
    assert_eq!(named_lines(), 1);
    fs::remove_file(&path).unwrap();
    assert_eq!(refused(port, "a"), 503, "not known for now");
    websockify.wait_for_log(&["WARN", "cannot read tokens from", "tokens: no such file", "(503"]);
    fs::write(&path, format!("a: {}\n", one.target())).unwrap();
    assert_eq!(by_token(port, "a"), Ok("one".into()));
    assert_eq!(websockify.logged(&["session ended: 1,"]), Vec::<String>::new());
    // The target closes the connection at the first byte.
    session.send("x");
    assert_eq!(session.closing().code, 1000);
}

#[test]
fn k2_a_read_only_file_is_read_at_the_start_and_on_sighup() {
    let (one, two) = (named("one"), named("two"));
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("tokens");
    fs::write(&path, format!("a: {}\nbad line\n", one.target())).unwrap();
    let options = ["--token-plugin=ReadOnlyTokenFile", "--token-source=tokens"];
    let (websockify, port) = bridge(&directory, &options);
    // The file is not read again at look-ups, so the bad line is named at the start.
    websockify.wait_for_log(&["WARN", "cannot read line 2 of", "tokens: it is not"]);
    assert_eq!(by_token(port, "a"), Ok("one".into()));
    fs::write(&path, format!("a: {}\n", two.target())).unwrap();
    assert_eq!(by_token(port, "a"), Ok("one".into()));
    websockify.signal(Signal::SIGHUP);
    websockify.wait_for_log(&["tokens are read again"]);
    assert_eq!(by_token(port, "a"), Ok("two".into()));
    fs::remove_file(&path).unwrap();
    websockify.signal(Signal::SIGHUP);
    websockify.wait_for_log(&["WARN", "the old tokens stay in use", "no such file"]);
    assert_eq!(by_token(port, "a"), Ok("two".into()));
}

/// K1: a file that changes all the time cannot say that a token is unknown; other clients are served meanwhile.
#[test]
fn k1_a_source_that_is_late_is_503() {
    let service = named("one");
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("tokens");
    let text = format!("a: {}\n", service.target());
    fs::write(&path, &text).unwrap();
    let (websockify, port) = bridge(&directory, &["--target-config=tokens"]);
    let writing = Again::and_again(move || {
        fs::write(&path, &text).unwrap();
        thread::yield_now();
    });
    let late = thread::spawn(move || refused(port, "unknown"));
    stays(std::time::Duration::from_secs(2), "the other is served", || {
        by_token(port, "a") == Ok("one".into())
    });
    assert_eq!(late.join().unwrap(), 503);
    websockify.wait_for_log(&["WARN", "refused a handshake", "no answer within 10 s (503"]);
    drop(writing);
    assert_eq!(refused(port, "unknown"), 403);
}

#[test]
fn k3_a_token_may_be_a_files_name() {
    let (one, two) = (named("one"), named("two"));
    let directory = TempDir::new().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::create_dir(at("tokens")).unwrap();
    fs::write(at("tokens/desk"), format!("{}\n", one.target())).unwrap();
    fs::write(at("secret"), two.target()).unwrap();
    std::os::unix::fs::symlink(at("secret"), at("tokens/link")).unwrap();
    let options = ["--token-plugin=TokenFileName", "--token-source=tokens"];
    let (websockify, port) = bridge(&directory, &options);
    assert_eq!(by_token(port, "desk"), Ok("one".into()));
    assert_eq!(by_token(port, "x/desk"), Ok("one".into()), "as upstream: the base name");
    for token in [
        "..",
        "../secret",
        "..%2fsecret",
        "secret",
        "link",
        "desk%00",
        ".",
        "",
        "a/",
        &"a".repeat(9000),
    ] {
        assert_eq!(refused(port, token), 403, "{token}");
    }
    websockify.wait_for_log(&["WARN", "refused a token: its link leads out of", "tokens"]);
    fs::write(at("tokens/desk"), two.target()).unwrap();
    assert_eq!(by_token(port, "desk"), Ok("two".into()));
    fs::write(at("tokens/desk"), "nonsense").unwrap();
    assert_eq!(refused(port, "desk"), 503);
    websockify.wait_for_log(&["WARN", "tokens/desk…: it is not host:port (503"]);
}

/// K3, K8: the log shows the target with the first letters of the token only.
#[test]
fn k3_a_token_may_be_a_sockets_name() {
    let directory = TempDir::new().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::create_dir_all(at("run/sub")).unwrap();
    fs::create_dir(at("run2")).unwrap();
    for (path, name) in [
        ("run/one", "one"),
        ("run/sub/two", "two"),
        ("run2/other", "other"),
        ("outside", "outside"),
    ] {
        named_at(&at(path), name);
    }
    fs::write(at("run/file"), "").unwrap();
    std::os::unix::fs::symlink(at("outside"), at("run/link")).unwrap();
    let options = ["--token-plugin=UnixDomainSocketDirectory", "--token-source=run"];
    let (websockify, port) = bridge(&directory, &options);
    assert_eq!(by_token(port, "one"), Ok("one".into()));
    assert_eq!(by_token(port, "sub%2Ftwo"), Ok("two".into()));
    // K8: here a target's name is a token.
    let shown = |name: &str| format!("to unix:{}/{name}…,", at("run").display());
    websockify.wait_for_log(&["session started", &shown("one")]);
    websockify.wait_for_log(&["session started", &shown("sub/")]);
    assert_eq!(websockify.logged(&["sub/two"]), Vec::<String>::new());
    let absolute = at("outside").display().to_string();
    for token in
        ["../outside", "..%2Foutside", "../run2/other", "link", "file", "sub", "..", &absolute]
    {
        assert_eq!(refused(port, token), 403, "{token}");
    }
}

#[test]
fn k7_tokens_lead_where_they_may() {
    let loopback = named("one");
    let other = Service::at(([127, 0, 0, 2], 0), |mut stream| {
        use std::io::Write;
        let _ = stream.write_all(b"other");
    });
    let directory = TempDir::new().unwrap();
    let at = |name: &str| directory.path().join(name);
    for name in ["in", "out"] {
        fs::create_dir(at(name)).unwrap();
        named_at(&at(name).join("socket"), "socket");
    }
    let port = loopback.address.port();
    let text = format!(
        "good: 127.0.0.1:{port}\nname: localhost:{port}\nother: {}\nport: 127.0.0.1:1\nany: 0.0.0.0:{port}\n\
         mapped: [::ffff:127.0.0.2]:{port}\nin: unix_socket:{in_}/socket\nout: unix_socket:{out}/socket\n\
         up: unix_socket:{in_}/../out/socket\nunresolved: no.such.host.invalid:1\n",
        other.target(),
        in_ = at("in").display(),
        out = at("out").display()
    );
    fs::write(at("tokens"), text).unwrap();
    let allow = format!("--target-allow=127.0.0.1/32:{port} unix:in");
    let (websockify, port) = bridge(&directory, &["--target-config=tokens", &allow]);
    for (token, said) in [("good", "one"), ("name", "one"), ("in", "socket")] {
        assert_eq!(by_token(port, token), Ok(said.into()), "{token}");
    }
    websockify
        .wait_for_log(&["session started", &format!("to localhost:{}", loopback.address.port())]);
    for token in ["other", "port", "any", "mapped", "out", "up", "unknown"] {
        assert_eq!(refused(port, token), 403, "{token}");
    }
    let target = other.target();
    websockify.wait_for_log(&[
        "WARN",
        "refused a handshake",
        &format!("leads to {target}, which is not allowed (403"),
    ]);
    assert_eq!(refused(port, "unresolved"), 503);
    websockify.wait_for_log(&["WARN", "cannot look up no.such.host.invalid:1: "]);
    // Without the option tokens lead anywhere.
    let (_websockify, port) = bridge(&directory, &["--target-config=tokens"]);
    assert_eq!(by_token(port, "other"), Ok("other".into()));
}
