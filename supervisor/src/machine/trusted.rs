//! Opens files where nobody but us and root decides what is opened. Whoever can exchange a directory, a
//! link or a file on the way to what we write gets it written elsewhere. Knows what a path leads through,
//! and not what is written there.
//!
//! Every directory on the way, as far as `/`, belongs to us or root. One that a group or everybody can
//! write is shared: everybody only under the sticky bit, by which nobody removes or renames what is
//! another's. In a shared one the file is no link, has no second name, and is ours or root's as
//! everywhere.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Result, bail, ensure};
use nix::unistd::Uid;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, PROC_SUPER_MAGIC, Stat, fstat, fstatfs, openat,
    readlinkat, statat,
};
use rustix::io::Errno;

/// How many links a path leads through at most, as the kernel has it (path_resolution(7)).
const LINKS: u32 = 40;

/// Who besides us and root can make names in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writers {
    Nobody,
    /// The members of its group, who can also remove and rename what is there.
    Group,
    /// Everybody; but a file that is there can be removed or renamed only by its owner, or by the directory's.
    Sticky,
}

/// Opens the file at this absolute path, with `flags` as open(2) has them.
pub(crate) fn open(path: &Path, flags: OFlags, mode: Mode) -> Result<File> {
    let mut walk = Walk::begin()?;
    let mut names = names_of(path);
    while let Some(name) = names.pop() {
        if walk.is_proc()? {
            return walk.open_inherited(&name, &names, flags);
        }
        if !names.is_empty() {
            walk.go(&name, &mut names)?;
            continue;
        }
        match walk.look(&name)? {
            Some(stat) if is_link(&stat) && !flags.contains(OFlags::NOFOLLOW) => {
                ensure!(
                    walk.writers == Writers::Nobody,
                    "it is a link, in {}, where others can write",
                    walk.path.display()
                );
                walk.follow(&name, &mut names)?;
            }
            found => {
                found.map_or(Ok(()), |stat| walk.check_file(&name, &stat))?;
                let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = openat(&walk.directory, &name, flags, mode).map_err(io::Error::from)?;
                walk.check_file(&name, &fstat(&file).map_err(io::Error::from)?)?;
                return Ok(file.into());
            }
        }
    }
    Err(io::Error::from(Errno::ISDIR).into())
}

/// Checks the directory at this absolute path, and says who can write there besides us.
pub(crate) fn directory(path: &Path) -> Result<Writers> {
    let mut walk = Walk::begin()?;
    let mut names = names_of(path);
    while let Some(name) = names.pop() {
        walk.go(&name, &mut names)?;
    }
    Ok(walk.writers)
}

/// A path as far as it has been walked.
struct Walk {
    directory: OwnedFd,
    path: PathBuf,
    writers: Writers,
    /// Who owns `/`: root, or in a user namespace the user that stands for root.
    root: u32,
    links: u32,
}

impl Walk {
    fn begin() -> Result<Self> {
        let directory = openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .map_err(io::Error::from)?;
        let root = fstat(&directory).map_err(io::Error::from)?.st_uid;
        let (path, writers) = ("/".into(), Writers::Nobody);
        let mut walk = Self { directory, path, writers, root, links: 0 };
        walk.check_directory()?;
        Ok(walk)
    }

    /// Enters the directory of this name, or follows the link.
    fn go(&mut self, name: &OsStr, names: &mut Vec<OsString>) -> Result<()> {
        match self.look(name)? {
            Some(stat) if is_link(&stat) => {
                if self.writers != Writers::Nobody {
                    // A hard link to one of root's symbolic links would lead where root never meant it to.
                    ensure!(
                        self.is_trusted(stat.st_uid) && stat.st_nlink == 1,
                        "{} is a link of somebody else's",
                        self.path.join(name).display()
                    );
                }
                self.follow(name, names)
            }
            _ => self.enter(name),
        }
    }

    fn enter(&mut self, name: &OsStr) -> Result<()> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.directory =
            openat(&self.directory, name, flags, Mode::empty()).map_err(io::Error::from)?;
        if name == ".." {
            self.path.pop();
        } else {
            self.path.push(name);
        }
        self.check_directory()
    }

    /// Follows the link: puts the names in its target before those that are left of the path.
    fn follow(&mut self, name: &OsStr, names: &mut Vec<OsString>) -> Result<()> {
        self.links += 1;
        if self.links > LINKS {
            return Err(io::Error::from(Errno::LOOP).into());
        }
        let target = readlinkat(&self.directory, name, Vec::new()).map_err(io::Error::from)?;
        let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
        if target.is_absolute() {
            *self = Self { links: self.links, ..Self::begin()? };
        }
        names.extend(names_of(&target));
        Ok(())
    }

    fn look(&self, name: &OsStr) -> Result<Option<Stat>> {
        match statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(io::Error::from(errno).into()),
        }
    }

    fn check_directory(&mut self) -> Result<()> {
        let stat = fstat(&self.directory).map_err(io::Error::from)?;
        let path = self.path.display();
        ensure!(self.is_trusted(stat.st_uid), "{path} belongs to user {}", stat.st_uid);
        let is = |bits| stat.st_mode & bits != 0;
        self.writers = match () {
            () if is(0o1000) && is(0o022) => Writers::Sticky,
            () if is(0o002) => bail!("in {path} everybody can put another file in its place"),
            // Root's own group is as good as root.
            () if is(0o020) && stat.st_gid != 0 => Writers::Group,
            () => Writers::Nobody,
        };
        Ok(())
    }

    fn check_file(&self, name: &OsStr, stat: &Stat) -> Result<()> {
        let kind = FileType::from_raw_mode(stat.st_mode);
        // Only root makes devices; a terminal belongs to the user who has logged in there.
        if matches!(kind, FileType::CharacterDevice | FileType::BlockDevice) {
            return Ok(());
        }
        let path = self.path.join(name);
        let path = path.display();
        ensure!(self.is_trusted(stat.st_uid), "{path} belongs to user {}", stat.st_uid);
        let is_shared = self.writers != Writers::Nobody && kind == FileType::RegularFile;
        ensure!(!is_shared || stat.st_nlink <= 1, "{path} has a second name");
        Ok(())
    }

    fn is_trusted(&self, owner: u32) -> bool {
        owner == 0 || owner == self.root || owner == Uid::effective().as_raw()
    }

    /// Whether we are in proc(5), where the kernel alone makes names.
    fn is_proc(&self) -> Result<bool> {
        let system = fstatfs(&self.directory).map_err(io::Error::from)?;
        Ok(system.f_type == PROC_SUPER_MAGIC)
    }

    /// Opens `/proc/self/fd/1` and the like, which is what `/dev/stdout` leads to. Whoever started us has given us that
    /// file, so it may belong to any user.
    fn open_inherited(&self, name: &OsString, names: &[OsString], flags: OFlags) -> Result<File> {
        let rest: PathBuf = std::iter::once(name).chain(names.iter().rev()).collect();
        let flags = flags | OFlags::CLOEXEC;
        let file = openat(&self.directory, rest, flags, Mode::empty()).map_err(io::Error::from)?;
        Ok(file.into())
    }
}

/// The names in a path, the last one first.
fn names_of(path: &Path) -> Vec<OsString> {
    let names =
        path.components().filter(|part| !matches!(part, Component::RootDir | Component::CurDir));
    names.map(|part| part.as_os_str().to_owned()).rev().collect()
}

fn is_link(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Symlink
}
