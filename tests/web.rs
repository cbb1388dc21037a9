//! `--web`: files and sessions on one port.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::support::{
    Authority, Caller, Client, Head, Process, SERVERS, WEBSOCKIFY, Websockify, ask, connect,
    echo_service, free_port, is_refused, needs, read_to_end, request, run, uninterrupted,
    wait_until,
};

/// The web terminal's page.
const DIST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../contrib/wstelnet/dist");

/// A websockify that serves `directory` and bridges to an echo service, and its port.
fn serve(directory: &str, options: &str) -> (Websockify, u16) {
    let port = free_port();
    let target = echo_service().target();
    let websockify = Websockify::start(&format!("{port} {target} --web={directory} {options}"));
    websockify.wait_until_open();
    (websockify, port)
}

/// Asks for a file on a connection that stays open; gives its head and its bytes.
fn get(stream: &mut TcpStream, path: &str, headers: &[&str]) -> (Head, Vec<u8>) {
    let head = ask(stream, path, headers);
    let length = if head.status == 304 { Some("0") } else { head.header("content-length") };
    let mut body = vec![0; length.unwrap().parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    (head, body)
}

/// H2: the default certificate `self.pem` contains websockify's key, and may lie beside the pages.
#[test]
fn h2_our_key_is_served_to_nobody_by_no_name() {
    let directory = TempDir::new().unwrap();
    let file = |name: &str| directory.path().join(name);
    fs::write(file("self.pem"), "not even a key").unwrap();
    fs::write(file("page.txt"), "a page").unwrap();
    fs::hard_link(file("self.pem"), file("other.txt")).unwrap();
    std::os::unix::fs::symlink("self.pem", file("third.txt")).unwrap();
    let port = free_port();
    let target = echo_service().target();
    let websockify = Websockify::start_with(&format!("{port} {target} --web=."), |command| {
        command.current_dir(directory.path());
    });
    websockify.wait_until_open();
    let mut stream = connect(port);
    assert_eq!(get(&mut stream, "/page.txt", &[]).1, b"a page");
    for name in ["self.pem", "other.txt", "third.txt"] {
        assert_eq!(get(&mut stream, &format!("/{name}"), &[]).0.status, 404, "{name}");
    }
}

#[test]
fn u7_with_file_only_no_directory_is_listed_and_pages_are_served() {
    let directory = TempDir::new().unwrap();
    fs::create_dir_all(directory.path().join("sub/bare")).unwrap();
    fs::write(directory.path().join("sub/index.html"), "a page").unwrap();
    let (service, port) = (echo_service(), free_port());
    let options = format!("--file-only --web={}", directory.path().display());
    let websockify = Websockify::start(&format!("{options} {port} {}", service.target()));
    websockify.wait_until_open();
    let mut stream = connect(port);
    let mut status = |path: &str| get(&mut stream, path, &[]).0.status;
    let all = ["/", "/sub/bare/", "/sub/", "/sub/index.html"].map(&mut status);
    assert_eq!(all, [404, 404, 200, 200]);
}

/// F6: no file that websockify writes, or reads a secret from, by whatever name, of this run and of earlier ones; and
/// no file that people hide.
#[test]
fn f6_no_file_of_ours_is_served_or_listed() {
    let directory = TempDir::new().unwrap();
    let file = |name: &str| directory.path().join(name);
    let write = |name: &str| fs::write(file(name), name).unwrap();
    for name in [".git", ".well-known", "sub", "sub/.well-known"] {
        fs::create_dir(file(name)).unwrap();
    }
    let served = ["page.txt", "web.log.html", "rec.html", ".well-known/x", "index.htm"];
    let hidden = [".git/config", ".htpasswd", "sub/.hidden", "sub/.well-known/x", ".well-known/.x"];
    let earlier = ["rec.7", "rec.8.gz", "web.log.1", "web.log-20240101"];
    served.iter().chain(&hidden).chain(&earlier).for_each(|name| write(name));
    fs::hard_link(file("rec.7"), file("hard.txt")).unwrap();
    std::os::unix::fs::symlink("rec.8.gz", file("soft.txt")).unwrap();
    std::os::unix::fs::symlink("../web.log", file("sub/log.txt")).unwrap();
    let port = free_port();
    let target = echo_service().target();
    let options = "--web=. --record=rec --log-file=web.log --pid-file=web.pid";
    let mut shell = Command::new("sh");
    let line = format!("exec {WEBSOCKIFY} {options} {port} {target} 2>errors");
    let mut websockify = Websockify::launch(shell.args(["-c", &line]).current_dir(&directory));
    let mut client = Client::connect_once_open(port);
    exchange(&mut client);
    wait_until("a recording", || file("rec.1").exists());
    fs::rename(file("web.log"), file("old.txt")).unwrap();
    websockify.signal(Signal::SIGHUP);
    wait_until("a new log", || file("web.log").exists());
    fs::hard_link(file("rec.1"), file("sub/now.txt")).unwrap();

    let ours = [
        "rec.1",
        "web.log",
        "web.pid",
        "errors",
        "old.txt",
        "hard.txt",
        "soft.txt",
        "sub/log.txt",
        "sub/now.txt",
    ];
    let mut stream = connect(port);
    let mut status = |name: &str| get(&mut stream, &format!("/{name}"), &[]).0.status;
    for name in served {
        assert_eq!(status(name), 200, "{name}");
    }
    for name in ours.iter().chain(&earlier).chain(&hidden) {
        assert!(file(name).exists(), "{name}");
        assert_eq!(status(name), 404, "{name}");
    }
    let mut listed = |path: &str| {
        let page = String::from_utf8(get(&mut stream, path, &[]).1).unwrap();
        let names = page.split("<a href=\"./").skip(1).map(|rest| rest.split('"').next().unwrap());
        names.map(str::to_owned).collect::<Vec<_>>()
    };
    let root = [".well-known/", "sub/", "index.htm", "page.txt", "rec.html", "web.log.html"];
    assert_eq!(listed("/"), root);
    assert_eq!(listed("/sub/"), [""; 0]);
    assert_eq!(listed("/.well-known/"), ["x"]);
    // A recording is not served as the page of a directory either.
    fs::hard_link(file("rec.1"), file("sub/index.html")).unwrap();
    assert_eq!(get(&mut stream, "/sub/", &[]).0.status, 404);
    drop(client);
    assert_eq!(websockify.stop(), 0);
}

/// F6: the certificate, key and authorities that options name.
#[test]
fn f6_no_certificate_and_no_key_is_served_also_after_it_was_replaced() {
    let directory = TempDir::new().unwrap();
    let file = |name: &str| directory.path().join(name);
    let authority = Authority::new("authority");
    let (identity, next) = (SERVERS.issue("localhost"), SERVERS.issue("localhost"));
    let joe = authority.issue("Joe");
    fs::write(file("page"), "a page").unwrap();
    fs::write(file("ca.pem"), authority.pem()).unwrap();
    fs::write(file("cert.pem"), identity.pem()).unwrap();
    fs::write(file("key.pem"), identity.pem()).unwrap();
    let port = free_port();
    let target = echo_service().target();
    let options = "--web=. --cert=cert.pem --key=key.pem --verify-client --cafile=ca.pem";
    let websockify = Websockify::start_with(&format!("{options} {port} {target}"), |command| {
        command.current_dir(&directory);
    });
    websockify.wait_until_open();
    let status = |name: &str| {
        let mut caller = Caller::with(&joe, &[]).call(port).unwrap();
        caller.request(&format!("GET /{name} HTTP/1.1\r\nHost: x\r\n\r\n")).unwrap()
    };
    assert_eq!(status("page"), 200);
    for name in ["ca.pem", "cert.pem", "key.pem"] {
        assert_eq!(status(name), 404, "{name}");
    }
    for name in ["cert.pem", "key.pem"] {
        fs::rename(file(name), file(&format!("old-{name}"))).unwrap();
        fs::write(file(name), next.pem()).unwrap();
    }
    websockify.signal(Signal::SIGHUP);
    websockify.wait_for_log(&["certificates are reloaded"]);
    for name in ["cert.pem", "key.pem", "old-cert.pem", "old-key.pem"] {
        assert_eq!(status(name), 404, "{name}");
    }
}

fn exchange(client: &mut Client) {
    client.send("hello");
    assert_eq!(client.read(5), b"hello");
}

/// H1, H3, H4: the page, all that it needs, and then the session over one connection, as from a reverse proxy.
#[test]
fn h3_the_terminal_page_and_its_session_come_over_one_connection() {
    let (mut websockify, port) = serve(DIST, "-v");
    let mut stream = connect(port);
    for (name, kind) in [
        ("wstelnet.html", "text/html"),
        ("wstelnet.css", "text/css"),
        ("wstelnet.js", "text/javascript"),
    ] {
        let (head, body) = get(&mut stream, &format!("/{name}"), &[]);
        assert_eq!((head.status, head.header("content-type")), (200, Some(kind)));
        assert!(body == fs::read(format!("{DIST}/{name}")).unwrap(), "{name}");
        let condition = format!("If-None-Match: {}", head.header("etag").unwrap());
        assert_eq!(get(&mut stream, &format!("/{name}"), &[&condition]).0.status, 304);
    }
    websockify.wait_for_log(&["DEBUG", "web request", " GET \"/wstelnet.js\"", "200"]);
    let address = stream.peer_addr().unwrap();
    let mut client = Client::over(stream, address).unwrap();
    exchange(&mut client);
    assert_eq!(client.close().code, 1000);
    assert_eq!(websockify.stop(), 0);
}

/// H1: a page of many modules, as noVNC is one, over one connection.
#[test]
fn h1_a_hundred_modules_over_one_connection() {
    let directory = TempDir::new().unwrap();
    for number in 0..100 {
        let module = format!("export const number = {number};\n").repeat(number + 1);
        fs::write(directory.path().join(format!("{number}.js")), module).unwrap();
    }
    let (_websockify, port) = serve(directory.path().to_str().unwrap(), "");
    let mut stream = connect(port);
    for number in 0..100 {
        let (head, body) = get(&mut stream, &format!("/{number}.js"), &[]);
        assert_eq!((head.status, head.header("content-type")), (200, Some("text/javascript")));
        assert!(
            String::from_utf8(body)
                .unwrap()
                .starts_with(&format!("export const number = {number};"))
        );
    }
}

/// H1: an ordinary client resumes a download.
#[test]
fn h1_curl_loads_resumes_and_asks_whether_it_is_new() {
    if !needs(&["curl"]) {
        return;
    }
    let directory = TempDir::new().unwrap();
    let web = directory.path().join("web");
    fs::create_dir(&web).unwrap();
    let bytes: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_be_bytes).collect();
    fs::write(web.join("a file"), &bytes).unwrap();
    let (_websockify, port) = serve(web.to_str().unwrap(), "");
    let curl = |arguments: &[&str]| {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail", "--max-time", "30"]).args(arguments);
        let output = curl.current_dir(&directory).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let url = format!("http://127.0.0.1:{port}/a%20file");
    let got = || fs::read(directory.path().join("got")).unwrap();
    fs::write(directory.path().join("got"), &bytes[..1_000_000]).unwrap();
    assert_eq!(curl(&["-C", "-", "-o", "got", "-w", "%{http_code}", &url]), "206");
    assert!(got() == bytes);
    fs::remove_file(directory.path().join("got")).unwrap();
    assert_eq!(curl(&["-o", "got", "--etag-save", "tag", "-w", "%{http_code}", &url]), "200");
    assert!(got() == bytes);
    let again = curl(&["-o", "again", "--etag-compare", "tag", "-w", "%{http_code}", &url]);
    assert_eq!(again, "304");
    let list = curl(&[&format!("http://127.0.0.1:{port}/")]);
    assert!(list.contains("<a href=\"./a%20file\">a file</a><td>11.4 MiB"), "{list}");
}

/// A large file is sent without much memory.
#[test]
fn h1_a_file_is_streamed() {
    let directory = TempDir::new().unwrap();
    let size = 256 << 20;
    fs::File::create(directory.path().join("large")).unwrap().set_len(size).unwrap();
    let (websockify, port) = serve(directory.path().to_str().unwrap(), "");
    let (head, mut stream) = request(port, "/large", &["Connection: close"]);
    assert_eq!(head.header("content-length"), Some(&*size.to_string()));
    let (mut piece, mut length) = (vec![1; 1 << 20], 0);
    loop {
        match uninterrupted(|| stream.read(&mut piece)).unwrap() {
            0 => break,
            read => length += read as u64,
        }
    }
    assert_eq!(length, size);
    let status = procfs::process::Process::new(websockify.pid()).unwrap().status().unwrap();
    let most = status.vmhwm.unwrap();
    assert!(most < 64 << 10, "{most} kB");
}

/// F17: a client that asks for a file and reads nothing costs little.
#[test]
fn f17_a_download_that_nobody_reads_costs_little_memory() {
    const STALLED: u64 = 100;
    let directory = TempDir::new().unwrap();
    fs::File::create(directory.path().join("large")).unwrap().set_len(1 << 30).unwrap();
    let (websockify, port) = serve(directory.path().to_str().unwrap(), "");
    let resident = || {
        let process = procfs::process::Process::new(websockify.pid()).unwrap();
        process.status().unwrap().vmrss.unwrap()
    };
    // The first download allocates what all of them use.
    let _first = request(port, "/large", &[]);
    let before = resident();
    let _stalled: Vec<_> = (0..STALLED).map(|_| request(port, "/large", &[])).collect();
    let queued = || {
        let sockets = procfs::net::tcp().unwrap();
        let ours = sockets.iter().filter(|socket| socket.local_address.port() == port);
        ours.filter(|socket| socket.tx_queue > 100_000).count() as u64
    };
    wait_until("all are stalled", || queued() > STALLED);
    let each = (resident() - before) / STALLED;
    println!("{each} kB each");
    // It was 151 kB, and is 39; what the allocator keeps differs from run to run, up to 110 under load.
    assert!(each < 120, "{each} kB each");
}

#[test]
fn c4_a_directory_that_is_none_is_named_before_anything_starts() {
    for (directory, reason) in
        [("/nowhere/web", "no such file"), ("/etc/passwd", "not a directory")]
    {
        for more in ["", "-D "] {
            let port = free_port();
            let output = run(&format!("{more}--web={directory} {port} -- touch ran"));
            let said = output.err.join("\n");
            assert_eq!((output.status, output.err.len()), (1, 1), "{said}");
            assert!(said.contains(directory) && said.contains(reason), "{said}");
            assert!(!std::path::Path::new("ran").exists());
        }
    }
    let output = run("--web");
    assert_eq!(output.status, 2);
}

/// D1: a relative path is relative to the directory in which it was typed, also for a daemon.
#[test]
fn d1_a_relative_directory_is_where_it_was_typed() {
    let home = TempDir::new().unwrap();
    fs::create_dir(home.path().join("pages")).unwrap();
    fs::write(home.path().join("pages/x"), "here").unwrap();
    let port = free_port();
    let pid_file = home.path().join("pid");
    let line = format!(
        "-D --pid-file={} --log-file={} --web=pages {port} 127.0.0.1:9",
        pid_file.display(),
        home.path().join("log").display()
    );
    let mut websockify = Websockify::start_with(&line, |command| {
        command.current_dir(&home);
    });
    assert_eq!(websockify.wait(), 0);
    let (head, body) = get(&mut connect(port), "/x", &[]);
    assert_eq!((head.status, &*body), (200, &b"here"[..]));
    let pid = fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
    let daemon = Process::find(pid).unwrap();
    daemon.signal(Signal::SIGTERM);
    wait_until("the end of the daemon", || !daemon.is_alive());
}

#[test]
fn b8_files_do_not_count_as_the_one_session() {
    let (websockify, port) = serve(DIST, "--run-once");
    for _ in 0..3 {
        assert_eq!(get(&mut connect(port), "/wstelnet.html", &[]).0.status, 200);
    }
    let mut client = Client::connect(port);
    exchange(&mut client);
    assert_eq!(client.close().code, 1000);
    assert_eq!(websockify.output().status, 0);
}

#[test]
fn b8_files_hold_up_no_time_limit() {
    for limit in ["--idle-timeout=2", "--timeout=2"] {
        let began = Instant::now();
        let (mut websockify, port) = serve(DIST, limit);
        let mut kept = connect(port);
        get(&mut kept, "/wstelnet.html", &[]);
        while websockify.is_running() {
            assert!(began.elapsed() < Duration::from_secs(20), "web requests keep it up");
            if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
                let _ = stream.write_all(b"GET /wstelnet.js HTTP/1.0\r\n\r\n");
                let _ = stream.read_to_end(&mut Vec::new());
            }
        }
        assert!(began.elapsed() >= Duration::from_secs(2), "{limit}");
        assert_eq!(read_to_end(&mut kept), b"");
        assert!(is_refused(std::net::Ipv4Addr::LOCALHOST, port));
        assert_eq!(websockify.output().status, 0);
    }
}

