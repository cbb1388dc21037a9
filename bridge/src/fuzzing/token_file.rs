//! Whole files of tokens, read as for a request: each token leads where the file's lines say that are read one by one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::sync::{Arc, LazyLock};

use ::http::Request;
use ::http::header::HOST;
use ::http::request::Parts;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustix::fs::{MemfdFlags, memfd_create};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use super::token::{host_at_once, line_at_once};
use crate::destination::{Destination, Endpoint};
use crate::directory::{Directory, Kind, Source, TokenPlace, Tokens};
use crate::net::Lookups;

/// How many tokens of a file are looked up: each look-up takes as long as all else that `token` tries.
const LOOKED_UP: usize = 4;

/// The longest token that is looked up, bytes: a URL has an end.
const TOKEN_MAX: usize = 1000;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_current_thread().enable_time().build().expect("threads can be started")
});

/// The bytes are a file with more than one line.
pub(super) fn file(bytes: &[u8]) {
    // One place each time: both would take twice as long.
    let place = if bytes.len().is_multiple_of(2) { TokenPlace::Query } else { TokenPlace::Host };
    let expected = lines_one_by_one(bytes, place);
    let asked: Vec<_> = expected
        .iter()
        .filter_map(|(token, endpoint)| Some((request(token, place)?, token, endpoint)))
        .take(LOOKED_UP)
        .collect();
    if asked.is_empty() {
        return;
    }
    // In memory: it is gone when `file` is.
    let file = memfd_create("tokens", MemfdFlags::CLOEXEC).expect("there is memory");
    let mut file = File::from(file);
    file.write_all(bytes).expect("there is memory");
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    // A file that may not change is read once.
    let source = Arc::new(Source::new(Kind::ReadOnlyTokenFile(path.into()), place));
    let (_sender, source) = watch::channel(source);
    let directory = Directory::Tokens(Tokens { place, source, allowed: None });
    for (head, token, endpoint) in asked {
        let found = RUNTIME.block_on(directory.destination(&head, &Lookups::new()));
        let found = found.unwrap_or_else(|why| panic!("{token:?}: {why}"));
        let Destination::Service(found) = &*found.destination else { panic!("it is a service") };
        assert_eq!(found, endpoint, "{token:?}");
    }
}

/// Where the tokens lead of which the file says so: of two lines with the same token the later counts, and one of a last line
/// that does not end may still be written.
fn lines_one_by_one(bytes: &[u8], place: TokenPlace) -> BTreeMap<String, Endpoint> {
    let text = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let mut lines: Vec<_> = text.split(|byte| *byte == b'\n').collect();
    let unfinished = lines.pop();
    let read = |line| {
        let (token, endpoint) = line_at_once(line).ok().flatten()?;
        let is_host = place == TokenPlace::Host;
        Some((if is_host { token.to_ascii_lowercase() } else { token }, endpoint))
    };
    let mut targets: BTreeMap<_, _> = lines.into_iter().filter_map(read).collect();
    if let Some((token, _)) = unfinished.and_then(read) {
        targets.remove(&token);
    }
    targets
}

/// A request with this token, if one can have it.
fn request(token: &str, place: TokenPlace) -> Option<Parts> {
    let request = match place {
        TokenPlace::Query => {
            let token = utf8_percent_encode(token, NON_ALPHANUMERIC);
            Request::builder().uri(format!("/?token={token}"))
        }
        TokenPlace::Host => Request::builder().header(HOST, token),
    };
    let is_host = host_at_once(token.trim()).as_deref() == Some(token);
    let may_be = token.len() <= TOKEN_MAX && (is_host || place == TokenPlace::Query);
    Some(request.body(()).ok().filter(|_| may_be)?.into_parts().0)
}
