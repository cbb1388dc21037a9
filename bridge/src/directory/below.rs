//! Tokens that are names below a directory: of files with a target in each, or of Unix sockets (K3).
//!
//! No token leaves the directory: `..`, a name that no file can have, and a link that leads out of the directory are unknown
//! tokens. What was found is what is read or connected to, even if another file replaces it meanwhile.

use std::fs;
use std::io::Read;
use std::os::unix::fs::FileTypeExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tracing::warn;

use super::failure::SourceError;
use super::target;
use crate::destination::{Endpoint, OpenedSocket};
use crate::opened::{Opened, is_absence, real_path};
use crate::redact;
use crate::regular;
use crate::unadmitted::UNADMITTED;

/// How many look-ups a file system that hangs may hold up at a time. The runtime has 512 threads for all
/// that blocks.
const AT_ONCE: usize = 16;

/// The longest file that is a target, bytes.
const TARGET_MAX: u64 = 4096;

/// A directory whose names are tokens.
#[derive(Debug)]
pub(super) struct Below {
    directory: PathBuf,
    entry: Entry,
    permits: Arc<Semaphore>,
}

/// What kind of entries of the directory the tokens name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Files with a target in each; of a token only the last part counts, as upstream has it.
    File,
    /// Sockets, perhaps in directories of their own.
    Socket,
}

