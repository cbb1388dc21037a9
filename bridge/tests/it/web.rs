//! Files on the same port: H1, H2, H3, T6, B8.

use std::fs;
use std::path::Path;

use bridge::{Config, Outcome, Shutdown};
use nix::sys::socket::{setsockopt, sockopt::TcpMaxSeg};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::*;

/// A bridge that serves a directory with some files in it.
struct Site {
    bridge: Bridge,
    target: tokio::net::TcpListener,
    directory: TempDir,
}

/// A response, its header names in lower case.
struct Response {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Response {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")))
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Site {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let directory = TempDir::new().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            let path = directory.path().join("web").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        };
        write("index.html", b"<title>home</title>");
        write("app/core.js", b"export {};");
        write("app/empty", b"");
        write("app/<i>&.txt", b"angular");
        write("page/index.html", b"a page");
        write("big.bin", &pattern(8 << 20));
        fs::write(directory.path().join("secret"), b"secret").unwrap();
        let target = listener().await;
        let mut config = config(address_of(&target));
        config.web = Some(directory.path().join("web"));
        change(&mut config);
        Self { bridge: Bridge::start(config), target, directory }
    }

    /// The directory that has `web`, which is served, and beside it the file `secret`, which is not.
    fn home(&self) -> &Path {
        self.directory.path()
    }

    async fn get(&self, path: &str, headers: &str) -> Response {
        ask(&mut self.bridge.connect().await, "GET", path, headers).await
    }
}

async fn ask(stream: &mut TcpStream, method: &str, path: &str, headers: &str) -> Response {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
    within(stream.write_all(request.as_bytes())).await.unwrap();
    let head = read_head(stream).await;
    let lower = |line: &str| match line.split_once(": ") {
        Some((name, value)) => format!("{}: {value}\n", name.to_ascii_lowercase()),
        None => format!("{line}\n"),
    };
    let mut response = Response {
        status: head[9..12].parse().unwrap(),
        head: head.lines().map(lower).collect(),
        body: Vec::new(),
    };
    let length = response.header("content-length").map_or(0, |length| length.parse().unwrap());
    if method != "HEAD" && response.status != 304 {
        response.body = read_exact(stream, length).await;
    }
    response
}

#[tokio::test]
async fn h1_files_come_with_their_type_on_one_connection() {
    let site = Site::new().await;
    let mut stream = site.bridge.connect().await;
    for (path, kind, body) in [
        ("/", "text/html", "<title>home</title>"),
        ("/index.html?v=1", "text/html", "<title>home</title>"),
        ("/app/core.js", "text/javascript", "export {};"),
        ("/app/empty", "application/octet-stream", ""),
        ("/app/%3ci%3e&.txt", "text/plain", "angular"),
        ("/page/", "text/html", "a page"),
        ("//page//", "text/html", "a page"),
    ] {
        let response = ask(&mut stream, "GET", path, "").await;
        assert_eq!((response.status, response.text()), (200, body), "{path}");
        assert!(response.header("content-type").unwrap().starts_with(kind), "{}", response.head);
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(response.header("cache-control"), Some("no-cache"));
        let head = ask(&mut stream, "HEAD", path, "").await;
        assert_eq!(
            (head.status, head.header("content-length")),
            (200, response.header("content-length"))
        );
    }
    for path in ["/missing", "/app/core.js/", "/app/core.js/x", &format!("/{}", "x".repeat(5000))] {
        let response = ask(&mut stream, "GET", path, "").await;
        assert_eq!((response.status, response.text()), (404, "not found\n"), "{path}");
    }
    let response = ask(&mut stream, "DELETE", "/index.html", "").await;
    assert_eq!((response.status, response.header("allow")), (405, Some("GET, HEAD, OPTIONS")));
    assert!(site.home().join("web/index.html").exists());
}

