//! Tokens in requests, and lines of token files: written again, they mean the same; and what the log has of them.

use std::path::{Component, Path};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::redact;
use crate::destination::Endpoint;
use crate::directory::below::{Entry, name};
use crate::directory::token::{of_host, of_query};
use crate::directory::token_file::line;

/// The bytes are a query, a host, and a line.
pub fn token(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        query(text);
        host(text);
        redact::query(text);
    }
    if let Ok(Some((token, endpoint))) = line::read(bytes) {
        let written = match &endpoint {
            Endpoint::Tcp(address) => address.to_string(),
            Endpoint::Unix(path) => format!("unix_socket:{}", path.display()),
            Endpoint::Resolved(..) | Endpoint::Opened(_) => panic!("not of a line"),
        };
        assert!(!token.is_empty() && !token.starts_with('#'));
        let again = format!("{token}: {written}");
        assert_eq!(line::read(again.as_bytes()), Ok(Some((token, endpoint))), "{again:?}");
    }
}

fn query(text: &str) {
    let Some(token) = of_query(text) else { return };
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

fn host(text: &str) {
    let Some(token) = of_host(text) else { return };
    assert!(token.len() <= text.len() && token.eq_ignore_ascii_case(&text[..token.len()]));
    assert!(token.starts_with('[') || !token.contains(':'));
    assert_eq!(of_host(&format!("{token}:6080")).as_ref(), Some(&token));
}