impl Below {
    pub(super) fn new(directory: PathBuf, entry: Entry) -> Self {
        Self { directory, entry, permits: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Fails if there is no such directory.
    pub(super) async fn prepare(&self) -> Result<(), SourceError> {
        let directory = self.directory.clone();
        blocking(move || {
            // With a slash at its end, so that anything else is "not a directory" (path_resolution(7)).
            fs::metadata(directory.join(""))
                .map_err(|error| SourceError::Read(directory, error))
                .map(drop)
        })
        .await
    }

    pub(super) async fn look_up(&self, token: &str) -> Result<Option<Endpoint>, SourceError> {
        let Some(name) = name(token, self.entry) else { return Ok(None) };
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let (directory, name, entry) = (self.directory.clone(), name.to_owned(), self.entry);
        blocking(move || {
            // Held until the file system answers, whether the client still waits or not.
            let _permit = permit;
            find(&directory, &name, entry)
        })
        .await
    }
}

/// Looks at the file system, which may take long, in a thread that may block.
async fn blocking<T: Send + 'static>(
    look: impl FnOnce() -> Result<T, SourceError> + Send + 'static,
) -> Result<T, SourceError> {
    spawn_blocking(look).await.unwrap_or(Err(SourceError::Failed))
}

/// The path below the directory that a token names. None: no path there has this name.
pub(crate) fn name(token: &str, entry: Entry) -> Option<&Path> {
    let token = match entry {
        Entry::File => token.rsplit_once('/').map_or(token, |(_, name)| name),
        Entry::Socket => token,
    };
    let path = Path::new(token);
    let is_below = path.components().all(|part| matches!(part, Component::Normal(_)));
    (is_below && !token.is_empty() && !token.contains('\0')).then_some(path)
}

fn find(directory: &Path, name: &Path, entry: Entry) -> Result<Option<Endpoint>, SourceError> {
    let root = real_path(directory);
    let root = root.map_err(|error| SourceError::Read(directory.to_owned(), error))?;
    // The log never has a whole token (K8).
    let shown = directory.join(redact::token(&name.to_string_lossy()));
    let found = Opened::open(&root.join(name)).and_then(|found| Ok((found.metadata()?, found)));
    let (kind, found) = match found {
        Ok((metadata, found)) => (metadata.file_type(), found),
        Err(error) if is_absence(&error) => return Ok(None),
        Err(error) => return Err(SourceError::Read(shown, error)),
    };
    if !found.path().starts_with(&root) {
        let directory = directory.display();
        warn!(target: UNADMITTED, "refused a token: its link leads out of {directory}");
        return Ok(None);
    }
    match entry {
        Entry::Socket if kind.is_socket() => {
            Ok(Some(Endpoint::Opened(OpenedSocket::new(found, shown.to_string_lossy()))))
        }
        Entry::File if kind.is_file() => read(&found, shown).map(Some),
        Entry::Socket | Entry::File => Ok(None),
    }
}

/// The target in a file; `shown` is the path for the log.
fn read(found: &Opened, shown: PathBuf) -> Result<Endpoint, SourceError> {
    let mut text = Vec::new();
    let file = regular::open(&found.link());
    match file.and_then(|file| file.take(TARGET_MAX + 1).read_to_end(&mut text)) {
        Err(error) => return Err(SourceError::Read(shown, error)),
        Ok(length) if length as u64 > TARGET_MAX => {
            return Err(SourceError::Unusable(shown, "it is longer than a target"));
        }
        Ok(_) => {}
    }
    let endpoint = match std::str::from_utf8(&text) {
        Ok(text) => target::endpoint(text.trim()),
        Err(_) => Err("it is not text in UTF-8"),
    };
    endpoint.map_err(|why| SourceError::Unusable(shown, why))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::destination::Address;

    /// A file outside, and a directory with a file, a socket and links of every kind.
    fn tree() -> (tempfile::TempDir, PathBuf) {
        let outside = tempfile::tempdir().unwrap();
        let directory = outside.path().join("tokens");
        fs::create_dir_all(directory.join("sub")).unwrap();
        fs::create_dir(outside.path().join("tokens2")).unwrap();
        for file in ["secret", "tokens/good", "tokens/sub/deep", "tokens2/other"] {
            fs::write(outside.path().join(file), " a.example:5900\n").unwrap();
        }
        for socket in ["socket", "tokens/socket", "tokens/sub/socket", "tokens2/socket"] {
            drop(UnixListener::bind(outside.path().join(socket)).unwrap());
        }
        for (to, name) in [
            ("../secret", "out"),
            ("../socket", "outside"),
            ("good", "in"),
            ("socket", "inside"),
            ("loop", "loop"),
        ] {
            symlink(to, directory.join(name)).unwrap();
        }
        (outside, directory)
    }

    async fn known(below: &Below, tokens: &[&str]) -> Vec<bool> {
        let mut known = Vec::new();
        for token in tokens {
            known.push(below.look_up(token).await.expect(token).is_some());
        }
        known
    }

    #[tokio::test]
    async fn k3_no_token_leaves_the_directory() {
        let (outside, directory) = tree();
        let absolute = outside.path().join("secret").to_str().unwrap().to_owned();
        let long = "a".repeat(16_384);
        for entry in [Entry::File, Entry::Socket] {
            let below = Below::new(directory.clone(), entry);
            for token in [
                "", ".", "..", "/", "../", "sub/..", "../..", "out", "outside", "loop", "good\0",
                "\0", "sub", "sub/", "good/x", "absent", &absolute, &long,
            ] {
                assert_eq!(below.look_up(token).await.unwrap(), None, "{entry:?} {token:?}");
            }
        }
        let sockets =
            ["../socket", "../tokens2/socket", "sub/../socket", "good", "/socket", "x/socket"];
        let below = Below::new(directory, Entry::Socket);
        assert_eq!(known(&below, &sockets).await, [false; 6]);
    }

    /// Upstream asks for a file by the last part of a token, and lets a socket be in a directory.
    #[tokio::test]
    async fn k3_a_token_is_the_name_of_a_file_or_of_a_socket() {
        let (_outside, directory) = tree();
        let address = Address { host: "a.example".into(), port: 5900 };
        let files = Below::new(directory.clone(), Entry::File);
        for token in ["good", "in", "../good", "/x/good", "../../tokens2/good"] {
            let found = files.look_up(token).await.unwrap();
            assert_eq!(found, Some(Endpoint::Tcp(address.clone())), "{token}");
        }
        assert_eq!(known(&files, &["sub/deep", "socket", "GOOD"]).await, [false; 3]);
        let sockets = Below::new(directory.clone(), Entry::Socket);
        let real = fs::canonicalize(&directory).unwrap();
        for (token, path) in [
            ("socket", "socket"),
            ("inside", "socket"),
            ("sub/socket", "sub/socket"),
            ("sub//socket", "sub/socket"),
        ] {
            let found = sockets.look_up(token).await.unwrap();
            let Some(Endpoint::Opened(found)) = found else { panic!("{token}: {found:?}") };
            assert_eq!(found.path(), real.join(path), "{token}");
        }
    }

    /// Says `word` to whoever connects.
    fn saying(path: &Path, word: [u8; 3]) {
        let listener = UnixListener::bind(path).unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let _ = std::io::Write::write_all(&mut stream, &word);
            }
        });
    }

    /// K3: whoever may write in the directory exchanges what a token names, without pause, for a link that leads out.
    #[tokio::test]
    async fn k3_what_was_looked_at_is_what_is_used() {
        use tokio::io::AsyncReadExt;
        let (outside, directory) = tree();
        for name in ["secret", "tokens/token", "tokens/good"] {
            let _ = fs::remove_file(outside.path().join(name));
        }
        saying(&outside.path().join("secret"), *b"out");
        saying(&directory.join("token"), *b"in.");
        fs::write(directory.join("file"), "in.example:1").unwrap();
        fs::write(outside.path().join("other"), "out.example:1").unwrap();
        for (to, name) in [("../secret", "link"), ("../other", "other")] {
            symlink(to, directory.join(name)).unwrap();
        }
        let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (is_done, at) = (Arc::clone(&done), directory.clone());
        let exchanging = std::thread::spawn(move || {
            use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
            while !is_done.load(std::sync::atomic::Ordering::Relaxed) {
                for (one, other) in [("token", "link"), ("file", "other")] {
                    let (one, other) = (at.join(one), at.join(other));
                    let exchange = RenameFlags::RENAME_EXCHANGE;
                    renameat2(AT_FDCWD, &one, AT_FDCWD, &other, exchange).unwrap();
                }
            }
        });
        let sockets = Below::new(directory.clone(), Entry::Socket);
        let files = Below::new(directory, Entry::File);
        let (mut connected, mut read) = (0, 0);
        for _ in 0..3000 {
            if let Some(endpoint) = sockets.look_up("token").await.unwrap() {
                let mut socket = endpoint.connect(&crate::net::Lookups::new(), None).await.unwrap();
                let mut word = [0; 3];
                socket.read_exact(&mut word).await.unwrap();
                assert_eq!(&word, b"in.");
                connected += 1;
            }
            if let Some(endpoint) = files.look_up("file").await.unwrap() {
                assert_eq!(endpoint.to_string(), "in.example:1");
                read += 1;
            }
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        exchanging.join().unwrap();
        assert!(connected > 0 && read > 0, "{connected} and {read} of 3000");
    }

    #[tokio::test]
    async fn k3_what_cannot_be_read_is_named_and_is_no_unknown_token() {
        let (_outside, directory) = tree();
        fs::write(directory.join("empty"), "").unwrap();
        fs::write(directory.join("bytes"), b"\xff:1").unwrap();
        fs::write(directory.join("long"), "a".repeat(5000)).unwrap();
        let files = Below::new(directory.clone(), Entry::File);
        for token in ["empty", "bytes", "long"] {
            let error = files.look_up(token).await.unwrap_err().to_string();
            assert!(error.contains(&format!("tokens/{}…: ", &token[..4])), "{error}");
        }
        files.prepare().await.unwrap();
        fs::remove_dir_all(&directory).unwrap();
        for error in [files.prepare().await.unwrap_err(), files.look_up("good").await.unwrap_err()]
        {
            assert!(error.to_string().contains("no such file"), "{error}");
        }
        let none = Below::new("/dev/null".into(), Entry::File);
        assert!(none.prepare().await.unwrap_err().to_string().ends_with("not a directory"));
    }
}