#[tokio::test]
async fn h1_what_the_client_has_already_is_not_sent_again() {
    let site = Site::new().await;
    let first = site.get("/big.bin", "").await;
    assert!(first.body == pattern(8 << 20));
    let tag = first.header("etag").unwrap();
    let date = first.header("last-modified").unwrap();
    for condition in [format!("If-None-Match: {tag}\r\n"), format!("If-Modified-Since: {date}\r\n")]
    {
        let again = site.get("/big.bin", &condition).await;
        assert_eq!((again.status, again.header("etag")), (304, Some(tag)), "{condition}");
    }
    fs::write(site.home().join("web/big.bin"), b"new").unwrap();
    let new = site.get("/big.bin", &format!("If-None-Match: {tag}\r\n")).await;
    assert_eq!((new.status, new.text()), (200, "new"));
}

#[tokio::test]
async fn h1_a_part_of_a_file_and_only_of_the_version_that_is_meant() {
    let site = Site::new().await;
    let all = pattern(8 << 20);
    let tag = site.get("/big.bin", "").await.header("etag").unwrap().to_owned();
    for (headers, range, part) in [
        ("Range: bytes=5-9\r\n".to_owned(), "bytes 5-9/8388608", &all[5..10]),
        (
            "Range: bytes=8388600-\r\n".to_owned(),
            "bytes 8388600-8388607/8388608",
            &all[8_388_600..],
        ),
        ("Range: bytes=-3\r\n".to_owned(), "bytes 8388605-8388607/8388608", &all[8_388_605..]),
        (format!("Range: bytes=0-1\r\nIf-Range: {tag}\r\n"), "bytes 0-1/8388608", &all[..2]),
    ] {
        let response = site.get("/big.bin", &headers).await;
        assert_eq!((response.status, response.header("content-range")), (206, Some(range)));
        assert_eq!(response.body, part);
    }
    for headers in [
        "Range: bytes=0-1\r\nIf-Range: \"other\"\r\n",
        "Range: bytes=0-1,5-6\r\n",
        "Range: lines=0-1\r\n",
    ] {
        let response = site.get("/big.bin", headers).await;
        assert!(response.status == 200 && response.body == all, "{headers}");
    }
    let response = site.get("/big.bin", "Range: bytes=9000000-\r\n").await;
    assert_eq!((response.status, response.header("content-range")), (416, Some("bytes */8388608")));
}

#[tokio::test]
async fn h1_a_directory_is_listed_and_its_links_lead_to_what_it_has() {
    let site = Site::new().await;
    fs::create_dir(site.home().join("web/app/sub")).unwrap();
    let fifo = site.home().join("web/app/fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let page = site.get("/app/", "").await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.header("content-security-policy").unwrap().contains("default-src 'none'"));
    assert!(page.text().contains("&lt;i&gt;&amp;.txt") && !page.text().contains("<i>"));
    let links = page.text().split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap());
    let links: Vec<_> = links.collect();
    assert_eq!(links, ["../", "./sub/", "./%3Ci%3E%26.txt", "./core.js", "./empty"]);
    for link in links {
        assert_eq!(
            site.get(&format!("/app/{}", link.trim_start_matches("./")), "").await.status,
            if link == "../" { 404 } else { 200 },
            "{link}"
        );
    }
    assert_eq!(site.get("/app/fifo", "").await.status, 404, "opening it would block");
}

#[tokio::test]
async fn h2_no_path_leaves_the_directory() {
    let site = Site::new().await;
    for path in [
        "/../secret",
        "/app/../../secret",
        "/..%2fsecret",
        "/%2e%2e/secret",
        "/%2e%2e%2fsecret",
        "/app/%2e%2e/%2e%2e/secret",
        "//../secret",
        "/..//secret",
        "/..\\secret",
        "/..%5csecret",
        "/app/..%00/secret",
        "/secret%00.html",
        "/%252e%252e/secret",
        "/%2fetc/passwd",
        "//etc/passwd",
        "/%c0%ae%c0%ae/secret",
        "http://x/../secret",
    ] {
        let response = site.get(path, "").await;
        assert_eq!(response.status, 404, "{path}: {}", response.text());
    }
}

