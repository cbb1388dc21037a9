//! The numbers in `/metrics` after known events (O3).

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::{ANOTHER, ask, echo_bridge, get, metric};
use crate::support::{
    Actor, Client, Head, Websockify, connect, echo_service, free_port, needs, read_to_end, request,
    root, text_of, wait_for, wait_until,
};

/// Sends a handshake; gives the status of the answer.
fn handshake(port: u16, path: &str, headers: &[&str]) -> u16 {
    begin(port, path, headers).0.status
}

/// Sends a handshake; gives the head of the answer, and the connection.
fn begin(port: u16, path: &str, headers: &[&str]) -> (Head, TcpStream) {
    let usual = [
        "Upgrade: websocket",
        "Connection: Upgrade, close",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    request(port, path, &[&usual, headers].concat())
}

/// Waits until each of these metrics has its value.
fn wait_for_counts(admin: u16, counts: &[(&str, u64)]) -> String {
    wait_for(&format!("{counts:?}"), || {
        let page = get(admin, "/metrics").body;
        let is_so = |(name, count): &(&str, u64)| {
            metric(&page, &format!("websockify_{name}")).to_string() == count.to_string()
        };
        counts.iter().all(is_so).then_some(page)
    })
}

#[test]
fn o3_sessions_and_their_bytes_count_once_open_or_ended() {
    let (_service, _websockify, port, admin) = echo_bridge("");
    let mut clients = [Client::connect(port), Client::connect(port)];
    let payload = vec![b'x'; 100_000];
    for (client, length) in clients.iter_mut().zip([100_000, 5]) {
        client.send(&payload[..length]);
        assert_eq!(client.read(length).len(), length);
    }
    let bytes = [("received_bytes_total", 100_005), ("sent_bytes_total", 100_005)];
    let begun = [("sessions_total", 2), ("handshakes_total{version=\"13\"}", 2)];
    let counts = [&bytes[..], &begun, &[("open_sessions", 2), ("open_connections", 2)]].concat();
    wait_for_counts(admin, &counts);
    for client in clients {
        assert_eq!(client.close().code, 1000);
    }
    // And a client that leaves without a close frame.
    drop(Client::connect(port));
    let begun = [("sessions_total", 3), ("connections_total", 3)];
    let ended = [("open_sessions", 0), ("open_connections", 0)];
    let codes =
        [("sessions_ended_total{code=\"1000\"}", 2), ("sessions_ended_total{code=\"1006\"}", 1)];
    let page = wait_for_counts(admin, &[&bytes[..], &begun, &ended, &codes].concat());
    println!("{page}");
}

#[test]
fn o3_refusals_are_counted_by_their_reason() {
    let directory = TempDir::new().unwrap();
    let (service, port, admin, nobody) = (echo_service(), free_port(), free_port(), free_port());
    let tokens =
        format!("good: {}\nbad: 127.0.0.1:{nobody}\nfar: 192.0.2.1:80\n", service.target());
    fs::write(directory.path().join("tokens"), tokens).unwrap();
    let line = format!(
        "{port} --admin=127.0.0.1:{admin} --target-config=tokens --target-allow=127.0.0.0/8 \
         --auth-plugin=BasicHTTPAuth --auth-source=a:b --max-connections-per-client=50 \
         --allow-from=127.0.0.1 --cert=absent.pem"
    );
    let websockify = Websockify::start_with(&line, |command| {
        command.current_dir(&directory);
    });
    websockify.wait_until_open();
    let known = "Authorization: Basic YTpi";
    assert_eq!(handshake(port, "/?token=good", &[]), 401);
    assert_eq!(handshake(port, "/?token=good", &["Authorization: Basic YTpj"]), 401);
    for (path, status) in
        [("/", 403), ("/?token=x", 403), ("/?token=far", 403), ("/?token=good", 101)]
    {
        assert_eq!(handshake(port, path, &[known]), status, "{path}");
    }
    // This client stays until it is told that its target cannot be reached.
    let (head, _client) = begin(port, "/?token=bad", &[known]);
    assert_eq!(head.status, 101);
    let unknown = ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 99"];
    assert_eq!(request(port, "/", &unknown).0.status, 426);
    let mut garbage = connect(port);
    garbage.write_all(b"\x01\x02\r\n\r\n").unwrap();
    read_to_end(&mut garbage);
    let mut tls = connect(port);
    tls.write_all(&[0x16, 3, 1, 0, 1, 1]).unwrap();
    read_to_end(&mut tls);
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::from((ANOTHER, 0)).into()).unwrap();
    socket.connect(&std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).unwrap();
    let page = wait_for_counts(
        admin,
        &[
            ("refusals_total{reason=\"no_credentials\"}", 1),
            ("refusals_total{reason=\"credentials\"}", 1),
            ("refusals_total{reason=\"no_token\"}", 1),
            ("refusals_total{reason=\"unknown_token\"}", 1),
            ("refusals_total{reason=\"target_not_allowed\"}", 1),
            ("refusals_total{reason=\"handshake\"}", 1),
            ("refusals_total{reason=\"head\"}", 1),
            ("refusals_total{reason=\"address\"}", 1),
            ("refusals_total{reason=\"session_limit\"}", 0),
            ("tls_failures_total{reason=\"no_certificate\"}", 1),
            ("target_failures_total{reason=\"connect\"}", 1),
            ("sessions_ended_total{code=\"1011\"}", 1),
            ("lookups_total{source=\"TokenFile\",result=\"found\"}", 3),
            ("lookups_total{source=\"TokenFile\",result=\"unknown\"}", 1),
            ("lookup_duration_seconds_count{source=\"TokenFile\"}", 4),
            ("lookup_duration_seconds_bucket{source=\"TokenFile\",le=\"+Inf\"}", 4),
        ],
    );
    let seconds = metric(&page, "websockify_lookup_duration_seconds_sum{source=\"TokenFile\"}");
    assert!(seconds > 0.0 && seconds < 20.0, "{seconds}");
    println!("{page}");
}

