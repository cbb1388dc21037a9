//! Stale directories: what dead instances of websockify have left of [`unpacked`](super::unpacked), which nobody uses
//! any more. A directory that is not certainly one of these is left alone.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::unistd::{Pid, Uid, getpid};
use procfs::process::{Process, all_processes};
use rustix::fs::{FlockOperation, flock};
use tracing::debug;

use super::names;
use super::unpacked::{self, CLIENTS, DIRECTORY_MODE, KEPT_MODE, MODE, NAME, PREFIX};
use crate::machine::{proc_text, shown};
use crate::processes::is_alive;

/// How many letters follow the prefix in the directory's name.
const LETTERS: usize = 6;

/// Removes the stale directories in these directories. Blocks.
pub(super) fn remove(parents: &[PathBuf]) {
    for parent in parents {
        let Ok(entries) = fs::read_dir(parent) else { continue };
        for path in entries.flatten().map(|entry| entry.path()).filter(|path| is_name(path)) {
            let Ok(Some(stale)) = Stale::at(&path) else { continue };
            if stale.is_used() {
                debug!("{} is left alone: a program uses it", path.display());
            } else {
                unpacked::remove(&stale.directory, &path);
                debug!("{} is removed, which a dead instance had left", path.display());
            }
        }
    }
}

/// A directory of ours that no instance holds any more.
struct Stale {
    path: PathBuf,
    /// The name of the one file in it.
    name: &'static str,
    /// Locked, so that no new instance begins to use it.
    directory: File,
    inode: u64,
    made: SystemTime,
    /// Kept for a program of another user.
    is_kept: bool,
}

impl Stale {
    /// `None`: it is in use, or something else.
    fn at(path: &Path) -> io::Result<Option<Self>> {
        let directory = unpacked::open(path)?;
        let metadata = directory.metadata()?;
        let us = Uid::effective().as_raw();
        let permissions = metadata.mode() & 0o7777;
        if metadata.uid() != us || ![DIRECTORY_MODE, KEPT_MODE].contains(&permissions) {
            return Ok(None);
        }
        if flock(&directory, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(None);
        }
        let names: io::Result<Vec<_>> =
            fs::read_dir(path)?.map(|entry| Ok(entry?.file_name())).collect();
        let names = names?;
        let name = [NAME, CLIENTS].into_iter().find(|name| names == [*name]);
        let Some(name) = name.filter(|_| unpacked::is_at(&directory, path)) else {
            return Ok(None);
        };
        let options = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = File::options().read(true).custom_flags(options).open(path.join(name))?;
        let library = file.metadata()?;
        // Earlier versions had no sticky bit.
        let is_ours = library.uid() == us && library.mode() & 0o777 == MODE & 0o777;
        let is_known = || if name == NAME { is_rebind(file) } else { Ok(is_table(&library)) };
        if !is_ours || !library.is_file() || library.nlink() != 1 || !is_known()? {
            return Ok(None);
        }
        let (inode, made) = (library.ino(), library.modified()?);
        let (path, is_kept) = (path.to_owned(), permissions == KEPT_MODE);
        Ok(Some(Self { path, name, directory, inode, made, is_kept }))
    }

    /// Whether a process has loaded the file, or has it in its environment for the next program that it executes. A
    /// process that we cannot look at, or that shows too much, counts as one that has.
    fn is_used(&self) -> bool {
        if self.is_kept {
            return true;
        }
        let us = Uid::effective();
        let Ok(processes) = all_processes() else { return true };
        // If we are not root, processes of other users do not count: a program of ours becomes another user only by
        // setuid, and then the dynamic linker preloads nothing. The directory of a program that a launcher has made
        // another user is marked.
        let mut candidates = processes
            .flatten()
            .filter(|process| us.is_root() || process.uid().is_ok_and(|uid| uid == us.as_raw()));
        candidates.any(|process| {
            self.is_used_by(&process).unwrap_or_else(|error| {
                let has_ended = matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH));
                // With `--user` we may not even read our own environment.
                let is_this = process.pid == getpid().as_raw();
                !is_this && !has_ended && !is_zombie(&process) && !is_older(&process, self.made)
            })
        })
    }

    fn is_used_by(&self, process: &Process) -> io::Result<bool> {
        let read = |name: &str| shown::text(Pid::from_raw(process.pid), name);
        let inode = self.inode.to_string();
        let library = self.path.join(self.name);
        let library = library.as_os_str().as_encoded_bytes();
        let maps = read("maps")?;
        // The device is not always the one of stat(2), and the path is another one in a process with another root.
        let is_mapped = |line: &[u8]| {
            proc_text::mapped(line).is_some_and(|(of, path)| {
                path == library || of == inode.as_bytes() && path.ends_with(self.name.as_bytes())
            })
        };
        if maps.split(|byte| *byte == b'\n').any(is_mapped) {
            return Ok(true);
        }
        Ok(read("environ")?.windows(library.len()).any(|part| part == library))
    }
}

fn is_name(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let letters = name.and_then(|name| name.strip_prefix(PREFIX));
    letters.is_some_and(|letters| {
        letters.len() == LETTERS && letters.bytes().all(|letter| letter.is_ascii_alphanumeric())
    })
}

/// Whether it is a `rebind.so` of any version: the name of its environment variable stands in it.
fn is_rebind(mut file: File) -> io::Result<bool> {
    use std::io::Read;
    let mut bytes = Vec::new();
    file.by_ref().take(1 << 20).read_to_end(&mut bytes)?;
    let name = names::OLD_PORT.as_bytes();
    Ok(bytes.starts_with(b"\x7fELF") && bytes.windows(name.len()).any(|part| part == name))
}

/// Whether it is a client table, which always has this length.
fn is_table(metadata: &fs::Metadata) -> bool {
    metadata.len() == bridge::ClientTable::LENGTH
}

/// Whether the process has ended and is not reaped: in a container the parent of an orphan may be no init. Only root
/// can see then that the process has no memory any more.
fn is_zombie(process: &Process) -> bool {
    process.stat().is_ok_and(|stat| !is_alive(&stat))
}

/// Whether the process is older than the file, by two seconds at least, as its start is only known to the second: then
/// it was not started with the file.
fn is_older(process: &Process, made: SystemTime) -> bool {
    let (Ok(stat), Ok(boot)) = (process.stat(), procfs::boot_time_secs()) else { return false };
    let started = boot + stat.starttime / procfs::ticks_per_second();
    let started = SystemTime::UNIX_EPOCH + Duration::from_secs(started);
    started + Duration::from_secs(2) < made
}
