//! The Unix socket that clients connect to: made where nothing is in the way, with its mode set before anybody can
//! connect, and removed at the end. Knows a path and what is there; must not know who connects.

mod saved;

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use bridge::sock_diag::FileNumbers;
use nix::unistd::geteuid;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, Stat, chownat, fstat, openat, statat, unlinkat,
};
use rustix::io::Errno;
use socket2::{Domain, SockAddr, Socket, Type};

use super::ports::BACKLOG;
use super::privileges::as_user_or_root;
use super::proc_text;
use super::random;
use super::trusted;
use super::user::User;
pub(crate) use saved::{PublicSocketState, SocketFileState};

/// The longest path, bytes: a NUL follows it in `sun_path` (unix(7)).
const PATH_MAX: usize = 107;

/// The public socket: bound and not yet listening, so that a client is refused.
#[derive(Debug)]
pub(crate) struct PublicSocket {
    socket: Socket,
    file: SocketFile,
}

/// The file of a socket of ours, removed when this is dropped, if it is still ours: somebody may have removed it and
/// put another in its place. It is kept open, so that no other file gets its inode number meanwhile.
#[derive(Debug)]
pub(crate) struct SocketFile {
    place: Place,
    file: OwnedFd,
    /// The old binary may still need it, so that it is not removed.
    keep_on_drop: bool,
}

/// Where it is. The directory is kept open, so that it is found again wherever it is moved to.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    directory: OwnedFd,
    name: OsString,
}

impl PublicSocket {
    /// Binds the socket, in the place of a stale one. Nobody can connect before it listens, and its mode is set before
    /// that (unix(7): connecting takes the right to write). The file belongs to the user that we are to become, if
    /// there is one.
    pub(crate) fn reserve(path: &Path, mode: u32, user: Option<&User>) -> Result<Self> {
        let bind = || {
            let socket = as_user_or_root(user, || {
                if user.is_some() && geteuid().is_root() {
                    check_way(path)?;
                }
                Self::bind(path, mode)
            })?;
            user.map_or(Ok(()), |user| socket.file.give_to(user))?;
            anyhow::Ok(socket)
        };
        bind().with_context(|| format!("cannot listen on Unix socket {}", path.display()))
    }

    fn bind(path: &Path, mode: u32) -> Result<Self> {
        let length = path.as_os_str().len();
        ensure!(length <= PATH_MAX, "its path has {length} bytes, and {PATH_MAX} are the most");
        let place = Place::of(path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        let address = SockAddr::unix(path)?;
        let bound = socket.bind(&address).or_else(|error| {
            if error.kind() != io::ErrorKind::AddrInUse {
                return Err(error.into());
            }
            place.make_room(&address)?;
            socket.bind(&address).map_err(anyhow::Error::from)
        });
        bound?;
        let file = SocketFile::open(place)?;
        file.set_mode(mode)?;
        Ok(Self { socket, file })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.file.place.path
    }

    /// Begins to listen. The file is removed when the [`SocketFile`] is dropped.
    pub(crate) fn listen(self) -> Result<(UnixListener, SocketFile)> {
        self.socket
            .listen(BACKLOG)
            .with_context(|| format!("cannot listen on Unix socket {}", self.path().display()))?;
        Ok((self.socket.into(), self.file))
    }
}

impl SocketFile {
    fn open(place: Place) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&place.directory, &place.name, flags, Mode::empty());
        Ok(Self { file: file.map_err(io::Error::from)?, place, keep_on_drop: false })
    }

    /// Sets the mode by the open file: what is at the path may have been exchanged.
    fn set_mode(&self, mode: u32) -> Result<()> {
        let stat = fstat(&self.file).map_err(io::Error::from)?;
        ensure!(is_socket(&stat), "another file was put in its place");
        if stat.st_mode & 0o7777 == mode {
            return Ok(());
        }
        // fchmod(2) takes no descriptor that was opened with O_PATH.
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        fs::set_permissions(path, Permissions::from_mode(mode)).context("cannot set its mode")
    }
}

