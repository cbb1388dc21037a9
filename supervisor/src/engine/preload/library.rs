//! `rebind.so` on disk: given by an option, installed by a package, or unpacked from this binary (R5). Knows which one
//! is fit to be loaded by every program, and not how a program is started. `unpacked` knows where the built-in one is
//! unpacked; `stale` removes what dead instances have left of that.

mod saved;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use nix::unistd::Uid;
use object::{Object, ObjectSymbol};
use tracing::warn;

use super::stale;
use super::unpacked::{EMBEDDED, Unpacked, candidates, check_ancestors};
use super::variable::check_text;
use crate::exit::Failure;
pub(super) use saved::LibraryState;

/// A `rebind.so` that programs can load. One that was unpacked is removed when
/// this is dropped, so it must outlive every process of the program, and it must
/// be found after `-D` has forked.
#[derive(Debug)]
pub(super) struct Library {
    path: PathBuf,
    origin: Origin,
    /// Libraries that binaries of other versions have unpacked before hand-overs of this process: programs that they
    /// have started may still need them.
    former: Vec<Unpacked>,
}

/// Where it comes from.
#[derive(Debug)]
enum Origin {
    Given,
    Packaged,
    Unpacked(Unpacked),
    /// Unpacked by a binary of another version before a hand-over, for the programs that run.
    Outdated(Unpacked),
}

impl Library {
    /// Takes `given` if there is one; else the library that was installed with
    /// this executable, in `../lib/websockify`; else unpacks the built-in one.
    ///
    /// # Errors
    ///
    /// `given` cannot be preloaded, or no directory takes the built-in library.
    pub(super) fn find(given: Option<&Path>) -> anyhow::Result<Library> {
        if let Some(given) = given {
            let path = std::path::absolute(given).context("cannot find the working directory")?;
            let library = Library { path, origin: Origin::Given, former: vec![] };
            library.check().with_context(|| cannot_use(given))?;
            return Ok(library);
        }
        match std::env::current_exe().ok().and_then(|executable| packaged(&executable)) {
            Some(path) => Ok(Library { path, origin: Origin::Packaged, former: vec![] }),
            None => Self::unpack(&candidates()),
        }
    }

    /// Absolute, and fit for `LD_PRELOAD`.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Looks whether programs would still load it: without it they would start all the same, and bind the public port.
    /// What was removed or changed is unpacked again, with a warning.
    ///
    /// # Errors
    ///
    /// A library that was given cannot be used, or the built-in one cannot be unpacked.
    pub(super) fn renew(&mut self) -> anyhow::Result<()> {
        let path = self.path.clone();
        match &mut self.origin {
            Origin::Given => return self.check().with_context(|| cannot_use(&path)),
            Origin::Packaged => {
                let Err(reason) = self.check() else { return Ok(()) };
                let reason = Failure::from(reason).reason;
                warn!("{}: {reason}; using the built-in one", cannot_use(&path));
                self.replace()?;
            }
            Origin::Outdated(_) => self.replace()?,
            Origin::Unpacked(unpacked) if unpacked.is_whole() => {}
            Origin::Unpacked(unpacked) => {
                unpacked.mend()?;
                self.path = unpacked.library();
                let (old, new) = (path.display(), self.path.display());
                warn!("rebind library {old} was removed or changed; unpacked again as {new}");
            }
        }
        Ok(())
    }

    /// Whether every user can load it.
    pub(super) fn is_open(&self) -> anyhow::Result<()> {
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        check_ancestors(directory).with_context(|| self.path.display().to_string())
    }

    /// Leaves the file where it is: a daemon that is left running, perhaps as another
    /// user than we, needs it when it starts another program.
    pub(super) fn keep(&mut self, is_of_another_user: bool) {
        if let Origin::Unpacked(unpacked) | Origin::Outdated(unpacked) = &mut self.origin {
            unpacked.keep(is_of_another_user);
        }
        self.former.iter_mut().for_each(|former| former.keep(is_of_another_user));
    }

    /// Takes the built-in library from now on. One of another version is left for the programs that have it.
    fn replace(&mut self) -> anyhow::Result<()> {
        let Self { path, origin, .. } = Self::unpack(&candidates())?;
        self.path = path;
        if let Origin::Outdated(former) = std::mem::replace(&mut self.origin, origin) {
            self.former.push(former);
        }
        Ok(())
    }

    fn unpack(parents: &[PathBuf]) -> anyhow::Result<Self> {
        let unpacked = Unpacked::into_one_of(parents)?;
        Ok(Self { path: unpacked.library(), origin: Origin::Unpacked(unpacked), former: vec![] })
    }

    fn check(&self) -> anyhow::Result<()> {
        if let Origin::Packaged = self.origin {
            check_owner(&self.path)?;
            check_owner(self.path.parent().unwrap_or(Path::new("/")))?;
        }
        check_library(&self.path)?;
        if let Origin::Packaged = self.origin {
            self.check_version()?;
        }
        Ok(())
    }

