//! What the user that we have become cannot do with what root has opened, each in a line for the log: so that it is
//! known now, and not when a certificate has expired. Must not know what is done about it.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bridge::error_text;
use bridge::tls::Authorities;
use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

use super::Resources;
use crate::config::{AdminPlace, AuthSpec, Config, Destination, Listen, TokenSource};
use crate::exit::Failure;
use crate::machine::user::User;
use crate::tokens::Tokens;

/// The lines for this user.
pub(super) fn of(resources: &Resources, config: &Config, user: &User) -> Vec<String> {
    let name = &user.name;
    let mut lines = Vec::new();
    if let Some(file) = &resources.log.file
        && let Err(failure) = file.check()
    {
        let reason = Failure::from(failure).reason;
        lines.push(format!("user {name} goes on with the log file as it is on SIGHUP: {reason}"));
    }
    for (path, what) in files(resources, config) {
        // What is in a directory is opened by its name.
        let wanted = if path.is_dir() { AccessFlags::X_OK } else { AccessFlags::R_OK };
        if let Err(errno) = access(&path, wanted)
            && errno == Errno::EACCES
        {
            let (path, reason) = (path.display(), error_text(&io::Error::from(errno)));
            lines.push(format!("user {name} cannot read {path}: {reason}; {what}"));
        }
    }
    for (path, what) in ours(config) {
        if !is_removable(path, user) {
            lines.push(format!("user {name} cannot remove {} at the end; {what}", path.display()));
        }
    }
    lines
}

/// The files that were read as root, and would be read again, each with what follows if they cannot.
fn files(resources: &Resources, config: &Config) -> Vec<(PathBuf, &'static str)> {
    let certificates = resources.certificates.paths().into_iter();
    let mut files: Vec<_> = certificates
        .map(|path| (path, "certificates cannot be renewed before the next start"))
        .collect();
    if let Some(Authorities::File(path)) = &config.target_tls {
        files.push((
            path.clone(),
            "the authorities for targets cannot be renewed before the next start",
        ));
    }
    let in_file = |spec: &AuthSpec| spec.path().cloned();
    let auth = config.access.auth.as_ref().and_then(in_file);
    let admin =
        config.admin.as_ref().and_then(|admin| admin.auth.as_ref().and_then(AuthSpec::path));
    let tokens = match &config.destination {
        Destination::Tokens(spec) => match &spec.source {
            TokenSource::In(path) => Some(path.clone()),
            TokenSource::Typed(_) => None,
        },
        Destination::Service(_) | Destination::Program(_) => None,
    };
    let values = [auth, admin.cloned(), tokens].into_iter().flatten();
    files.extend(values.map(|path| (path, "it cannot be read again on SIGHUP")));
    // Token files are read as the user from the beginning, and that reading says what is wrong with them.
    let tokens = resources.tokens.as_ref().and_then(Tokens::path_of_directory);
    files.extend(tokens.map(|path| (path, "no token is found there")));
    files
}

/// The files that exist as long as we do, each with what follows if they cannot be removed.
fn ours(config: &Config) -> Vec<(&Path, &'static str)> {
    const SOCKET: &str = "it stays, and the next start takes its place";
    let mut ours = Vec::new();
    if let Some(path) = &config.pid_file {
        ours.push((&**path, "it is emptied"));
    }
    if let Listen::Unix { path, .. } = &config.listen {
        ours.push((path, SOCKET));
    }
    if let Some(AdminPlace::Unix(path)) = config.admin.as_ref().map(|admin| &admin.place) {
        ours.push((path, SOCKET));
    }
    ours
}

/// Whether the user may remove it, by the rules of unlink(2).
fn is_removable(path: &Path, user: &User) -> bool {
    let Some(directory) = path.parent() else { return false };
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let is_owner = |path: &Path| {
        path.symlink_metadata().is_ok_and(|metadata| metadata.uid() == user.uid.as_raw())
    };
    let is_sticky = || directory.metadata().is_ok_and(|metadata| metadata.mode() & 0o1000 != 0);
    access(directory, AccessFlags::W_OK | AccessFlags::X_OK).is_ok()
        && (!is_sticky() || is_owner(path) || is_owner(directory))
}
