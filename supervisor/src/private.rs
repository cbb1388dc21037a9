//! The list of our own files: the bridge serves none of them to clients, wherever they are (F6). Any other file that we
//! come to read a secret from, or to write, is to be added here.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use bridge::Private;
use bridge::tls::Authorities;

use crate::authentication::Authentication;
use crate::config::{AdminPlace, AuthSpec, Config, Destination, Listen};
use crate::tokens::Tokens;

/// The files that this configuration names, and those that our standard output and error are written to.
pub(crate) fn files(
    config: &Config,
    authentication: Option<&Authentication>,
    tokens: Option<&Tokens>,
) -> Arc<Private> {
    let log = config.log.file.as_ref();
    let library = match &config.destination {
        Destination::Program(program) => program.rebind_lib.as_ref(),
        Destination::Tokens(_) | Destination::Service(_) => None,
    };
    let socket = match &config.listen {
        Listen::Unix { path, .. } => Some(path),
        Listen::Port(_) | Listen::Inetd => None,
    };
    let authorities = match &config.target_tls {
        Some(Authorities::File(path)) => Some(path),
        Some(Authorities::System) | None => None,
    };
    let (admin_socket, password) = config.admin.as_ref().map_or((None, None), |admin| {
        let socket = match &admin.place {
            AdminPlace::Unix(path) => Some(path),
            AdminPlace::Port(_) => None,
        };
        (socket, admin.auth.as_ref().and_then(AuthSpec::path))
    });
    let files = [log, config.pid_file.as_ref(), library, socket, admin_socket, password];
    let files = files.into_iter().flatten();
    let files = files.chain(config.access.files.paths()).chain(authorities);
    let files = files.filter_map(absolute).collect();
    let series = [log, config.record.as_ref()].into_iter().flatten();
    let private = Private::new(files, series.filter_map(absolute));
    let auth = authentication.map(Authentication::paths).unwrap_or_default();
    let tokens = tokens.map(Tokens::paths).unwrap_or_default();
    auth.iter().chain(&tokens).filter_map(absolute).for_each(|path| private.add(&path));
    for stream in [io::stdout().as_fd(), io::stderr().as_fd()] {
        note(&private, stream);
    }
    private.look();
    private.into()
}

fn note(private: &Private, stream: BorrowedFd<'_>) {
    // A stream that is closed has no file.
    let file = stream.try_clone_to_owned().and_then(|stream| File::from(stream).metadata());
    if let Ok(metadata) = file {
        private.note(&metadata);
    }
}

fn absolute(path: &std::path::PathBuf) -> Option<std::path::PathBuf> {
    std::path::absolute(path).ok()
}
