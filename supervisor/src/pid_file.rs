//! `--pid-file`: one instance a file. The lock says who holds it, the number inside is for people
//! and scripts.

use std::fs::{File, OpenOptions, remove_file};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// A locked pid file, removed when this is dropped.
#[derive(Debug)]
pub(crate) struct PidFile {
    path: PathBuf,
    file: Flock<File>,
}

impl PidFile {
    /// Locks the file, which is created if it does not exist. The lock (flock(2)) survives a fork and
    /// ends with the last process that has the file open.
    pub(crate) fn lock(path: &Path) -> Result<Self> {
        let path = std::path::absolute(path).context("cannot find the working directory")?;
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o644)
                .custom_flags(libc::O_NOFOLLOW)
                .open(&path)
                .with_context(|| format!("cannot open pid file {}", path.display()))?;
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                // Its owner may have removed it between the two calls.
                Ok(file) if is_still(&file, &path) => return Ok(Self { path, file }),
                Ok(_) => {}
                Err((file, Errno::EWOULDBLOCK)) => held_by_another(&path, file)?,
                Err((_, errno)) => {
                    let error = std::io::Error::from(errno);
                    return Err(error)
                        .with_context(|| format!("cannot lock pid file {}", path.display()));
                }
            }
        }
    }

    /// Writes our process id, after the last fork.
    pub(crate) fn write(&mut self) -> Result<()> {
        let write = |mut file: &File| {
            file.set_len(0)?;
            writeln!(file, "{}", std::process::id())
        };
        write(&self.file).with_context(|| format!("cannot write pid file {}", self.path.display()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let _ = remove_file(&self.path);
    }
}

fn is_still(file: &File, path: &Path) -> bool {
    match (file.metadata(), path.metadata()) {
        (Ok(ours), Ok(there)) => ours.ino() == there.ino() && ours.dev() == there.dev(),
        _ => false,
    }
}

fn held_by_another(path: &Path, mut file: File) -> Result<()> {
    let mut pid = String::new();
    // The number only makes the message better.
    let _ = file.read_to_string(&mut pid);
    let holder = match pid.trim() {
        "" => "another process".to_owned(),
        pid => format!("process {pid}"),
    };
    bail!("cannot lock pid file {}: held by {holder}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d3_a_pid_file_is_held_by_one_and_removed_at_the_end() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("pid");
        let mut held = PidFile::lock(&path).expect("locked");
        held.write().expect("written");
        let pid = std::process::id();
        assert_eq!(std::fs::read_to_string(&path).expect("read"), format!("{pid}\n"));
        let error = PidFile::lock(&path).expect_err("held");
        assert!(error.to_string().ends_with(&format!("held by process {pid}")), "{error}");
        drop(held);
        assert!(!path.exists());
        PidFile::lock(&path).expect("free again");
    }
}