impl SocketFile {
    /// Gives the file to the user. Root has made it, where the user could not: so nobody but root can have exchanged it
    /// there.
    fn give_to(&self, user: &User) -> Result<()> {
        let stat = fstat(&self.file).map_err(io::Error::from)?;
        if stat.st_uid == user.uid.as_raw() {
            return Ok(());
        }
        ensure!(is_socket(&stat) && stat.st_nlink <= 1, "another file was put in its place");
        let owner = Some(rustix::fs::Uid::from_raw(user.uid.as_raw()));
        let group = Some(rustix::fs::Gid::from_raw(user.gid.as_raw()));
        chownat(&self.file, "", owner, group, AtFlags::EMPTY_PATH).map_err(io::Error::from)?;
        Ok(())
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.keep_on_drop {
            return;
        }
        let Place { directory, name, .. } = &self.place;
        let there = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
        if let (Ok(ours), Ok(there)) = (fstat(&self.file), there)
            && (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)
        {
            let _ = unlinkat(directory, name, AtFlags::empty());
        }
    }
}

impl Place {
    fn of(path: &Path) -> Result<Self> {
        let parent = path.parent().expect("config.rs lets no path without a file name through");
        let name = path.file_name().expect("the same").to_owned();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(CWD, parent, flags, Mode::empty()).map_err(io::Error::from)?;
        Ok(Self { path: path.to_owned(), directory, name })
    }

    /// Removes a stale socket, which no process has any more; whatever else is in the way stays.
    fn make_room(&self, address: &SockAddr) -> Result<()> {
        let stat = match statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            stat => stat.map_err(io::Error::from)?,
        };
        ensure!(is_socket(&stat), "something else is there, which is no socket");
        let caller = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // A full backlog would keep us waiting.
        caller.set_nonblocking(true)?;
        match caller.connect(address) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                ensure!(!self.is_held(&stat), "another process holds it");
                match unlinkat(&self.directory, &self.name, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => Ok(()),
                    Err(errno) => Err(io::Error::from(errno)).context("cannot remove the old one"),
                }
            }
            Err(error) if error.raw_os_error() == Some(libc::EPROTOTYPE) => {
                bail!("a socket of another type is there")
            }
            Ok(()) => bail!("somebody listens there already"),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                bail!("somebody listens there already")
            }
            Err(error) => Err(error).context("cannot find out whether somebody listens there"),
        }
    }

    /// Whether a process has the socket of this file and does not listen yet, as we do while the program starts. If neither
    /// sock_diag(7) nor /proc says it, no process counts as having it. sock_diag is asked first: in /proc a name of any
    /// user's socket may have line feeds in it, and then looks like the line of another socket.
    fn is_held(&self, file: &Stat) -> bool {
        let known = self.is_bound(file).ok().flatten();
        known.unwrap_or_else(|| self.is_listed(file))
    }

    /// What sock_diag(7) says of that, which knows files by the kernel's own numbers. To find the device's, and whether the
    /// kernel has the same inode numbers here as stat(2), a socket is bound beside the file for a moment. None: it has
    /// others, as overlayfs has before Linux 5.8.
    fn is_bound(&self, file: &Stat) -> Result<Option<bool>> {
        let name = format!(".websockify-{}", random::hex()?);
        // By the directory's descriptor: the path may be too long for this name.
        let beside = format!("/proc/self/fd/{}/{name}", self.directory.as_raw_fd());
        let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        probe.bind(&SockAddr::unix(&beside)?)?;
        let stat = statat(&self.directory, &name, AtFlags::SYMLINK_NOFOLLOW);
        let sockets = bridge::sock_diag::bound_sockets();
        let _ = unlinkat(&self.directory, &name, AtFlags::empty());
        let (stat, sockets) = (stat.map_err(io::Error::from)?, sockets?);
        let inode = lower_half(fstat(&probe).map_err(io::Error::from)?.st_ino);
        let ours = sockets.iter().find(|socket| socket.inode == inode);
        let ours = ours.context("sock_diag does not know our own socket")?.file;
        if ours.inode != lower_half(stat.st_ino) {
            return Ok(None);
        }
        let wanted = FileNumbers { inode: lower_half(file.st_ino), ..ours };
        // On btrfs a file of another subvolume, which anybody may make, can have the same numbers.
        let may_have = |uid: u32| uid == 0 || uid == file.st_uid;
        let mut others = sockets.iter().filter(|socket| socket.uid.is_none_or(may_have));
        Ok(Some(others.any(|socket| socket.file == wanted)))
    }

    /// What /proc/net/unix says of it, which has paths alone, as they were bound.
    fn is_listed(&self, file: &Stat) -> bool {
        let sockets = fs::read("/proc/net/unix").unwrap_or_default();
        let bound = sockets.split(|byte| *byte == b'\n').filter_map(proc_text::bound);
        let mut namesakes = bound.filter(|path| path.file_name() == Some(&self.name));
        namesakes.any(|path| {
            let there = path.symlink_metadata();
            there.is_ok_and(|there| (there.dev(), there.ino()) == (file.st_dev, file.st_ino))
        })
    }
}

