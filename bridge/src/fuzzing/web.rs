//! Web requests, answered with known files, which are the seeds, and with the part and on the conditions that another reader
//! finds in the requests; and what the log has of them.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use ::http::header::{
    CONTENT_RANGE, ETAG, HeaderMap, HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    LAST_MODIFIED, LOCATION, RANGE,
};
use ::http::{Method, StatusCode};
use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::runtime::{Builder, Runtime};

use super::redact;
use crate::http::files;
use crate::http::first::{end_of_head, parse};
use crate::http::url_path::UrlPath;
use crate::ws::path_of;

const SEEDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fuzz/seeds");

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().build().expect("threads can be started"));

/// The bytes are a head.
pub fn web(bytes: &[u8]) {
    let Some(head) = end_of_head(bytes, 0).and_then(|end| parse(&bytes[..end])) else { return };
    redact::request(&path_of(&head.uri));
    let url_path = UrlPath::parse(head.uri.path());
    let (is_get, asked) = (head.method == Method::GET, head.headers.clone());
    let root = files::Root { path: Path::new(SEEDS), is_listed: true };
    let (status, headers, body) = RUNTIME.block_on(async {
        let (reply, body) = files::answer(root, &Arc::default(), head).await.into_parts();
        let body = body.collect().await.expect("the seeds can be read");
        (reply.status, reply.headers, body.to_bytes())
    });
    match status {
        StatusCode::OK
        | StatusCode::PARTIAL_CONTENT
        | StatusCode::NOT_MODIFIED
        | StatusCode::RANGE_NOT_SATISFIABLE => {
            let url_path = url_path.expect("no other path is found");
            if let Ok(file) = std::fs::read(url_path.below(Path::new(SEEDS))) {
                if status.is_success() {
                    assert_eq!(body, if is_get { part(&file, &headers) } else { Bytes::new() });
                }
                // For HEAD a range means nothing (section 14.2).
                if is_get {
                    range(&asked, file.len(), status, &headers);
                } else {
                    assert!(matches!(status, StatusCode::OK | StatusCode::NOT_MODIFIED));
                }
                conditions(&asked, status, &headers);
            }
        }
        StatusCode::MOVED_PERMANENTLY => {
            assert!(headers[LOCATION].as_bytes().starts_with(b"./"), "{headers:?}");
        }
        StatusCode::NO_CONTENT
        | StatusCode::NOT_FOUND
        | StatusCode::METHOD_NOT_ALLOWED
        | StatusCode::PRECONDITION_FAILED => {}
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

/// A part of a file of this length is what GET has asked for, and has been asked for of this version of the file.
fn range(asked: &HeaderMap, length: usize, status: StatusCode, headers: &HeaderMap) {
    let range = text(asked, &RANGE).unwrap_or_default();
    let wanted = wanted(range, length);
    let is_due = asked
        .get(IF_RANGE)
        .is_none_or(|one| [headers.get(ETAG), headers.get(LAST_MODIFIED)].contains(&Some(one)));
    match (status, wanted) {
        (StatusCode::PARTIAL_CONTENT, Some((first, last))) => {
            assert!(is_due, "{asked:?}");
            assert_eq!(headers[CONTENT_RANGE], format!("bytes {first}-{last}/{length}"));
        }
        (StatusCode::PARTIAL_CONTENT, None) => panic!("{range:?} is no part"),
        (StatusCode::OK, _) => assert!(wanted.is_none() || !is_due, "{range:?} is not all"),
        (StatusCode::RANGE_NOT_SATISFIABLE, Some((first, last))) => {
            panic!("{range:?} is {first} to {last}");
        }
        _ => {}
    }
}

/// The first and the last byte that a `Range` wants of a file of this length (RFC 9110, section 14.1.2). `None`: it wants
/// several parts, or none that there is.
fn wanted(range: &str, length: usize) -> Option<(usize, usize)> {
    let (unit, parts) = range.split_once('=').filter(|_| length > 0)?;
    let mut parts = parts.split(',').map(str::trim).filter(|part| !part.is_empty());
    let (first, last) = parts.next()?.split_once('-')?;
    if parts.next().is_some() || !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let digits = [first, last].concat();
    if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    // What is too long for a number is behind the end of any file.
    let number = |digits: &str| digits.parse().unwrap_or(usize::MAX);
    match (first, last) {
        ("", "") => None,
        ("", last) => (number(last) > 0).then(|| (length.saturating_sub(number(last)), length - 1)),
        (first, "") => Some((number(first), length - 1)),
        (first, last) => Some((number(first), number(last).min(length - 1)))
            .filter(|_| number(first) <= number(last)),
    }
    .filter(|(first, _)| *first < length)
}

/// Nothing is sent of a file that the client has already (RFC 9110, sections 13.1.2 and 13.1.3), and only of such a file.
fn conditions(asked: &HeaderMap, status: StatusCode, headers: &HeaderMap) {
    let is_not_modified = status == StatusCode::NOT_MODIFIED;
    let (tag, modified) = (text(headers, &ETAG), text(headers, &LAST_MODIFIED));
    if let Some(first) = asked.get(IF_NONE_MATCH) {
        let tags = asked
            .get_all(IF_NONE_MATCH)
            .iter()
            .flat_map(|tags| tags.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii));
        let tag = tag.expect("files have one").as_bytes();
        let is_ours = |one: &[u8]| one == b"*" || one.strip_prefix(b"W/").unwrap_or(one) == tag;
        assert!(tags.into_iter().any(is_ours) || !is_not_modified, "{asked:?}");
        assert!(is_not_modified || first != "*" && first.as_bytes() != tag, "{asked:?}");
    } else {
        let since = text(asked, &IF_MODIFIED_SINCE);
        assert!(is_not_modified || since.is_none() || since != modified, "{asked:?}");
        let (since, modified) = (since.and_then(moment), modified.and_then(moment));
        assert!(!is_not_modified || since.is_none_or(|since| modified <= Some(since)), "{asked:?}");
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// A date as it is sent (RFC 9110, section 5.6.7): year, month, day and time. `None`: it is no such date, or a month may be too
/// short for it.
fn moment(date: &str) -> Option<(&str, usize, &str, &str)> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let [_, day, month, year, time, "GMT"] = *date.split(' ').collect::<Vec<_>>() else {
        return None;
    };
    let month = MONTHS.iter().position(|one| *one == month)?;
    (day <= "28").then_some((year, month, day, time))
}
