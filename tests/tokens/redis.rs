//! A real Redis that knows the tokens: with a password, a database and a namespace, restarted, and stopped (K6).

use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::{bridge, by_token, named, named_at, refused};
use crate::support::{Footprint, Redis, Service, free_port};

#[test]
fn k6_a_redis_says_where_a_token_leads() {
    let Some(redis) = Redis::start(free_port(), &[]) else { return };
    let (one, directory) = (named("one"), TempDir::new().unwrap());
    named_at(&directory.path().join("socket"), "socket");
    let target = one.target();
    redis.tell(&[
        format!("SET text {target}"),
        format!(r#"SET json '{{"host": "{target}"}}'"#),
        format!("SET unix unix_socket:{}", directory.path().join("socket").display()),
        format!(r#"SET "a b\\x00\\r\\nc" {target}"#).replace("\\\\", "\\"),
        "SET nonsense nonsense".into(),
        "SET half '{\"host\": \"a'".into(),
        "SET empty ''".into(),
        format!("SET long {}", "a".repeat(65 * 1024)),
        "LPUSH list a:1".into(),
    ]);
    let source = format!("--token-source=127.0.0.1:{}", redis.port);
    let (websockify, port) = bridge(&directory, &["--token-plugin=TokenRedis", &source]);
    for (token, said) in
        [("text", "one"), ("json", "one"), ("unix", "socket"), ("a+b%00%0D%0Ac", "one")]
    {
        assert_eq!(by_token(port, token), Ok(said.into()), "{token}");
    }
    for token in ["absent", "list", "TEXT", "text%0D%0AGET+text", &"a".repeat(9000)] {
        assert_eq!(refused(port, token), 403, "{token}");
    }
    for (token, why) in [
        ("nonsense", "its value cannot be read: it is not host:port"),
        ("half", "its value cannot be read: it is not JSON"),
        ("empty", "its value cannot be read: it is not host:port"),
        ("long", "its answer is longer than 64 KiB"),
    ] {
        assert_eq!(refused(port, token), 503, "{token}");
        let name = format!("at redis://127.0.0.1:{}: {why} (503", redis.port);
        websockify.wait_for_log(&["WARN", "cannot look a token up", &name]);
    }
}

/// K6, K8: as it is typed for the Python websockify, with quotes.
#[test]
fn k6_a_password_a_database_and_a_namespace_may_be_typed() {
    let Some(redis) = Redis::start(free_port(), &["--requirepass", "se:cret"]) else { return };
    let (one, two, directory) = (named("one"), named("two"), TempDir::new().unwrap());
    redis.tell(&[
        "AUTH se:cret".into(),
        format!("SET a {}", two.target()),
        "SELECT 3".into(),
        format!("SET first:second:a {}", one.target()),
        format!("SET a {}", two.target()),
    ]);
    let at = |rest: &str| format!("--token-source=localhost:{}:{rest}", redis.port);
    for (source, expected) in [
        (at("3:\"se:cret\":\"first:second\""), "one"),
        (at("3:\"se:cret\""), "two"),
        (at(":\"se:cret\":"), "two"),
    ] {
        let (_websockify, port) = bridge(&directory, &["--token-plugin=TokenRedis", &source]);
        assert_eq!(by_token(port, "a"), Ok(expected.into()), "{source}");
        assert_eq!(refused(port, "b"), 403, "{source}");
    }
    for (source, why) in
        [(at(":wrongpass"), "WRONGPASS"), (at(""), "NOAUTH"), (at("99:\"se:cret\""), "SELECT")]
    {
        let (websockify, port) = bridge(&directory, &["--token-plugin=TokenRedis", &source]);
        assert_eq!(refused(port, "a"), 503, "{source}");
        websockify.wait_for_log(&[
            "WARN",
            "cannot look a token up at redis://localhost:",
            why,
            "(503",
        ]);
        for secret in ["wrongpass", "se:cret"] {
            assert_eq!(websockify.logged(&[secret]), Vec::<String>::new());
        }
    }
}

/// L6, K6: Redis hung: the look-ups that wait for it are 503 after 10 s, nobody else waits, and it is good again when it goes
/// on.
#[test]
fn k6_the_connection_is_kept_and_mends_itself() {
    let number = free_port();
    let Some(redis) = Redis::start(number, &[]) else { return };
    let (one, directory) = (named("one"), TempDir::new().unwrap());
    let set = [format!("SET a {}", one.target())];
    redis.tell(&set);
    let source = format!("--token-source=127.0.0.1:{number}");
    let (websockify, port) = bridge(&directory, &["--token-plugin=TokenRedis", &source]);
    let connections = |redis: &Redis| {
        let mut stream = redis.connect().unwrap();
        write!(stream, "INFO stats\r\n").unwrap();
        let mut said = String::new();
        while !said.contains("total_commands") {
            let mut bytes = [0; 4096];
            let length = stream.read(&mut bytes).unwrap();
            said.push_str(std::str::from_utf8(&bytes[..length]).unwrap());
        }
        let number = said.split("total_connections_received:").nth(1).unwrap();
        number.split("\r\n").next().unwrap().parse::<u32>().unwrap()
    };
    let before = connections(&redis);
    for _ in 0..20 {
        assert_eq!(by_token(port, "a"), Ok("one".into()));
    }
    assert_eq!(connections(&redis) - before, 2, "one of ours, and one to ask");
    drop(redis);
    assert_eq!(refused(port, "a"), 503);
    let name = format!("at redis://127.0.0.1:{number}: connection refused (503");
    websockify.wait_for_log(&["WARN", "cannot look a token up", &name]);
    let redis = Redis::start(number, &[]).unwrap();
    redis.tell(&set);
    for _ in 0..3 {
        assert_eq!(by_token(port, "a"), Ok("one".into()));
    }
    let before = Footprint::at_rest(&websockify);
    // A Redis that hangs costs its own look-ups only, and is used again when it goes on.
    redis.signal(Signal::SIGSTOP);
    let late: Vec<_> = (0..5).map(|_| thread::spawn(move || refused(port, "a"))).collect();
    let began = Instant::now();
    assert_eq!(refused(port, ""), 403);
    assert!(began.elapsed() < Duration::from_secs(5), "it does not wait for Redis");
    for late in late {
        assert_eq!(late.join().unwrap(), 503);
    }
    websockify.wait_for_log(&["WARN", "in redis://127.0.0.1:", "no answer within 10 s (503"]);
    redis.signal(Signal::SIGCONT);
    assert_eq!(by_token(port, "a"), Ok("one".into()));
    before.wait_until_back(&websockify);
}

/// A server of another kind, and one that answers more than it was asked.
#[test]
fn k6_what_does_not_speak_as_redis_does_is_named() {
    let directory = TempDir::new().unwrap();
    for (said, why) in [
        ("HTTP/1.1 400 Bad Request\r\n\r\n", "it does not speak as Redis does"),
        ("*1\r\n*1\r\n", "it does not speak as Redis does"),
        ("$1\r\na\r\n+OK\r\n", "it answers what was not asked"),
        ("$99\r\na", "connection closed"),
        ("-LOADING a moment\r\n", "it answers \\\"LOADING a moment\\\""),
    ] {
        let server = Service::new(move |mut stream| {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(said.as_bytes());
        });
        let source = format!("--token-source={}", server.target());
        let (websockify, port) = bridge(&directory, &["--token-plugin=TokenRedis", &source]);
        assert_eq!(refused(port, "a"), 503, "{said:?}");
        websockify.wait_for_log(&["WARN", &why.replace('\\', "")]);
    }
}
