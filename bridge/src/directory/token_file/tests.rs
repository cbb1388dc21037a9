//! Files that change while they are asked.

use std::os::unix::fs::symlink;
use std::time::SystemTime;

use std::fs;
use std::path::Path;

use super::table::Table;
use super::*;
use crate::destination::Address;

fn source(path: &Path, rereads: Rereads) -> TokenFile {
    TokenFile::new(path.to_owned(), TokenPlace::Query, rereads)
}

/// The port that a token leads to.
async fn port(source: &TokenFile, token: &str) -> Option<u16> {
    match source.look_up(token).await.unwrap() {
        Some(Endpoint::Tcp(Address { port, .. })) => Some(port),
        Some(other) => panic!("{other}"),
        None => None,
    }
}

/// A directory whose files are not written to a disk: one that is busy could hold a writer up for seconds, in the
/// middle of a file.
fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap()
}

/// Makes a file old, so that no look-up waits for more of it.
fn age(path: &Path) -> bool {
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    fs::File::open(path).unwrap().set_modified(long_ago).is_ok()
}

#[tokio::test]
async fn k2_what_stands_there_at_the_moment_counts() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokens");
    fs::write(&path, "a: h:1\n").unwrap();
    let source = source(&path, Rereads::WhenChanged);
    assert_eq!(port(&source, "a").await, Some(1));
    // Of the same length, and within one tick of the clock: in place, and renamed over.
    for number in 2..9 {
        fs::write(&path, format!("a: h:{number}\n")).unwrap();
        assert_eq!(port(&source, "a").await, Some(number));
        let other = directory.path().join("other");
        fs::write(&other, format!("a: h:{}\n", number + 10)).unwrap();
        fs::rename(&other, &path).unwrap();
        assert_eq!(port(&source, "a").await, Some(number + 10));
    }
    fs::write(&path, "b: h:3\n").unwrap();
    assert_eq!(port(&source, "b").await, Some(3));
    assert_eq!(port(&source, "a").await, None);
}

#[tokio::test]
async fn k2_a_file_that_has_not_changed_is_not_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokens");
    fs::write(&path, "a: h:1\n").unwrap();
    let source = source(&path, Rereads::WhenChanged);
    assert_eq!(port(&source, "x").await, None, "it has settled by then");
    assert_eq!(port(&source, "a").await, Some(1));
    let table = Arc::new(Table::read(&path, TokenPlace::Query, None).unwrap());
    let address = std::ptr::from_ref(table.target("a").unwrap());
    source.files.lock().await.tables().replace(vec![(path, table)]);
    assert_eq!(port(&source, "a").await, Some(1));
    let mut files = source.files.lock().await;
    let same = files.tables().target("a").unwrap();
    assert_eq!(std::ptr::from_ref(same), address, "the table is the one that was read before");
}

#[tokio::test(flavor = "multi_thread")]
async fn k2_a_file_being_rewritten_never_makes_a_known_token_unknown() {
    let directory = in_memory();
    let path = directory.path().join("tokens");
    let lines = (1..=1000).map(|number| format!("token{number}: h:{number}\n"));
    let text = lines.collect::<Vec<_>>().concat();
    fs::write(&path, &text).unwrap();
    let source = source(&path, Rereads::WhenChanged);
    let writer = tokio::spawn(rewrite(path.clone(), text.clone()));
    for number in (1..=1000).step_by(10) {
        let found = port(&source, &format!("token{number}")).await;
        assert_eq!(found, Some(number), "token{number}");
    }
    writer.abort();
    let _ = writer.await;
    fs::write(&path, &text).unwrap();
    assert_eq!(port(&source, "token1001").await, None);
}

/// For ever: half of the file for a while, then all of it; sometimes it is gone.
async fn rewrite(path: PathBuf, text: String) {
    for round in 0.. {
        if round % 3 == 0 {
            fs::remove_file(&path).unwrap();
            sleep(Duration::from_millis(2)).await;
        }
        fs::write(&path, &text[..text.len() / 2 + round % 7]).unwrap();
        sleep(Duration::from_millis(2)).await;
        fs::write(&path, &text).unwrap();
        sleep(Duration::from_millis(4)).await;
    }
}

/// K2: the look-up of an unknown token does not wait until a file is at rest that never is; a known token stays known.
#[tokio::test(flavor = "multi_thread")]
async fn k2_a_token_that_was_never_there_does_not_wait_for_a_file_that_changes_all_the_time() {
    let directory = in_memory();
    let path = directory.path().join("tokens");
    fs::write(&path, "a: h:1\nb: h:2\n").unwrap();
    let source = source(&path, Rereads::WhenChanged);
    assert_eq!(port(&source, "x").await, None, "it is at rest by then");
    let changing = tokio::spawn(async move {
        for round in 0.. {
            // For a moment, b is not there.
            fs::write(&path, format!("a: h:1\n# {round}\n")).unwrap();
            sleep(Duration::from_millis(30)).await;
            fs::write(&path, format!("a: h:1\nb: h:2\n# {round}\n")).unwrap();
            sleep(Duration::from_millis(70)).await;
        }
    });
    for _ in 0..30 {
        // The look-up of an unknown token must not wait for the file: `Tokens` would give it up after 10 s only.
        let unknown = tokio::time::timeout(Duration::from_secs(5), port(&source, "x")).await;
        assert_eq!(unknown.expect("it waits"), None);
        assert_eq!((port(&source, "a").await, port(&source, "b").await), (Some(1), Some(2)));
    }
    changing.abort();
}

