//! Answers web requests with the files of a directory (H1, H2).
//!
//! Which file a path means is decided here, and in `range` which part of it is wanted; how it is sent, on which conditions and
//! as which media type, is tower-http's matter.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use ::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, LOCATION, RANGE,
    X_CONTENT_TYPE_OPTIONS,
};
use ::http::request::Parts;
use ::http::{Method, Request, StatusCode};
use bytes::Bytes;
use http_body_util::{Either, Full};
use nix::errno::Errno;
use tokio::task::spawn_blocking;
use tower_http::services::ServeDir;
use tower_http::services::fs::DefaultServeDirFallback;
use tracing::warn;

use super::cached::OneFile;
use super::listing;
use super::range;
use super::reply::{self, Reply};
use super::url_path::{UrlPath, reference};
use crate::error_text::error_text;
use crate::private::Private;
use crate::redact;
use crate::unadmitted::UNADMITTED;

/// The methods that files have.
const METHODS: &str = "GET, HEAD, OPTIONS";

/// How much of a file is read at once. A client that does not read what it asked for costs some
/// multiple of it.
const PIECE: usize = 16 * 1024;

/// What tower-http answers with.
type Service = ServeDir<DefaultServeDirFallback, OneFile>;

/// What a request's path leads to.
enum Found {
    /// A file, and its length, bytes.
    File(PathBuf, u64),
    /// A directory to be listed.
    Directory(PathBuf),
    /// A directory whose path lacks the slash at its end, without which the relative references of its page lead elsewhere. Has
    /// the last name of the path.
    Unfinished(OsString),
    Nothing,
}

/// The directory that is served.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Root<'a> {
    pub(crate) path: &'a Path,
    /// Whether directories are listed that have no `index.html`.
    pub(crate) is_listed: bool,
}

/// Answers a request with what its path means below `root`, unless that is one of the `private`
/// files: the default certificate with its key may well lie beside the pages.
pub(crate) async fn answer(root: Root<'_>, private: &Arc<Private>, mut head: Parts) -> Reply {
    match head.method {
        Method::GET | Method::HEAD => {}
        // HAProxy's health check asks this (`option httpchk`).
        Method::OPTIONS => return reply::options(METHODS),
        _ => return reply::method_not_allowed(METHODS),
    }
    let url_path = UrlPath::parse(head.uri.path());
    let answer = async {
        let Some(url_path) = url_path else { return Ok(not_found()) };
        let (path, ours) = (url_path.below(root.path), Arc::clone(private));
        let (found, url_path) =
            blocking(move || Ok((find(path, &url_path, &ours)?, url_path))).await?;
        match found {
            Found::File(path, length) => file(path, length, &mut head).await,
            Found::Directory(_) if !root.is_listed => Ok(not_found()),
            Found::Directory(path) => directory(path, url_path, Arc::clone(private)).await,
            Found::Unfinished(name) => Ok(redirect(&name, head.uri.query())),
            Found::Nothing => Ok(not_found()),
        }
    };
    let mut reply = answer.await.unwrap_or_else(|error| failure(&error, head.uri.path()));
    let headers = reply.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // A page and its modules must be of the same version: browsers ask for each anew, and are mostly answered with 304.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    reply
}

fn find(path: PathBuf, url_path: &UrlPath, private: &Private) -> io::Result<Found> {
    let metadata = fs::metadata(&path)?;
    if !metadata.is_dir() {
        // Opening anything but a file may block, or worse.
        let is_file = metadata.is_file() && !url_path.is_directory;
        let is_served = is_file && !private.snapshot().contains(&path, &metadata)?;
        let length = metadata.len();
        return Ok(if is_served { Found::File(path, length) } else { Found::Nothing });
    }
    if let Some(name) = url_path.name()
        && !url_path.is_directory
    {
        return Ok(Found::Unfinished(name.to_owned()));
    }
    let index = path.join("index.html");
    let Some(metadata) = fs::metadata(&index).ok().filter(fs::Metadata::is_file) else {
        return Ok(Found::Directory(path));
    };
    let is_ours = private.snapshot().contains(&index, &metadata)?;
    Ok(if is_ours { Found::Nothing } else { Found::File(index, metadata.len()) })
}

