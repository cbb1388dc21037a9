//! What holds for the lines of helpers, whatever they say (L3). Included by path in `tests/fuzz/targets/helper.rs`.

use bridge::Verdict;
use serde_json::Value;

use super::lines::{Lines, answer, ready, target, verdict};
use super::numbers::Numbers;

/// The first byte says how the others, which are lines, are split.
pub(crate) fn lines(bytes: &[u8]) {
    let Some((seed, bytes)) = bytes.split_first() else { return };
    let whole = cut(bytes, || usize::MAX);
    let mut lengths = Numbers((*seed).into());
    assert_eq!(cut(bytes, || 1 + lengths.below(9)), whole, "however they are split");
    let (lines, fails) = whole;
    let read: usize = lines.iter().map(Vec::len).sum();
    assert!(bytes.starts_with(&lines.concat()), "nothing is lost");
    assert!(fails || !bytes[read..].contains(&b'\n'), "no line is left");
    for line in &lines {
        said(line);
    }
}

/// Whole lines, of bytes that come in pieces as long as `length` says; whether one was too long.
fn cut(mut bytes: &[u8], mut length: impl FnMut() -> usize) -> (Vec<Vec<u8>>, bool) {
    let (mut lines, mut found) = (Lines::default(), Vec::new());
    while !bytes.is_empty() {
        let (piece, rest) = bytes.split_at(length().min(bytes.len()));
        bytes = rest;
        lines.space().extend_from_slice(piece);
        loop {
            match lines.next() {
                Ok(Some(line)) => found.push(line),
                Ok(None) => break,
                Err(_) => return (found, true),
            }
        }
    }
    (found, false)
}

/// A line means the same when it is written again, and it lets in a client only if it says so.
fn said(line: &[u8]) {
    let is_ready = ready(line).is_ok();
    let Ok((id, object)) = answer(line) else { return };
    let again = serde_json::to_vec(&object).expect("an object can be written");
    let (other, written) = answer(&again).expect("and read again");
    assert_eq!(other, id);
    assert_eq!(target(&written), target(&object));
    assert_eq!(verdict(&written), verdict(&object));
    assert_eq!(ready(&again).is_ok(), is_ready);
    if verdict(&object) == Ok(Verdict::Allowed) {
        assert!(object["allowed"] == true && object.get("error").is_none_or(Value::is_null));
    }
    if let Ok(Some(target)) = target(&object) {
        assert!(target.starts_with("unix_socket:") || target.contains(':'), "{target}");
    }
}

#[cfg(test)]
mod tests {
    use crate::neighbours::try_neighbours;

    #[test]
    fn l3_known_lines_of_helpers_and_their_neighbours_break_no_parser() {
        try_neighbours("helper", super::lines);
    }
}