/// Two websockifys whose pages together have every family of metrics: one with tokens, and one that wraps a program.
fn both() -> [(Websockify, u16); 2] {
    let directory = TempDir::new().unwrap();
    let tokens = directory.path().join("tokens");
    fs::write(&tokens, "").unwrap();
    let lines = [format!("--target-config={}", tokens.display()), String::new()];
    lines.map(|options| {
        let (port, admin) = (free_port(), free_port());
        let program = match &*options {
            "" => format!("-- {Actor} bind {port} listen serve"),
            _ => String::new(),
        };
        let line = format!("{port} --admin=127.0.0.1:{admin} {options} {program}");
        let websockify = Websockify::start(&line);
        websockify.wait_until_open();
        (websockify, admin)
    })
}

#[test]
fn o3_promtool_finds_nothing_to_say() {
    if !needs(&["promtool"]) {
        return;
    }
    for (_websockify, admin) in both() {
        let page = get(admin, "/metrics").body;
        let mut promtool = Command::new("promtool");
        promtool.args(["check", "metrics"]).stdin(Stdio::piped());
        let mut promtool = promtool.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        promtool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
        let output = promtool.wait_with_output().unwrap();
        let said = text_of(&output.stdout) + &text_of(&output.stderr);
        assert_eq!((output.status.success(), &*said), (true, ""), "{page}");
    }
}

/// C5, O3: fails when a metric is added that the manual page does not explain.
#[test]
fn o3_the_manual_page_has_every_metric_and_no_other() {
    let mut there = BTreeSet::new();
    for (_websockify, admin) in both() {
        let page = get(admin, "/metrics").body;
        let families = page.lines().filter_map(|line| line.strip_prefix("# HELP "));
        there.extend(families.map(|line| line.split(' ').next().unwrap().to_owned()));
        for family in &there {
            assert!(family.starts_with("websockify_"), "{family}");
        }
    }
    let section = fs::read_to_string(root().join("man/sections/admin.roff")).unwrap();
    let explained = section.split(".TP\n.B ").skip(1).filter_map(|entry| entry.lines().next());
    let explained = explained.filter(|name| name.starts_with("websockify_")).map(str::to_owned);
    assert_eq!(explained.collect::<BTreeSet<_>>(), there);
    assert!(there.len() > 20, "{there:?}");
}

/// O3: whatever clients send, `/metrics` has the same samples as before.
#[test]
fn o3_no_client_makes_a_number_more() {
    let (_service, _websockify, port, admin) = echo_bridge("");
    let names = |page: &str| -> Vec<String> {
        let samples = page.lines().filter(|line| !line.starts_with('#'));
        samples.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
    };
    let before = names(&get(admin, "/metrics").body);
    for number in 0..20 {
        let path = format!("/{number}?token={number}");
        assert_eq!(handshake(port, &path, &["User-Agent: x"]), 101);
        let version = format!("Sec-WebSocket-Version: {number}");
        let status = request(port, &path, &["Upgrade: websocket", "Connection: Upgrade", &version]);
        assert_ne!(status.0.status, 101);
        assert_eq!(ask(admin, "DELETE", &path).status, 404);
    }
    assert_eq!(names(&get(admin, "/metrics").body), before);
}

/// O3: a websockify whose admin address is asked without pause still serves its clients.
#[test]
fn o3_sessions_go_on_while_everything_is_asked_for() {
    let (_service, websockify, port, admin) = echo_bridge("");
    let mut clients: Vec<_> = (0..50).map(|_| Client::connect(port)).collect();
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            for _ in 0..50 {
                assert_eq!(get(admin, "/metrics").status, 200);
                assert_eq!(get(admin, "/sessions").status, 200);
            }
        });
        let mut sent = 0;
        while !asking.is_finished() {
            for client in &mut clients {
                client.send("hello");
                assert_eq!(client.read(5), b"hello");
                sent += 5;
            }
        }
        let received = || metric(&get(admin, "/metrics").body, "websockify_received_bytes_total");
        wait_until("all bytes", || received().to_string() == sent.to_string());
    });
    drop(clients);
    assert_eq!(websockify.warnings(), Vec::<String>::new());
}