    /// The Python websockify's package has a library of this name in the same place. It moves `bind()` alone: the
    /// relocated port, which we hold, would be in its way.
    fn check_version(&self) -> anyhow::Result<()> {
        let library = fs::read(&self.path)?;
        let defined = ["listen", "getpeername"].iter().try_for_each(|name| defines(&library, name));
        defined.context("it is the Python websockify's, or of an earlier version")
    }
}

impl Library {
    /// Whether it tells programs who their clients are; one of an earlier version does not.
    ///
    /// # Errors
    ///
    /// It does not, or it cannot be read.
    pub(super) fn tells(&self) -> anyhow::Result<()> {
        defines(&fs::read(&self.path)?, "getpeername").with_context(|| cannot_use(&self.path))
    }
}

/// Removes what dead instances have left. Blocks.
pub(super) fn remove_stale() {
    stale::remove(&candidates());
}

fn cannot_use(library: &Path) -> String {
    format!("cannot use rebind library {}", library.display())
}

/// The library that a package installs beside the executable, if there is one
/// and nobody else could have put it there.
fn packaged(executable: &Path) -> Option<PathBuf> {
    let directory = executable.parent()?.parent()?.join("lib/websockify");
    let path = directory.join("rebind.so");
    if !path.exists() {
        return None;
    }
    let library = Library { path, origin: Origin::Packaged, former: vec![] };
    match library.check() {
        Ok(()) => Some(library.path),
        Err(reason) => {
            let reason = Failure::from(reason).reason;
            warn!("{}: {reason}; using the built-in one", cannot_use(&library.path));
            None
        }
    }
}

/// Whoever can write this can run code as every user who wraps a program.
fn check_owner(path: &Path) -> anyhow::Result<()> {
    let metadata = path.metadata()?;
    let owner = Uid::from_raw(metadata.uid());
    ensure!(owner.is_root() || owner == Uid::effective(), "{} is not ours", path.display());
    ensure!(metadata.mode() & 0o022 == 0, "{} can be written by others", path.display());
    Ok(())
}

/// Whether the dynamic linker would load it into programs of our architecture. If it would not, it would only complain
/// on the program's standard error, and start the program with its port not moved.
fn check_library(path: &Path) -> anyhow::Result<()> {
    check_text(path)?;
    ensure!(path.metadata()?.is_file(), "not a regular file");
    let bytes = fs::read(path)?;
    ensure!(bytes.starts_with(b"\x7fELF"), "not an ELF file");
    let file = object::File::parse(&*bytes)?;
    let ours = object::File::parse(EMBEDDED)?;
    ensure!(file.kind() == object::ObjectKind::Dynamic, "not a shared library");
    ensure!(
        file.architecture() == ours.architecture() && file.is_64() == ours.is_64(),
        "built for another architecture"
    );
    defines(&bytes, "bind")
}

