//! When files change: written, replaced, renamed over, or reached by a symbolic link that now points
//! elsewhere, as Kubernetes' `..data` does. Knows paths and what is at them; reads no file.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::unistd::read;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::debug;

/// How often files are looked at unasked: inotify sees nothing of what others do on a network's file
/// system, or below an overlay.
const UNASKED: Duration = Duration::from_secs(60);

/// How often they are looked at where somebody asks.
const ASKED: Duration = Duration::from_secs(1);

/// How long files must have been at rest: one is half written for a moment, and a key comes after its
/// certificate.
const REST: Duration = Duration::from_millis(500);

/// How many looks are waited for that; whoever writes for longer is read half way, and read again.
const LOOKS: usize = 6;

/// How many symbolic links a path may have, as the kernel counts.
const LINKS: usize = 40;

/// Files, as they were when their owner has read them.
#[derive(Debug)]
pub(crate) struct Changes {
    paths: Vec<PathBuf>,
    seen: Seen,
    watch: Option<Watch>,
    last_look: Instant,
    /// Whether something may have changed before the kernel began to tell of these directories.
    may_have_missed: bool,
}

/// What tells a file from the one that was there before.
type Mark = (u64, u64, u64, [i64; 4]);

/// A directory, and what tells it from another that takes its place.
type Directory = (PathBuf, Option<(u64, u64)>);

/// What is at the paths, and which directories decide about that.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    files: Vec<Option<Mark>>,
    directories: Vec<Directory>,
}

/// What the kernel tells us of these directories.
#[derive(Debug)]
struct Watch {
    inotify: AsyncFd<OwnedFd>,
    directories: Vec<Directory>,
}

impl Changes {
    /// Of what is at the paths from here on. Blocks.
    pub(crate) fn new(paths: Vec<PathBuf>) -> Self {
        let seen = Seen::look(&paths);
        Self { paths, seen, watch: None, last_look: Instant::now(), may_have_missed: false }
    }

    /// The next change since the last, once the files are at rest. Cancel-safe. Whoever rings `asked`
    /// would like to know now.
    pub(crate) async fn next(&mut self, asked: &Notify) {
        self.watch();
        loop {
            if !std::mem::take(&mut self.may_have_missed) {
                self.occasion(asked).await;
            }
            let mut seen = self.look().await;
            for _ in 0..LOOKS {
                if seen.files == self.seen.files {
                    break;
                }
                sleep(REST).await;
                let before = std::mem::replace(&mut seen, self.look().await);
                if seen == before {
                    break;
                }
            }
            let is_change = seen.files != self.seen.files;
            self.seen = seen;
            self.watch();
            if is_change {
                return;
            }
        }
    }

    /// Takes what is there now as known: it is about to be read.
    pub(crate) async fn note(&mut self) {
        self.seen = self.look().await;
    }

    /// Waits until a look may be worth it.
    async fn occasion(&self, asked: &Notify) {
        tokio::select! {
            () = told(self.watch.as_ref()) => {}
            () = sleep_until(self.last_look + UNASKED) => {}
            () = async {
                sleep_until(self.last_look + ASKED).await;
                asked.notified().await;
            } => {}
        }
    }

    async fn look(&mut self) -> Seen {
        self.last_look = Instant::now();
        let paths = self.paths.clone();
        // A server of files that is away holds up a thread, and not us.
        let (answer, looked) = oneshot::channel();
        let thread = std::thread::Builder::new().name("certificates".to_owned());
        // Without a thread for it (pthread_create(3), EAGAIN), the next look may find one.
        let begun = thread.spawn(move || drop(answer.send(Seen::look(&paths))));
        if let Err(error) = begun {
            debug!("cannot look at certificates: {error}");
        }
        looked.await.unwrap_or_else(|_| self.seen.clone())
    }

    /// Has the kernel tell of the directories that count now.
    fn watch(&mut self) {
        let wanted = &self.seen.directories;
        if self.watch.as_ref().is_some_and(|watch| watch.directories == *wanted) {
            return;
        }
        self.watch = Watch::begin(wanted.clone())
            .inspect_err(|error| debug!("no inotify, certificates are looked at only: {error}"))
            .ok();
        self.may_have_missed = self.watch.is_some();
    }
}

