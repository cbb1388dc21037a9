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

/// How often files are looked at without an event: inotify sees nothing of what others do on a network file system, or
/// below an overlay.
const UNASKED: Duration = Duration::from_secs(60);

/// How often they are looked at, at most, because somebody asks for it.
const ASKED: Duration = Duration::from_secs(1);

/// How long files must not have changed before a change is reported: a file is half written for a moment, and a key
/// comes after its certificate.
const REST: Duration = Duration::from_millis(500);

/// How many looks are waited for that. Files that change for longer are reported all the same, may be read half
/// written, and are reported again later.
const LOOKS: usize = 6;

/// How many symbolic links a path may have, as the kernel counts.
const LINKS: usize = 40;

/// The files that are watched, as they were when they were read last.
#[derive(Debug)]
pub(crate) struct FileWatcher {
    paths: Vec<PathBuf>,
    seen: Seen,
    watch: Option<Watch>,
    last_look: Instant,
    /// Whether something may have changed before inotify began to watch these directories.
    may_have_missed: bool,
}

/// Device, inode, size and times of a file, which tell it from the one that was there before.
type Mark = (u64, u64, u64, [i64; 4]);

/// A directory, and its device and inode, which tell it from another that takes its place.
type Directory = (PathBuf, Option<(u64, u64)>);

/// What is at the paths, and which directories decide about that.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    files: Vec<Option<Mark>>,
    directories: Vec<Directory>,
}

/// The inotify instance that watches these directories.
#[derive(Debug)]
struct Watch {
    inotify: AsyncFd<OwnedFd>,
    directories: Vec<Directory>,
}

impl FileWatcher {
    /// Notes what is at the paths now; later changes count. Blocks.
    pub(crate) fn new(paths: Vec<PathBuf>) -> Self {
        let seen = Seen::look(&paths);
        Self { paths, seen, watch: None, last_look: Instant::now(), may_have_missed: false }
    }

    /// Waits for the next change since the last, until the files do not change any more. Cancel-safe. Whoever notifies
    /// `asked` has the files looked at soon.
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

    /// Waits until the files are to be looked at.
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
        // A file server that does not answer holds up this thread, and not the runtime.
        let (answer, looked) = oneshot::channel();
        let thread = std::thread::Builder::new().name("certificates".to_owned());
        // If no thread can be started (pthread_create(3), EAGAIN), the next look tries again.
        let begun = thread.spawn(move || drop(answer.send(Seen::look(&paths))));
        if let Err(error) = begun {
            debug!("cannot look at certificates: {error}");
        }
        looked.await.unwrap_or_else(|_| self.seen.clone())
    }

    /// Has inotify watch the directories that matter now.
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

/// Waits for an event of inotify, and reads those that come soon after it.
async fn told(watch: Option<&Watch>) {
    let Some(Watch { inotify, .. }) = watch else { return std::future::pending().await };
    if inotify.readable().await.is_err() {
        return std::future::pending().await;
    }
    // Other processes may change many files in the same directory: we do not look at each change.
    sleep(REST).await;
    if let Ok(mut ready) = inotify.readable().await {
        // An event only says that it is time to look: what has changed is seen at the files.
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
            // A directory that we may not read cannot be watched: its files are looked at from time to time.
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

/// The directories that have the file in them, or a symbolic link on the way to it. Where one does not exist, the last
/// one before it that does.
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

/// The parts of a path that are to be walked, one after the other.
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
        // A file that is missing will come into the last directory that exists.
        assert_eq!(directories(&root.join("none/deeper/file")), [root.as_path()]);
        assert_eq!(directories(&certs.join("../file")), [root.as_path()]);
        // A circle of links is left after a while.
        symlink("b", root.join("a")).unwrap();
        symlink("a", root.join("b")).unwrap();
        assert!(directories(&root.join("a")).len() <= LINKS + 1);
    }
}
