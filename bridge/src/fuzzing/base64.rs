//! Base64 messages, compared with what data-encoding reads in the same text; and payloads that are encoded and decoded again.

use std::sync::LazyLock;

use data_encoding::{BASE64, Encoding};

use super::{Numbers, decode_both_ways};
use crate::ws::{Codec, Draft, Framing, Violation};

/// As lenient as websockify 0.3.0 was: line breaks are skipped, and the bits behind the last byte are ignored.
static LENIENT: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = BASE64.specification();
    specification.check_trailing_bits = false;
    specification.ignore.push_str("\r\n");
    specification.encoding().expect("base64 may ignore line breaks")
});

/// The first byte says how the others are split, into fragments and into what is read at once.
pub fn base64(bytes: &[u8]) {
    let Some((seed, text)) = bytes.split_first() else { return };
    let ours = decode_both_ways(Framing::Base64, *seed, &fragments(*seed, text));
    match decode(text) {
        Some(bytes) => assert_eq!((ours.violation, ours.data), (None, bytes)),
        None => assert_eq!(ours.violation, Some(Violation::NotBase64)),
    }
    for framing in [Framing::Base64, Framing::Hixie(Draft::Hixie75)] {
        there_and_back(framing, *seed, text);
    }
}

/// The payload of a message; `None`: it is not base64.
pub(super) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    // data-encoding also takes several messages behind one another; here padding must be at the end.
    let padding = text.iter().position(|byte| *byte == b'=').unwrap_or(text.len());
    let is_one = text[padding..].iter().all(|byte| b"=\r\n".contains(byte));
    LENIENT.decode(text).ok().filter(|_| is_one)
}

/// One text message in several fragments, which are masked with zeroes.
fn fragments(seed: u8, text: &[u8]) -> Vec<u8> {
    let mut lengths = Numbers(u64::from(seed) + 1000);
    let mut frames = Vec::new();
    let (mut opcode, mut rest) = (1, text);
    loop {
        let (piece, behind) = rest.split_at(lengths.below(126).min(rest.len()));
        rest = behind;
        let is_final = rest.is_empty();
        let length = u8::try_from(piece.len()).expect("at most 125");
        frames.extend([opcode | u8::from(is_final) << 7, 0x80 | length, 0, 0, 0, 0]);
        frames.extend(piece);
        if is_final {
            return frames;
        }
        opcode = 0;
    }
}

/// Encodes a payload of the target, and decodes it as a client would send it back.
fn there_and_back(framing: Framing, seed: u8, payload: &[u8]) {
    let codec = Codec::new(framing);
    // Not much larger than it must be.
    let mut buffer = vec![0xee; payload.len() / 3 * 4 + 32];
    let start = codec.headroom(buffer.len());
    buffer[start..start + payload.len()].copy_from_slice(payload);
    let frame = codec.encode(&mut buffer, start..start + payload.len());
    let frame = &buffer[frame];
    let sent = if let Framing::Hixie(_) = framing {
        frame.to_vec()
    } else {
        let header = match frame[1] {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        // A client's frame has a mask; of zeroes, it changes nothing.
        let (header, text) = frame.split_at(header);
        [&[header[0], header[1] | 0x80], &header[2..], &[0; 4], text].concat()
    };
    let decoded = decode_both_ways(framing, seed, &sent);
    assert_eq!((decoded.violation, &*decoded.data), (None, payload));
}