/// T6: five hundred clients that send nothing or half a head, do not read what they asked for, or are idle after an
/// answer.
#[test]
fn t6_five_hundred_stallers_hold_up_nobody() {
    let directory = TempDir::new().unwrap();
    fs::File::create(directory.path().join("large")).unwrap().set_len(1 << 30).unwrap();
    fs::write(directory.path().join("small"), "small").unwrap();
    let (mut websockify, port) = serve(directory.path().to_str().unwrap(), "");
    let began = Instant::now();
    let stall = |number: usize| {
        let mut staller = connect(port);
        match number % 4 {
            0 => {}
            1 => staller.write_all(b"GET /small HT").unwrap(),
            2 => staller.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n").unwrap(),
            _ => assert_eq!(get(&mut staller, "/small", &[]).1, b"small"),
        }
        staller
    };
    let mut stallers: Vec<_> = (0..500).map(stall).collect();
    let asked = Instant::now();
    for _ in 0..10 {
        assert_eq!(get(&mut connect(port), "/small", &[]).1, b"small");
        let mut client = Client::connect(port);
        exchange(&mut client);
        assert_eq!(client.close().code, 1000);
    }
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
    // Half of them have a head to send, and are closed. The idle ones and the slow readers have longer.
    for staller in stallers.chunks_mut(2).step_by(2).flatten() {
        read_to_end(staller);
    }
    let time = began.elapsed();
    assert!(time >= Duration::from_secs(9) && time < Duration::from_secs(40), "{time:?}");
    assert_eq!(get(&mut stallers[3], "/small", &[]).1, b"small", "kept alive");
    assert_eq!(websockify.stop(), 0);
}