/// K2: a busy disk may hold a writer up for longer than a file seems to be changing, after it has emptied the file
/// or within a line.
#[tokio::test]
async fn k2_a_file_that_is_cut_is_waited_for_longer() {
    let directory = in_memory();
    let path = directory.path().join("tokens");
    for cut in ["", "a: h:1\nb: "] {
        fs::write(&path, "a: h:1\nb: h:2\n").unwrap();
        let source = source(&path, Rereads::WhenChanged);
        assert_eq!(port(&source, "x").await, None, "it is at rest by then");
        let writing = async {
            fs::write(&path, cut).unwrap();
            sleep(Duration::from_millis(1600)).await;
            fs::write(&path, "a: h:1\nb: h:3\n").unwrap();
        };
        assert_eq!(tokio::join!(writing, port(&source, "b")).1, Some(3), "{cut:?}");
        fs::write(&path, cut).unwrap();
        assert_eq!(port(&source, "b").await, None, "it is not waited for without end");
    }
}

/// K2: many ask at once while a large file is changed again and again.
#[tokio::test(flavor = "multi_thread")]
async fn k2_of_many_who_wait_for_one_reading_one_reads() {
    use std::fmt::Write;
    let directory = in_memory();
    let path = directory.path().join("tokens");
    let mut text = String::new();
    for number in 0..100_000_u32 {
        writeln!(text, "token-{number}: h:1").unwrap();
    }
    fs::write(&path, &text).unwrap();
    let source = Arc::new(source(&path, Rereads::WhenChanged));
    assert_eq!(port(&source, "x").await, None, "it is at rest by then");
    let changing = tokio::spawn(async move {
        loop {
            let other = path.with_extension("new");
            fs::write(&other, &text).unwrap();
            fs::rename(&other, &path).unwrap();
            sleep(Duration::from_millis(20)).await;
        }
    });
    let ask = |number: u32| {
        let source = Arc::clone(&source);
        tokio::spawn(async move { port(&source, &format!("token-{number}")).await })
    };
    let asked: Vec<_> = (99_900..100_100).map(ask).collect();
    let all = async {
        for (number, asked) in (99_900_u32..).zip(asked) {
            assert_eq!(asked.await.unwrap(), (number < 100_000).then_some(1), "{number}");
        }
    };
    tokio::time::timeout(super::super::failure::LOOKUP_TIMEOUT, all).await.expect("in time");
    changing.abort();
}

/// K2: what was there before counts while a file is written anew, also when it could not be read for a moment.
#[tokio::test(flavor = "multi_thread")]
async fn k2_a_token_is_not_forgotten_while_its_file_cannot_be_read() {
    let directory = in_memory();
    let path = directory.path().join("tokens");
    fs::write(&path, "a: h:1\nb: h:2\n").unwrap();
    let source = source(&path, Rereads::WhenChanged);
    assert_eq!(port(&source, "x").await, None, "it is at rest by then");
    fs::remove_file(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let failure = source.look_up("b").await.unwrap_err().to_string();
    assert!(failure.contains("neither a file nor a directory"), "{failure}");
    fs::remove_file(&path).unwrap();
    fs::write(&path, "a: h:1\n").unwrap();
    let whole = async {
        sleep(Duration::from_millis(200)).await;
        fs::write(&path, "a: h:1\nb: h:2\n").unwrap();
    };
    assert_eq!(tokio::join!(port(&source, "b"), whole).0, Some(2));
}

#[tokio::test]
async fn k2_a_directory_of_files_as_they_come_and_go() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::write(at("one"), "a: h:1\nb: h:2\n").unwrap();
    fs::write(at("two"), "b: h:3\n").unwrap();
    fs::write(at(".two.swp"), "hidden: h:4\n").unwrap();
    fs::create_dir(at("sub")).unwrap();
    fs::write(at("sub/three"), "deep: h:5\n").unwrap();
    symlink("nowhere", at("dangling")).unwrap();
    symlink("sub/three", at("link")).unwrap();
    let source = source(directory.path(), Rereads::WhenChanged);
    assert_eq!(port(&source, "a").await, Some(1));
    assert_eq!(port(&source, "b").await, Some(3), "the last name counts");
    assert_eq!(port(&source, "deep").await, Some(5), "by the link");
    assert_eq!(port(&source, "hidden").await, None);
    fs::write(at("four"), "c: h:6\n").unwrap();
    assert_eq!(port(&source, "c").await, Some(6));
    fs::remove_file(at("two")).unwrap();
    assert_eq!(port(&source, "b").await, Some(2));
    fs::remove_file(at("four")).unwrap();
    assert_eq!(port(&source, "c").await, None);
}

