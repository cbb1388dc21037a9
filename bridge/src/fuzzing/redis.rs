//! Answers of a Redis server, its values, and the option that says where it is. Answers and values are compared with what
//! another reader makes of them.

use std::collections::HashMap;

use serde_json::Value;

use super::target;
use crate::destination::Endpoint;
use crate::directory::RedisServer;
use crate::directory::redis::protocol::{Reply, VALUE_MAX, command, reply};
use crate::directory::redis::read;

/// The longest line of an answer, bytes.
const LINE_MAX: usize = 1024;

/// The bytes are answers one after the other, a value, and a source.
pub fn redis(bytes: &[u8]) {
    replies(bytes);
    value(bytes);
    if let Some(text) = std::str::from_utf8(bytes).ok().filter(|text| !text.contains('"'))
        && let Ok(server) = RedisServer::parse(text)
    {
        let quoted = text.split(':').map(|field| match field {
            "" => String::new(),
            field => format!("\"{field}\""),
        });
        let quoted = quoted.collect::<Vec<_>>().join(":");
        assert_eq!(RedisServer::parse(&quoted), Ok(server), "{quoted}");
    }
}

fn replies(mut rest: &[u8]) {
    loop {
        let ours = reply(rest);
        assert_eq!(ours.clone().map_err(drop), read_at_once(rest));
        let Ok(Some((answer, length))) = ours else { return };
        assert!(0 < length && length <= rest.len());
        // The answer is the same without what follows, and none while something is missing.
        assert_eq!(reply(&rest[..length]), Ok(Some((answer.clone(), length))));
        for cut in (0..length).step_by(1 + length / 64).chain([length - 1]) {
            assert_eq!(reply(&rest[..cut]), Ok(None), "{cut}");
        }
        if let Reply::Value(value) = answer {
            assert!(value.len() <= VALUE_MAX);
            // The words of a command are written as values are.
            assert!(command(&[&value]).ends_with(&rest[..length]) || rest[1] == b'0');
        }
        rest = &rest[length..];
    }
}

/// What the protocol's specification makes of the first line, and of what is behind it; a carriage return may stand in a
/// line, as for Redis's own client. `Err`: no answer begins so.
fn read_at_once(bytes: &[u8]) -> Result<Option<(Reply, usize)>, ()> {
    let mut halves = bytes.splitn(2, |byte| *byte == b'\n');
    let line = halves.next().unwrap_or_default();
    let end = line.len() + 1;
    if end > LINE_MAX {
        return Err(());
    }
    let Some(behind) = halves.next() else { return Ok(None) };
    match line {
        [b'+', .., b'\r'] => Ok(Some((Reply::Status, end))),
        [b'-', text @ .., b'\r'] => Ok(Some((Reply::Error(unquoted(text)), end))),
        b"$-1\r" => Ok(Some((Reply::Nil, end))),
        [b'$', digits @ .., b'\r'] => {
            let length = number(digits).filter(|length| *length <= VALUE_MAX).ok_or(())?;
            match behind.split_at_checked(length) {
                Some((value, [b'\r', b'\n', ..])) => {
                    Ok(Some((Reply::Value(value.into()), end + length + 2)))
                }
                Some((_, [_, _, ..])) => Err(()),
                _ => Ok(None),
            }
        }
        _ => Err(()),
    }
}

fn number(digits: &[u8]) -> Option<usize> {
    digits.first()?;
    digits.iter().try_fold(0_usize, |number, digit| {
        let digit = char::from(*digit).to_digit(10)?;
        Some(number.saturating_mul(10).saturating_add(usize::try_from(digit).ok()?))
    })
}

/// An error without what it quotes.
fn unquoted(text: &[u8]) -> String {
    let mut pieces = text.split(|byte| b"'\"`".contains(byte));
    let said = String::from_utf8_lossy(pieces.next().unwrap_or_default());
    format!("{said}{}", if pieces.next().is_some() { "…" } else { "" })
}

fn value(bytes: &[u8]) {
    let ours = read(bytes).ok();
    assert_eq!(ours, value_at_once(bytes));
    let Some(endpoint) = ours else { return };
    let written = match &endpoint {
        Endpoint::Tcp(address) => address.to_string(),
        Endpoint::Unix(path) => format!("unix_socket:{}", path.display()),
        Endpoint::Resolved(..) | Endpoint::Opened(_) => panic!("not of a value"),
    };
    // A value that begins so is an object, and no host begins so. White space at the end is only a path's within an object.
    if !written.starts_with('{') && written == written.trim_end() {
        assert_eq!(read(written.as_bytes()), Ok(endpoint), "{written:?}");
    }
}

/// A target, or a JSON object that has it as its `host`.
fn value_at_once(bytes: &[u8]) -> Option<Endpoint> {
    let text = str::from_utf8(bytes).ok()?.trim();
    if text.starts_with('{') {
        let object: HashMap<String, Value> = serde_json::from_str(text).ok()?;
        return target::endpoint(object.get("host")?.as_str()?);
    }
    target::endpoint(text)
}
