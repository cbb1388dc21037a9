//! Where a program's name leads: PATH, as execvp(3) reads it, and the administrator's directories that
//! an ordinary PATH lacks. Reads directories, and starts nothing.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

/// Without PATH the C library looks where the system's own programs are.
const DEFAULT: &str = "/bin:/usr/bin";

/// Where servers are, and where ordinary users do not look.
const ADMINISTRATORS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// The file that `execvp()` runs; for a name with a slash, that path itself, whatever is there.
pub(crate) fn find(program: &OsStr, path_env: Option<&OsStr>) -> Option<PathBuf> {
    if program.as_bytes().contains(&b'/') {
        return Some(program.into());
    }
    find_in(program, std::env::split_paths(path_env.unwrap_or(OsStr::new(DEFAULT))))
}

/// Where a program is that `execvp()` does not find: in an administrator's directory, or under the name
/// that servers of inetd's have (`in.telnetd`).
pub(crate) fn elsewhere(program: &OsStr, path_env: Option<&OsStr>) -> Option<PathBuf> {
    if program.as_bytes().contains(&b'/') {
        return None;
    }
    let of_inetd: OsString = [OsStr::new("in."), program].into_iter().collect();
    let path_env = path_env.unwrap_or(OsStr::new(DEFAULT));
    let directories =
        || std::env::split_paths(path_env).chain(ADMINISTRATORS.into_iter().map(PathBuf::from));
    find_in(program, directories()).or_else(|| find_in(&of_inetd, directories()))
}

/// Whether a word names a program that is here.
pub(crate) fn is_program(word: &OsStr) -> bool {
    let path_env = std::env::var_os("PATH");
    let found = find(word, path_env.as_deref()).filter(|path| is_executable(path));
    found.or_else(|| elsewhere(word, path_env.as_deref())).is_some()
}

fn find_in(program: &OsStr, mut directories: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    directories
        .find_map(|directory| Some(directory.join(program)).filter(|path| is_executable(path)))
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && access(path, AccessFlags::X_OK).is_ok()
}