/// Checks the directory before root makes the socket there, because the user could not: nobody but us and root may
/// decide where it is made.
fn check_way(path: &Path) -> Result<()> {
    let path = std::path::absolute(path).context("cannot find the working directory")?;
    let directory = path.parent().expect("config.rs lets no path without a file name through");
    trusted::directory(directory).map(drop)
}

#[expect(clippy::cast_possible_truncation, reason = "sock_diag gives no more")]
fn lower_half(inode: u64) -> u32 {
    inode as u32
}

fn is_socket(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Socket
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use nix::mount::{MntFlags, MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};
    use nix::sys::socket::UnixAddr;
    use nix::sys::stat::{Mode, SFlag, mknod};

    use super::*;
    use crate::skip::skip_even_in_ci;

    fn refused(path: &Path) -> String {
        let error = PublicSocket::reserve(path, 0o600, None).expect_err("refused");
        format!("{error:#}")
    }

    #[test]
    fn u3_a_socket_is_open_to_whom_its_mode_says_before_anybody_can_connect() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("socket");
        for mode in [0o600, 0o666, 0o777, 0o640, 0] {
            let socket = PublicSocket::reserve(&path, mode, None).expect("bound");
            let metadata = fs::metadata(&path).expect("there");
            assert_eq!(metadata.permissions().mode() & 0o7777, mode);
            // Root may connect whatever the mode.
            let is_denied = mode & 0o200 == 0 && !nix::unistd::geteuid().is_root();
            let denied = is_denied.then_some(io::ErrorKind::PermissionDenied);
            let failure = || UnixStream::connect(&path).err().map(|error| error.kind());
            assert_eq!(failure(), denied.or(Some(io::ErrorKind::ConnectionRefused)), "{mode:o}");
            let (_listener, file) = socket.listen().expect("listening");
            assert_eq!(failure(), denied, "{mode:o}");
            drop(file);
            assert!(!path.exists(), "removed at the end");
        }
    }

    /// In /proc/net/unix a line feed in a name begins a line.
    #[test]
    fn u3_no_name_of_a_socket_passes_for_another_socket() {
        if let Err(error) = bridge::sock_diag::bound_sockets() {
            return skip_even_in_ci(&format!("sock_diag is refused: {error}"));
        }
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("socket");
        mknod(&path, SFlag::S_IFSOCK, Mode::S_IRWXU, 0).expect("a socket's file");
        let line = format!("x\n0: 0 0 00000000 0001 01 1 {}", path.display());
        let liar = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
        let name = UnixAddr::new_abstract(line.as_bytes()).expect("a name");
        nix::sys::socket::bind(liar.as_raw_fd(), &name).expect("bound");
        PublicSocket::reserve(&path, 0o600, None).expect("the old one is stale");
    }

    /// Of two new file systems in memory, whose inodes have the same numbers.
    #[test]
    fn u3_no_file_of_another_device_passes_for_the_same() {
        let directory = tempfile::tempdir().expect("a directory");
        let [ours, theirs] = ["ours", "theirs"].map(|name| directory.path().join(name));
        for place in [&ours, &theirs] {
            fs::create_dir(place).expect("made");
        }
        std::thread::spawn(move || {
            // The mounts are this thread's alone, and end with it.
            let mounted = unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)
                .and_then(|()| mount_private())
                .and_then(|()| [&ours, &theirs].into_iter().try_for_each(|at| mount_memory(at)));
            if let Err(errno) = mounted {
                return skip_even_in_ci(&format!("nothing may be mounted here: {errno}"));
            }
            let path = ours.join("socket");
            mknod(&path, SFlag::S_IFSOCK, Mode::S_IRWXU, 0).expect("a socket's file");
            let liar = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
            let address = SockAddr::unix(theirs.join("socket")).expect("an address");
            liar.bind(&address).expect("bound");
            let inode = |at: &Path| fs::symlink_metadata(at.join("socket")).expect("there").ino();
            assert_eq!(inode(&ours), inode(&theirs));
            // Whoever follows the path that it was bound by comes to our file.
            nix::mount::umount2(&theirs, MntFlags::MNT_DETACH).expect("unmounted");
            fs::remove_dir(&theirs).expect("removed");
            std::os::unix::fs::symlink(&ours, &theirs).expect("a link");
            PublicSocket::reserve(&path, 0o600, None).expect("the old one is stale");
        })
        .join()
        .expect("no failure");
    }

    fn mount_private() -> nix::Result<()> {
        let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)
    }

    fn mount_memory(at: &Path) -> nix::Result<()> {
        mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), None::<&str>)
    }

    #[test]
    fn u3_what_is_in_use_is_left_alone_and_what_is_stale_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("socket");
        // The file that a process leaves when it ends. A socket that was bound here could be kept alive for a moment by
        // a child that another test starts.
        mknod(&path, SFlag::S_IFSOCK, Mode::S_IRWXU, 0).expect("a socket's file");
        let held = PublicSocket::reserve(&path, 0o600, None).expect("the old one is stale");
        let line = refused(&path);
        assert!(line.ends_with(": another process holds it"), "{line}");
        // By another path to its directory, too.
        let alias = directory.path().join("alias");
        std::os::unix::fs::symlink(directory.path(), &alias).expect("a link");
        let line = refused(&alias.join("socket"));
        assert!(line.ends_with(": another process holds it"), "{line}");
        let (listener, file) = held.listen().expect("listening");
        let line = refused(&path);
        assert!(line.ends_with(": somebody listens there already"), "{line}");
        assert!(line.contains(path.to_str().expect("text")), "{line}");
        drop((listener, file));
        let (listener, file) =
            PublicSocket::reserve(&path, 0o600, None).and_then(PublicSocket::listen).expect("free");
        fs::remove_file(&path).expect("removed");
        let _others = UnixListener::bind(&path).expect("bound");
        drop((listener, file));
        assert!(path.exists(), "it is another's now");
    }

    #[test]
    fn u3_a_backlog_that_is_full_is_somebody_who_listens() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("socket");
        let listener = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
        let address = SockAddr::unix(&path).expect("an address");
        listener.bind(&address).and_then(|()| listener.listen(0)).expect("listening");
        let _first = UnixStream::connect(&path).expect("room for one");
        let line = refused(&path);
        assert!(line.ends_with(": somebody listens there already"), "{line}");
    }

    #[test]
    fn u3_what_is_no_socket_of_ours_to_replace_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        fs::write(at("file"), "precious").expect("written");
        fs::create_dir(at("directory")).expect("made");
        std::os::unix::fs::symlink(at("nowhere"), at("link")).expect("a link");
        let _datagrams = UnixDatagram::bind(at("datagrams")).expect("bound");
        let long = "x".repeat(PATH_MAX);
        for (name, reason) in [
            ("file", "something else is there, which is no socket"),
            ("directory", "something else is there, which is no socket"),
            ("link", "something else is there, which is no socket"),
            ("datagrams", "a socket of another type is there"),
            ("none/socket", "no such file or directory"),
            ("file/socket", "not a directory"),
            (&long, "bytes, and 107 are the most"),
        ] {
            let error = PublicSocket::reserve(&at(name), 0o600, None).expect_err(name);
            let line = crate::exit::Failure::from(error).reason;
            assert!(line.ends_with(reason), "{name}: {line}");
            assert!(line.contains(name), "{line}");
        }
        assert_eq!(fs::read(at("file")).expect("still there"), b"precious");
        assert!(at("link").symlink_metadata().is_ok() && at("datagrams").exists());
    }
}