#[tokio::test]
async fn h2_symbolic_links_of_the_owner_are_followed() {
    let site = Site::new().await;
    let link = |to: &str, name: &str| {
        std::os::unix::fs::symlink(site.home().join(to), site.home().join("web").join(name))
            .unwrap();
    };
    link("secret", "shared");
    link("web/page", "linked");
    link("nowhere", "dangling");
    link("web/loop", "loop");
    assert_eq!(site.get("/shared", "").await.text(), "secret");
    assert_eq!(site.get("/linked/", "").await.text(), "a page");
    assert_eq!(site.get("/dangling", "").await.status, 404);
    assert_eq!(site.get("/loop", "").await.status, 404);
}

#[tokio::test]
async fn h2_a_redirect_stays_on_this_host() {
    let site = Site::new().await;
    for name in ["evil.com", "a:b", "\\evil.com", "x?y"] {
        fs::create_dir_all(site.home().join("web").join(name)).unwrap();
    }
    for (path, location) in [
        ("/page", "./page/"),
        ("/page?a=b", "./page/?a=b"),
        ("//evil.com", "./evil.com/"),
        ("///evil.com", "./evil.com/"),
        ("/%5Cevil.com", "./%5Cevil.com/"),
        ("/a:b", "./a%3Ab/"),
        ("/x%3fy", "./x%3Fy/"),
    ] {
        let response = site.get(path, "").await;
        assert_eq!((response.status, response.header("location")), (301, Some(location)), "{path}");
    }
}

#[tokio::test]
async fn h3_an_upgrade_follows_files_on_one_connection() {
    let site = Site::new().await;
    let mut stream = site.bridge.connect().await;
    for _ in 0..3 {
        assert!(ask(&mut stream, "GET", "/big.bin", "").await.body == pattern(8 << 20));
        assert_eq!(ask(&mut stream, "GET", "/missing", "").await.status, 404);
    }
    let mut client = Client::over(stream).await;
    client.send(BINARY, b"hello").await;
    assert_eq!(read_exact(&mut accept(&site.target).await, 5).await, b"hello");
}

#[tokio::test]
async fn h3_an_upgrade_that_was_sent_ahead_waits_for_the_end_of_the_file() {
    let site = Site::new().await;
    let mut stream = site.bridge.connect().await;
    let bytes = [&b"GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n"[..], HEAD.as_bytes()].concat();
    within(stream.write_all(&bytes)).await.unwrap();
    // Half a second is enough for the file to fill the kernel's buffers.
    let quiet = tokio::time::timeout(DEADLINE / 40, site.target.accept()).await;
    assert!(quiet.is_err(), "the session waits");
    read_head(&mut stream).await;
    assert!(read_exact(&mut stream, 8 << 20).await == pattern(8 << 20));
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 101 "));
    let mut client = Client(stream);
    client.send(BINARY, b"hello").await;
    assert_eq!(read_exact(&mut accept(&site.target).await, 5).await, b"hello");
}

#[tokio::test]
async fn t6_a_slow_download_outlives_the_deadline_of_heads() {
    let site = Site::with(|config| config.head_timeout = DEADLINE / 40).await;
    let mut stream = site.bridge.connect().await;
    within(stream.write_all(b"GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n")).await.unwrap();
    read_head(&mut stream).await;
    let mut body = Vec::new();
    for _ in 0..4 {
        body.extend(read_exact(&mut stream, 1 << 20).await);
        tokio::time::sleep(DEADLINE / 80).await;
    }
    body.extend(read_exact(&mut stream, 4 << 20).await);
    assert!(body == pattern(8 << 20));
}

/// The body that belongs to the request is not waited for: the file is the last answer.
#[tokio::test]
async fn h1_a_slow_client_that_holds_its_body_back_gets_the_whole_file() {
    let site = Site::new().await;
    let mut slow = Vec::new();
    // The kernel takes some 130 kB for a client of short segments that reads nothing: the end of some of these files is in our
    // buffer then.
    for length in (64 * 1024..320 * 1024).step_by(8000) {
        fs::write(site.directory.path().join(format!("web/{length}")), pattern(length)).unwrap();
        let socket = narrow_socket(4096);
        setsockopt(&socket, TcpMaxSeg, &536).unwrap();
        let mut stream = within(socket.connect(site.bridge.addr)).await.unwrap();
        let request = format!("GET /{length} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n");
        within(stream.write_all(request.as_bytes())).await.unwrap();
        slow.push((length, stream));
    }
    tokio::time::sleep(DEADLINE / 80).await;
    for (length, mut stream) in slow {
        read_head(&mut stream).await;
        let mut body = Vec::new();
        within(stream.read_to_end(&mut body)).await.unwrap();
        assert!(body == pattern(length), "{} bytes of {length}", body.len());
    }
}