/// Does something that may wait for a disk, in a thread that may block.
async fn blocking<T: Send + 'static>(
    deed: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(deed).await.map_err(io::Error::other)?
}

async fn file(path: PathBuf, length: u64, head: &mut Parts) -> io::Result<Reply> {
    let file = OneFile(path);
    let reference = file.reference();
    let mut service = ServeDir::with_backend("", file).with_buf_chunk_size(PIECE);
    // RFC 9110, section 14.2: only GET has ranges.
    if let Some(range) = head.headers.remove(RANGE)
        && head.method == Method::GET
        && let Some(range) = range::of_file(&range, length)
        && is_current(&mut service, &reference, &head.headers).await?
    {
        head.headers.insert(RANGE, range);
    }
    // Section 13.1.3: the date counts only where there are no tags. An empty list has none, and tower-http goes by the date.
    if head.headers.contains_key(IF_NONE_MATCH) {
        head.headers.remove(IF_MODIFIED_SINCE);
    }
    let mut request = request(&reference);
    request.method_mut().clone_from(&head.method);
    request.headers_mut().clone_from(&head.headers);
    Ok(service.try_call(request).await?.map(Either::Right))
}

fn request(reference: &str) -> Request<()> {
    let mut request = Request::new(());
    *request.uri_mut() = reference.parse().expect("letters and digits behind a slash are a path");
    request
}

/// Whether a part of the file may be all that is sent: a part of another version than the client has is of no use to it
/// (If-Range: RFC 9110, section 13.1.5).
async fn is_current(
    service: &mut Service,
    reference: &str,
    headers: &HeaderMap,
) -> io::Result<bool> {
    let Some(wanted) = headers.get(IF_RANGE) else { return Ok(true) };
    let mut request = request(reference);
    *request.method_mut() = Method::HEAD;
    let current = service.try_call(request).await?;
    let is = |name| current.headers().get(name) == Some(wanted);
    Ok(is(ETAG) || is(LAST_MODIFIED))
}

async fn directory(path: PathBuf, url_path: UrlPath, private: Arc<Private>) -> io::Result<Reply> {
    let page = blocking(move || listing::page(&path, &url_path, &private)).await?;
    // Without the room that a text keeps for more: the page may have to wait for its client.
    let page = Bytes::from(page.into_boxed_str().into_boxed_bytes());
    let mut reply = Reply::new(Either::Left(Full::from(page)));
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    let policy = "default-src 'none'; style-src 'unsafe-inline'";
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    Ok(reply)
}

/// A redirect to the same path with a slash. It is relative, so that it leads to no other host, and works through a proxy that
/// serves us at another path.
fn redirect(name: &OsStr, query: Option<&str>) -> Reply {
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    let Ok(location) = HeaderValue::try_from(format!("{}/{query}", reference(name))) else {
        return not_found();
    };
    let mut reply = reply::plain(StatusCode::MOVED_PERMANENTLY, "moved");
    reply.headers_mut().insert(LOCATION, location);
    reply
}

fn not_found() -> Reply {
    reply::plain(StatusCode::NOT_FOUND, "not found")
}

/// The answer to a file system error; those that the administrator has to mend are logged.
fn failure(error: &io::Error, path: &str) -> Reply {
    use Errno::{EACCES, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, EPERM};
    let errno = error.raw_os_error().map(Errno::from_raw);
    if matches!(errno, Some(EACCES | ELOOP | ENAMETOOLONG | ENOENT | ENOTDIR | EPERM)) {
        return not_found();
    }
    let path = &*redact::text(path);
    warn!(
        target: UNADMITTED, path,
        "cannot answer a web request for {path:?}: {}", error_text(error)
    );
    reply::plain(StatusCode::INTERNAL_SERVER_ERROR, "cannot read it")
}