/// Otherwise a user who may write in the directory could have all tokens refused.
#[tokio::test]
async fn k2_a_name_that_leads_nowhere_costs_no_token_of_another_file() {
    use std::os::unix::fs::PermissionsExt;
    let directory = in_memory();
    let at = |name: &str| directory.path().join(name);
    fs::write(at("tokens"), "a: h:1\n").unwrap();
    let source = source(directory.path(), Rereads::WhenChanged);
    assert_eq!(port(&source, "x").await, None, "it is at rest by then");
    for (to, name) in [("loop", "loop"), ("tokens/x", "beyond"), (&"x".repeat(256), "long")] {
        symlink(to, at(name)).unwrap();
        assert_eq!(port(&source, "a").await, Some(1), "{name}");
        assert_eq!(port(&source, "x").await, None, "{name}");
    }
    fs::create_dir(at("sub")).unwrap();
    fs::write(at("sub/closed"), "b: h:2\n").unwrap();
    symlink("sub/closed", at("link")).unwrap();
    fs::set_permissions(at("sub"), fs::Permissions::from_mode(0o000)).unwrap();
    assert_eq!(port(&source, "a").await, Some(1));
    match source.look_up("b").await {
        Ok(found) => assert!(found.is_some(), "root may look everywhere"),
        Err(failure) => {
            assert!(failure.to_string().contains("link: permission denied"), "{failure}");
        }
    }
    fs::set_permissions(at("sub"), fs::Permissions::from_mode(0o700)).unwrap();
}

#[tokio::test]
async fn k2_a_file_read_once_is_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokens");
    let source = source(&path, Rereads::Never);
    let error = source.look_up("a").await.unwrap_err().to_string();
    assert!(error.contains("tokens: no such file"), "{error}");
    fs::write(&path, "a: h:1\n").unwrap();
    assert_eq!(port(&source, "a").await, Some(1), "it is read once it is there");
    fs::write(&path, "a: h:2\nb: h:3\n").unwrap();
    assert_eq!(port(&source, "a").await, Some(1));
    assert_eq!(port(&source, "b").await, None);
    fs::remove_file(&path).unwrap();
    assert_eq!(port(&source, "a").await, Some(1));
}

#[tokio::test]
async fn k2_what_cannot_be_read_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let missing = source(&directory.path().join("none"), Rereads::WhenChanged);
    for error in [missing.prepare().await.unwrap_err(), missing.look_up("a").await.unwrap_err()] {
        assert!(error.to_string().contains("none: no such file"), "{error}");
    }
    let device = source(Path::new("/dev/null"), Rereads::WhenChanged);
    let error = device.look_up("a").await.unwrap_err().to_string();
    assert!(error.contains("/dev/null: it is neither a file nor a directory"), "{error}");
    let path = directory.path().join("huge");
    fs::File::create(&path).unwrap().set_len((1 << 28) + 1).unwrap();
    assert!(age(&path));
    let huge = source(&path, Rereads::WhenChanged);
    let error = huge.prepare().await.unwrap_err().to_string();
    assert!(error.contains("longer than 256 MiB"), "{error}");
}

/// Reading does not stall the runtime, which has one thread, and a look-up stays under a millisecond: half of them, as the
/// machine may be busy.
#[tokio::test]
async fn k2_reading_a_million_lines_stalls_nobody() {
    use std::fmt::Write;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokens");
    let mut text = String::new();
    for number in 0..1_000_000_u32 {
        writeln!(text, "token-{number}: host-{number}.example:{}", number % 60_000 + 1).unwrap();
    }
    fs::write(&path, text).unwrap();
    let source = source(&path, Rereads::WhenChanged);
    let mut prepared = std::pin::pin!(source.prepare());
    let is_free = tokio::select! {
        biased;
        _ = &mut prepared => false,
        () = tokio::task::yield_now() => true,
    };
    assert!(is_free, "read on the runtime's own thread");
    prepared.await.unwrap();
    assert_eq!(port(&source, "token-999999").await, Some(40_000));
    assert_eq!(port(&source, "token-1000000").await, None);
    let mut times = Vec::new();
    for number in (0..1_000_000_u32).step_by(1000) {
        let expected = u16::try_from(number % 60_000 + 1).unwrap();
        let began = Instant::now();
        assert_eq!(port(&source, &format!("token-{number}")).await, Some(expected));
        times.push(began.elapsed());
    }
    times.sort();
    let median = times[times.len() / 2];
    println!("a look-up takes {median:?}");
    assert!(median < Duration::from_millis(1), "{median:?}");
}