#[tokio::test]
async fn b8_a_page_under_way_is_finished_when_the_one_session_begins() {
    let site = Site::with(|config| config.run_once = true).await;
    let mut loading = site.bridge.connect().await;
    within(loading.write_all(b"GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n")).await.unwrap();
    read_head(&mut loading).await;
    let mut idle = site.bridge.connect().await;
    ask(&mut idle, "GET", "/", "").await;
    let client = site.bridge.client().await;
    let target = accept(&site.target).await;
    site.bridge.stops_accepting().await;
    assert_eq!(read_to_end(&mut idle).await, b"");
    assert!(read_to_end(&mut loading).await == pattern(8 << 20));
    drop((client, target));
    assert_eq!(site.bridge.outcome().await, Outcome::RunOnce);
}

#[tokio::test]
async fn b8_a_reader_that_stalls_does_not_hold_up_the_end() {
    let site = Site::with(|config| {
        config.head_timeout = DEADLINE / 40;
        config.timeout = Some(std::time::Instant::now() + DEADLINE / 40);
    })
    .await;
    let mut stalled = site.bridge.connect().await;
    within(stalled.write_all(b"GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n")).await.unwrap();
    read_head(&mut stalled).await;
    assert_eq!(site.bridge.outcome().await, Outcome::Timeout);
}

#[tokio::test]
async fn w9_shutdown_cuts_downloads_off() {
    let site = Site::new().await;
    let mut loading = site.bridge.connect().await;
    within(loading.write_all(b"GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n")).await.unwrap();
    read_head(&mut loading).await;
    let began = std::time::Instant::now();
    site.bridge.shutdown.send(Shutdown::Now).unwrap();
    assert_eq!(site.bridge.outcome().await, Outcome::Shutdown);
    assert!(began.elapsed() < DEADLINE / 10);
    let mut rest = Vec::new();
    let _ = within(loading.read_to_end(&mut rest)).await;
    assert!(rest.len() < 8 << 20);
}

#[tokio::test]
async fn l2_bad_heads_get_what_they_deserve() {
    let site = Site::new().await;
    for (request, answer) in [
        (format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(20_000)), "HTTP/1.1 431 "),
        (format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(20_000)), "HTTP/1.1 431 "),
        ("GET / HTTP/1.1\r\nno colon\r\n\r\n".to_owned(), "HTTP/1.1 400 "),
        ("GET\r\n\r\n".to_owned(), "HTTP/1.1 400 "),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), "HTTP/1.1 400 "),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc".to_owned(), "HTTP/1.1 405 "),
        ("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "HTTP/1.1 204 "),
        ("CONNECT evil.com:80 HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "HTTP/1.1 405 "),
        ("GET / HTTP/1.0\r\n\r\n".to_owned(), "HTTP/1.0 200 "),
    ] {
        let mut stream = site.bridge.connect().await;
        within(stream.write_all(request.as_bytes())).await.unwrap();
        let mut said = vec![0; answer.len()];
        within(stream.read_exact(&mut said)).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&said), answer, "{request:.40}");
        within(stream.shutdown()).await.unwrap();
        read_to_end(&mut stream).await;
    }
}

#[tokio::test]
async fn f34_options_are_told_without_a_body() {
    let site = Site::new().await;
    let mut stream = site.bridge.connect().await;
    for path in ["/", "/missing", "*"] {
        let response = ask(&mut stream, "OPTIONS", path, "").await;
        assert_eq!((response.status, response.header("allow")), (204, Some("GET, HEAD, OPTIONS")));
        assert_eq!(response.header("content-length"), None, "RFC 9110, section 8.6");
    }
    assert_eq!(ask(&mut stream, "GET", "/", "").await.status, 200);
}