fn defines(library: &[u8], function: &str) -> anyhow::Result<()> {
    let file = object::File::parse(library)?;
    let mut defined = file.dynamic_symbols().filter(ObjectSymbol::is_definition);
    ensure!(defined.any(|symbol| symbol.name() == Ok(function)), "defines no {function}()");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::super::unpacked;
    use super::*;

    fn unpack(parents: &[PathBuf]) -> anyhow::Result<Library> {
        Library::unpack(parents)
    }

    fn scratch() -> TempDir {
        let scratch = TempDir::new().unwrap();
        fs::set_permissions(&scratch, Permissions::from_mode(0o755)).unwrap();
        scratch
    }

    /// R5: one binary carries the library; what it unpacks everybody can load.
    #[test]
    fn r5_unpacks_the_embedded_library_and_removes_it() {
        let library = Library::find(None).unwrap();
        let path = library.path().to_owned();
        assert!(path.is_absolute());
        assert_eq!(fs::read(&path).unwrap(), EMBEDDED);
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, unpacked::MODE);
        assert_eq!(path.parent().unwrap().metadata().unwrap().mode() & 0o7777, 0o755);
        drop(library);
        assert!(!path.parent().unwrap().exists());
    }

    /// R5: the search for what dead instances have left takes no directory of an instance that just starts.
    #[test]
    fn r5_unpacks_while_others_remove_what_was_left() {
        let scratch = scratch();
        let parents = [scratch.path().to_owned()];
        std::thread::scope(|scope| {
            let starts = scope.spawn(|| (0..2_000).for_each(|_| drop(unpack(&parents).unwrap())));
            while !starts.is_finished() {
                stale::remove(&parents);
            }
        });
        let left: Vec<_> = fs::read_dir(&scratch).unwrap().flatten().collect();
        assert!(left.is_empty(), "{left:?}");
    }

    /// R5: a daemon that is left running keeps its library.
    #[test]
    fn r5_keeps_the_library_for_a_daemon() {
        let scratch = scratch();
        let mut library = unpack(&[scratch.path().to_owned()]).unwrap();
        let path = library.path().to_owned();
        library.keep(false);
        drop(library);
        assert_eq!(fs::read(path).unwrap(), EMBEDDED);
    }

    /// R5: the library of a package is preferred, unless others can write it.
    #[test]
    fn r5_prefers_the_packaged_library() {
        let scratch = scratch();
        let executable = scratch.path().join("bin/websockify");
        assert_eq!(packaged(&executable), None);
        let directory = scratch.path().join("lib/websockify");
        fs::create_dir_all(&directory).unwrap();
        let library = directory.join("rebind.so");
        fs::write(&library, EMBEDDED).unwrap();
        let with_modes = |of_directory, of_library| {
            fs::set_permissions(&directory, Permissions::from_mode(of_directory)).unwrap();
            fs::set_permissions(&library, Permissions::from_mode(of_library)).unwrap();
            packaged(&executable)
        };
        assert_eq!(with_modes(0o755, 0o644), Some(library.clone()));
        assert_eq!(with_modes(0o755, 0o646), None);
        assert_eq!(with_modes(0o777, 0o644), None);
        // A library of the Python websockify, or of an earlier version, lacks some of the functions.
        for name in ["listen", "getpeername"] {
            let symbol = [&[0], name.as_bytes(), &[0]].concat();
            let at = EMBEDDED.windows(symbol.len()).position(|bytes| bytes == symbol).unwrap();
            let mut without = EMBEDDED.to_vec();
            without[at + 1] = b'_';
            fs::write(&library, without).unwrap();
            assert_eq!(with_modes(0o755, 0o644), None, "{name}");
        }
        fs::write(&library, "no library").unwrap();
        assert_eq!(with_modes(0o755, 0o644), None);
    }

    /// R5: a directory that programs could not load from is passed over, and the
    /// reason is told if no other is left.
    #[test]
    fn r5_passes_over_unfit_directories() {
        let scratch = scratch();
        let directory = |name: &str, mode| {
            let path = scratch.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            path
        };
        let fit = directory("fit", 0o755);
        let unfit = [
            (directory("with space", 0o755), "white space"),
            (directory("with:colon", 0o755), "':'"),
            (directory("with$LIB", 0o755), "'$'"),
            (directory("open", 0o777), "everybody can put another file"),
            (scratch.path().join("missing"), "no such file"),
        ];
        for (path, reason) in &unfit {
            let error = unpack(std::slice::from_ref(path)).unwrap_err().to_string();
            assert!(error.contains(reason), "{}: {error}", path.display());
            assert!(error.contains(path.to_str().unwrap()), "{error}");
        }
        let mut all: Vec<_> = unfit.into_iter().map(|(path, _)| path).collect();
        all.push(fit.clone());
        assert!(unpack(&all).unwrap().path().starts_with(&fit));
    }

    /// R5: nothing can be loaded from a file system that is mounted noexec.
    #[test]
    fn r5_passes_over_noexec_mounts() {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let noexec = mounts.lines().filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (path, options) = (Path::new(fields.next()?), fields.nth(1)?);
            let fit = options.split(',').any(|option| option == "noexec") && path.is_dir();
            (fit && check_text(path).is_ok()).then(|| path.to_owned())
        });
        for path in noexec {
            let error = unpack(std::slice::from_ref(&path)).unwrap_err().to_string();
            assert!(error.contains("mounted noexec"), "{error}");
        }
    }

    /// R5: `--rebind-lib` must name something that can be preloaded.
    #[test]
    fn r5_refuses_an_unusable_library() {
        let scratch = scratch();
        let file = |name: &str, bytes: &[u8]| {
            let path = scratch.path().join(name);
            fs::write(&path, bytes).unwrap();
            path
        };
        let mut foreign = EMBEDDED.to_vec();
        // e_machine: PDP-11.
        let machine: [u8; 2] = if cfg!(target_endian = "big") { [0, 65] } else { [65, 0] };
        foreign[18..20].copy_from_slice(&machine);
        let given = [
            (scratch.path().join("none.so"), "No such file"),
            (scratch.path().to_owned(), "not a regular file"),
            (PathBuf::from("/dev/zero"), "not a regular file"),
            (file("text.so", b"hello"), "not an ELF file"),
            (file("cut.so", &EMBEDDED[..40]), "Invalid ELF"),
            (file("foreign.so", &foreign), "another architecture"),
            (file("a space.so", EMBEDDED), "white space"),
            (PathBuf::from("/bin/sh"), "defines no bind()"),
        ];
        for (path, reason) in given {
            let error = format!("{:#}", Library::find(Some(&path)).unwrap_err());
            let start = format!("cannot use rebind library {}: ", path.display());
            assert!(error.starts_with(&start) && error.contains(reason), "{error}");
        }
        let good = file("good.so", EMBEDDED);
        assert_eq!(Library::find(Some(&good)).unwrap().path(), good);
        assert!(good.exists(), "a library that was given is not removed");
    }
}
