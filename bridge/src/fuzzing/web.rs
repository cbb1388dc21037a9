//! Web requests, answered with known files, which are the seeds; and what the log has of them.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use ::http::header::{CONTENT_RANGE, HeaderMap, LOCATION};
use ::http::uri::PathAndQuery;
use ::http::{Method, StatusCode};
use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::runtime::{Builder, Runtime};

use super::redact;
use crate::http::files;
use crate::http::first::{end_of_head, parse};
use crate::http::url_path::UrlPath;

const SEEDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fuzz/seeds");

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().build().expect("threads can be started"));

/// The bytes are a head.
pub fn web(bytes: &[u8]) {
    let Some(head) = end_of_head(bytes, 0).and_then(|end| parse(&bytes[..end])) else { return };
    redact::request(head.uri.path_and_query().map_or("/", PathAndQuery::as_str));
    let url_path = UrlPath::parse(head.uri.path());
    let is_get = head.method == Method::GET;
    let root = files::Root { path: Path::new(SEEDS), is_listed: true };
    let (status, headers, body) = RUNTIME.block_on(async {
        let (reply, body) = files::answer(root, &Arc::default(), head).await.into_parts();
        let body = body.collect().await.expect("the seeds can be read");
        (reply.status, reply.headers, body.to_bytes())
    });
    match status {
        StatusCode::OK | StatusCode::PARTIAL_CONTENT => {
            let url_path = url_path.expect("no other path is found");
            if let Ok(file) = std::fs::read(url_path.below(Path::new(SEEDS))) {
                assert_eq!(body, if is_get { part(&file, &headers) } else { Bytes::new() });
            }
        }
        StatusCode::MOVED_PERMANENTLY => {
            assert!(headers[LOCATION].as_bytes().starts_with(b"./"), "{headers:?}");
        }
        StatusCode::NO_CONTENT
        | StatusCode::NOT_MODIFIED
        | StatusCode::NOT_FOUND
        | StatusCode::METHOD_NOT_ALLOWED
        | StatusCode::PRECONDITION_FAILED
        | StatusCode::RANGE_NOT_SATISFIABLE => {}
        status => panic!("{status} is no answer"),
    }
}

/// What the reply says it has of the file: `bytes FIRST-LAST/LENGTH`, or all of it.
fn part(file: &[u8], headers: &HeaderMap) -> Bytes {
    let Some(range) = headers.get(CONTENT_RANGE) else { return Bytes::copy_from_slice(file) };
    let range = range.to_str().ok().and_then(|range| range.strip_prefix("bytes "));
    let (range, length) = range.and_then(|range| range.split_once('/')).expect("a range");
    let (first, last) = range.split_once('-').expect("a range has two ends");
    assert_eq!(length.parse(), Ok(file.len()));
    let number = |text: &str| text.parse::<usize>().expect("a number");
    Bytes::copy_from_slice(&file[number(first)..=number(last)])
}