/// Waits until the kernel has told of something, and gathers what it tells soon after.
async fn told(watch: Option<&Watch>) {
    let Some(Watch { inotify, .. }) = watch else { return std::future::pending().await };
    if inotify.readable().await.is_err() {
        return std::future::pending().await;
    }
    // Others may be busy in the same directory.
    sleep(REST).await;
    if let Ok(mut ready) = inotify.readable().await {
        // What has happened is seen at the files.
        while read(inotify, &mut [0; 4096]).is_ok_and(|length| length > 0) {}
        ready.clear_ready();
    }
}

impl Watch {
    fn begin(directories: Vec<Directory>) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let deeds = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        for (directory, _) in &directories {
            // Those that we may not read are looked into from time to time.
            if let Err(error) = inotify.add_watch(directory, deeds) {
                debug!("cannot watch directory {}: {error}", directory.display());
            }
        }
        Ok(Self { inotify: register(inotify.into())?, directories })
    }
}

#[allow(unsafe_code)]
fn register(inotify: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open, and the same, for as long as it is owned.
    let told = unsafe { AsyncFd::register_with_interest(inotify, Interest::READABLE) };
    Ok(told?)
}

impl Seen {
    fn look(paths: &[PathBuf]) -> Self {
        let mut directories: Vec<_> = paths.iter().flat_map(|path| directories(path)).collect();
        directories.sort_unstable();
        directories.dedup();
        let identity = |path: &PathBuf| fs::metadata(path).ok().map(|at| (at.dev(), at.ino()));
        let directories = directories.into_iter().map(|path| (identity(&path), path));
        Self {
            directories: directories.map(|(identity, path)| (path, identity)).collect(),
            files: paths.iter().map(|path| mark(path)).collect(),
        }
    }
}

fn mark(path: &Path) -> Option<Mark> {
    let at = fs::metadata(path).ok()?;
    let times = [at.mtime(), at.mtime_nsec(), at.ctime(), at.ctime_nsec()];
    Some((at.dev(), at.ino(), at.size(), times))
}

/// The directories in which a file, or a symbolic link on the way to it, stands or is to stand. Where one is
/// missing, it is the last that is there.
fn directories(path: &Path) -> Vec<PathBuf> {
    let Ok(path) = std::path::absolute(path) else { return Vec::new() };
    let (mut found, mut links) = (Vec::new(), 0);
    let mut way: VecDeque<OsString> = parts(&path).collect();
    let mut at = PathBuf::from("/");
    while let Some(part) = way.pop_front() {
        if part == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&part);
        match fs::symlink_metadata(&next) {
            Ok(there) if there.is_symlink() && links < LINKS => {
                links += 1;
                found.push(at.clone());
                let Ok(target) = fs::read_link(&next) else { break };
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                way = parts(&target).chain(way).collect();
            }
            Ok(there) if there.is_dir() => at = next,
            _ => {
                found.push(at);
                break;
            }
        }
    }
    found
}

/// What is to be walked of a path, one after the other.
fn parts(path: &Path) -> impl Iterator<Item = OsString> {
    let part = |part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    path.components().filter_map(part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn t5_every_directory_on_the_way_to_a_file_counts() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("certs/..one")).unwrap();
        fs::write(root.join("certs/..one/tls.crt"), "").unwrap();
        symlink("..one", root.join("certs/..data")).unwrap();
        symlink("..data/tls.crt", root.join("certs/tls.crt")).unwrap();
        let certs = root.join("certs");
        let way = directories(&certs.join("tls.crt"));
        assert_eq!(way, [certs.clone(), certs.clone(), certs.join("..one")]);
        // What is missing is to come into the last directory that is there.
        assert_eq!(directories(&root.join("none/deeper/file")), [root.as_path()]);
        assert_eq!(directories(&certs.join("../file")), [root.as_path()]);
        // A circle has an end.
        symlink("b", root.join("a")).unwrap();
        symlink("a", root.join("b")).unwrap();
        assert!(directories(&root.join("a")).len() <= LINKS + 1);
    }
}
