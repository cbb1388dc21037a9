//! Tokens in requests, and lines of token files: written again, they mean the same, and another reader finds the same in them;
//! and what the log has of them.

use std::path::{Component, Path};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{redact, target, token_file};
use crate::destination::Endpoint;
use crate::directory::below::{Entry, name};
use crate::directory::token::{of_host, of_query};
use crate::directory::token_file::line;

/// The bytes are a query, a host, a line, and a file of lines.
pub fn token(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        query(text);
        host(text);
        redact::query(text);
    }
    let ours = line::read(bytes);
    let owned = ours.clone().map(|found| found.map(|(token, endpoint)| (token.into(), endpoint)));
    assert_eq!(owned.map_err(drop), line_at_once(bytes));
    if let Ok(Some((token, endpoint))) = ours {
        let written = match &endpoint {
            Endpoint::Tcp(address) => address.to_string(),
            Endpoint::Unix(path) => format!("unix_socket:{}", path.display()),
            Endpoint::Resolved(..) | Endpoint::Opened(_) => panic!("not of a line"),
        };
        assert!(!token.is_empty() && !token.starts_with('#'));
        let again = format!("{token}: {written}");
        assert_eq!(line::read(again.as_bytes()), Ok(Some((token, endpoint))), "{again:?}");
    }
    token_file::file(bytes);
}

/// A line's token and target. `Err`: it cannot be read.
pub(super) fn line_at_once(line: &[u8]) -> Result<Option<(String, Endpoint)>, ()> {
    let line = str::from_utf8(line).map_err(drop)?.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let pieces: Vec<_> = line.split(':').collect();
    // The first piece has no colon before it.
    let spaced = (1..pieces.len()).filter(|at| pieces[*at].starts_with(char::is_whitespace));
    let [at] = *spaced.collect::<Vec<_>>() else { return Err(()) };
    let (token, target) = (pieces[..at].join(":"), pieces[at..].join(":"));
    if token.is_empty() {
        return Err(());
    }
    Ok(Some((token, target::endpoint(target.trim_start()).ok_or(())?)))
}

fn query(text: &str) {
    let ours = of_query(text);
    assert_eq!(ours, query_at_once(text));
    let Some(token) = ours else { return };
    assert!(!token.ends_with('\n') && token.len() <= text.len());
    // Neither a later pair counts, nor one without a value.
    let encoded = utf8_percent_encode(&token, NON_ALPHANUMERIC);
    let again = of_query(&format!("token=&x=y&token={encoded}&token=other"));
    assert_eq!(again.as_deref(), Some(if token.is_empty() { "other" } else { &*token }));
    for entry in [Entry::File, Entry::Socket] {
        let Some(path) = name(&token, entry) else { continue };
        let below = Path::new("/tokens").join(path);
        let inside = below.strip_prefix("/tokens").expect("below the directory");
        assert!(inside.components().all(|part| matches!(part, Component::Normal(_))));
        assert!(
            inside.components().count() > 0 && !below.as_os_str().as_encoded_bytes().contains(&0)
        );
    }
}

/// The first value that is called `token` and is not empty as it stands there, without line feeds at its end.
fn query_at_once(text: &str) -> Option<String> {
    for pair in text.split('&') {
        let mut halves = pair.splitn(2, '=');
        let (name, value) = (halves.next()?, halves.next().unwrap_or_default());
        if !value.is_empty() && decoded(name).as_deref() == Some("token") {
            return decoded(value).map(|token| token.trim_end_matches('\n').into());
        }
    }
    None
}

/// As forms are encoded: a plus is a space. `None`: it is not UTF-8.
fn decoded(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    while let [first, behind @ ..] = rest {
        rest = behind;
        let hexadecimal = match (first, behind) {
            (b'%', [high, low, ..]) => digit(high).zip(digit(low)),
            _ => None,
        };
        match (first, hexadecimal) {
            (_, Some((high, low))) => {
                bytes.push(u8::try_from(16 * high + low).expect("two digits"));
                rest = &behind[2..];
            }
            (b'+', None) => bytes.push(b' '),
            (byte, None) => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).ok()
}

fn host(text: &str) {
    let ours = of_host(text);
    assert_eq!(ours, host_at_once(text));
    let Some(token) = ours else { return };
    assert!(token.len() <= text.len() && token.eq_ignore_ascii_case(&text[..token.len()]));
    assert!(token.starts_with('[') || !token.contains(':'));
    assert_eq!(of_host(&format!("{token}:6080")).as_ref(), Some(&token));
}

/// A host without its port, in lower case.
pub(super) fn host_at_once(text: &str) -> Option<String> {
    let name = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => format!("[{address}]"),
        None => text.split(':').next()?.into(),
    };
    Some(name.to_ascii_lowercase()).filter(|name| !name.is_empty())
}
