//! Frames of the old drafts, compared with a reader that has all of the bytes at once.

use super::base64::decode;
use super::{Decoded, decode_both_ways};
use crate::ws::{Draft, Event, Framing, Violation};

/// The first byte says how the others are split.
pub fn hixie(bytes: &[u8]) {
    let Some((seed, input)) = bytes.split_first() else { return };
    let expected = read_at_once(input);
    for draft in [Draft::Hixie75, Draft::Hixie76] {
        let ours = decode_both_ways(Framing::Hixie(draft), *seed, input);
        assert_eq!((&ours.events, ours.violation), (&expected.events, expected.violation));
        // Of a frame that is incomplete or wrong, our codec may have passed on the beginning.
        assert!(ours.data.starts_with(&expected.data), "{ours:?}, not {expected:?}");
    }
}

/// Frame by frame; the payload is that of whole frames.
fn read_at_once(mut input: &[u8]) -> Decoded {
    let mut decoded = Decoded::default();
    while !decoded.is_over() {
        match input {
            [] | [0xff] => break,
            [0xff, 0, ..] => decoded.events.push(Event::Close(None)),
            [0, rest @ ..] => {
                let Some(end) = rest.iter().position(|byte| *byte == 0xff) else {
                    decoded.violation = (!may_begin(rest)).then_some(Violation::NotBase64);
                    break;
                };
                match decode(&rest[..end]) {
                    Some(payload) => decoded.data.extend(payload),
                    None => decoded.violation = Some(Violation::NotBase64),
                }
                input = &rest[end + 1..];
            }
            [kind, ..] => decoded.violation = Some(Violation::UnknownFrame(*kind)),
        }
    }
    decoded
}

/// Whether base64 may begin so: something that completes it does.
fn may_begin(text: &[u8]) -> bool {
    let ends: [&[u8]; 6] = [b"", b"A", b"=", b"==", b"A==", b"AAA"];
    ends.iter().any(|end| decode(&[text, end].concat()).is_some())
}
