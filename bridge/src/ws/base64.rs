//! Base64 (RFC 4648, section 4) within a buffer: text is decoded in place, and bytes are encoded into
//! the free room in front of them.
//!
//! Knows digits and padding; its caller says where a message ends. A byte is decoded as soon as its
//! bits are there: a key stroke must not wait for the rest of its quad, which is four digits.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::Violation;

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Marks what is no digit in [`VALUES`]; the values themselves have six bits.
const NONE: u8 = 0x80;

const VALUES: [u8; 256] = {
    let mut values = [NONE; 256];
    let mut value = 0;
    while value < DIGITS.len() {
        #[expect(clippy::cast_possible_truncation, reason = "there are 64 of them")]
        let narrow = value as u8;
        values[DIGITS[value] as usize] = narrow;
        value += 1;
    }
    values
};

/// Where in a message the decoder is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Decoder {
    /// How many characters of the quad under way have come, padding too.
    position: u8,
    /// The bits that are not yet part of a byte, at the low end.
    bits: u8,
    /// The padding has begun: no digit may follow in this message.
    padded: bool,
}

impl Decoder {
    /// Decodes `buffer[piece]` in place and returns the range of the bytes. `is_end`: the message
    /// ends here, and its last quad must be complete.
    pub(super) fn decode(
        &mut self,
        buffer: &mut [u8],
        piece: Range<usize>,
        is_end: bool,
    ) -> Result<Range<usize>, Violation> {
        let (mut from, mut to) = (piece.start, piece.start);
        while from < piece.end {
            if self.position == 0 && !self.padded {
                (from, to) = decode_quads(buffer, from..piece.end, to);
            }
            if from < piece.end {
                if let Some(byte) = self.take(buffer[from])? {
                    buffer[to] = byte;
                    to += 1;
                }
                from += 1;
            }
        }
        if is_end {
            if self.position != 0 {
                return Err(Violation::NotBase64);
            }
            self.padded = false;
        }
        Ok(piece.start..to)
    }

    /// Whether a decoder that was saved for a hand-over has possible values.
    pub(super) fn is_valid(&self) -> bool {
        self.position < 4 && self.bits < 64
    }

    /// Takes one character, and returns the byte that it completes. Line breaks are skipped, as in websockify
    /// 0.3.0: the base64 of some libraries, Python's own `encode("base64")` among them, is full of them.
    fn take(&mut self, character: u8) -> Result<Option<u8>, Violation> {
        if matches!(character, b'\r' | b'\n') {
            return Ok(None);
        }
        let value = VALUES[usize::from(character)];
        let (byte, rest) = match (self.position, value) {
            (2 | 3, NONE) if character == b'=' => {
                self.padded = true;
                (None, 0)
            }
            (_, NONE) => return Err(Violation::NotBase64),
            _ if self.padded => return Err(Violation::NotBase64),
            (0, value) => (None, value),
            (1, value) => (Some(self.bits << 2 | value >> 4), value & 0x0f),
            (2, value) => (Some(self.bits << 4 | value >> 2), value & 0x03),
            (_, value) => (Some(self.bits << 6 | value), 0),
        };
        self.bits = rest;
        self.position = (self.position + 1) % 4;
        Ok(byte)
    }
}

/// Decodes quads that have digits only, up to the first other one. Returns how far it has read and
/// written.
fn decode_quads(buffer: &mut [u8], from: Range<usize>, mut to: usize) -> (usize, usize) {
    let mut at = from.start;
    while from.end - at >= 4 {
        let [a, b, c, d] =
            [at, at + 1, at + 2, at + 3].map(|index| VALUES[usize::from(buffer[index])]);
        if (a | b | c | d) & NONE != 0 {
            break;
        }
        buffer[to] = a << 2 | b >> 4;
        buffer[to + 1] = b << 4 | c >> 2;
        buffer[to + 2] = c << 6 | d;
        at += 4;
        to += 3;
    }
    (at, to)
}

/// How many bytes of a buffer of `size` bytes must be free in front of a payload that is encoded to `start`, which
/// is at most 10. Then [`encode`] never writes over bytes that it has not read, and one byte is free behind the
/// text.
pub(super) const fn headroom(size: usize) -> usize {
    size - (size - 16) / 4 * 3
}

/// Encodes `buffer[payload]` to `start` and what follows, with padding, and returns the range of the text. The
/// payload must begin where [`headroom`] says.
pub(super) fn encode(buffer: &mut [u8], payload: Range<usize>, start: usize) -> Range<usize> {
    let (mut from, mut to) = (payload.start, start);
    while payload.end - from >= 3 {
        let quad = quad([buffer[from], buffer[from + 1], buffer[from + 2]]);
        buffer[to..to + 4].copy_from_slice(&quad);
        from += 3;
        to += 4;
    }
    let quad = match buffer[from..payload.end] {
        [a] => {
            let [first, second, ..] = quad([a, 0, 0]);
            [first, second, b'=', b'=']
        }
        [a, b] => {
            let [first, second, third, _] = quad([a, b, 0]);
            [first, second, third, b'=']
        }
        _ => return start..to,
    };
    buffer[to..to + 4].copy_from_slice(&quad);
    start..to + 4
}

/// Three bytes as four digits.
fn quad([a, b, c]: [u8; 3]) -> [u8; 4] {
    let sextets = [a >> 2, a << 4 & 0x30 | b >> 4, b << 2 & 0x3c | c >> 6, c & 0x3f];
    sextets.map(|sextet| DIGITS[usize::from(sextet)])
}

/// Appends `bytes` to `text` in base64.
pub(crate) fn append(text: &mut Vec<u8>, bytes: &[u8]) {
    let (triples, rest) = bytes.as_chunks::<3>();
    text.extend(triples.iter().flat_map(|triple| quad(*triple)));
    let mut last = [0; 3 + 4];
    last[4..4 + rest.len()].copy_from_slice(rest);
    let range = encode(&mut last, 4..4 + rest.len(), 0);
    text.extend_from_slice(&last[range]);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4648, section 10.
    const VECTORS: [(&str, &str); 7] = [
        ("", ""),
        ("f", "Zg=="),
        ("fo", "Zm8="),
        ("foo", "Zm9v"),
        ("foob", "Zm9vYg=="),
        ("fooba", "Zm9vYmE="),
        ("foobar", "Zm9vYmFy"),
    ];

    /// Decodes one message that comes in pieces of `length`.
    fn decode(text: &[u8], length: usize) -> Result<Vec<u8>, Violation> {
        let mut decoder = Decoder::default();
        let mut bytes = Vec::new();
        let pieces = text.len().div_ceil(length).max(1);
        for index in 0..pieces {
            let piece = &text[(index * length).min(text.len())..];
            let mut buffer = [b"xx", &piece[..piece.len().min(length)], b"yy"].concat();
            let range = 2..buffer.len() - 2;
            let range = decoder.decode(&mut buffer, range, index + 1 == pieces)?;
            bytes.extend(&buffer[range]);
            assert!(buffer.starts_with(b"xx") && buffer.ends_with(b"yy"), "within its piece");
        }
        Ok(bytes)
    }

    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|index| u8::try_from(index * 7 % 256).unwrap()).collect()
    }

    #[test]
    fn b1_the_vectors_of_the_rfc() {
        for (bytes, text) in VECTORS {
            for length in 1..10 {
                assert_eq!(decode(text.as_bytes(), length).as_deref(), Ok(bytes.as_bytes()));
            }
            let mut appended = b"'".to_vec();
            append(&mut appended, bytes.as_bytes());
            assert_eq!(appended[1..], *text.as_bytes());
        }
    }

    #[test]
    fn b1_every_length_up_to_the_largest_fits_the_buffer_and_comes_back() {
        for size in [16, 20, 23, 64, 1000, crate::buffer::SIZE] {
            let headroom = headroom(size);
            for length in (0..size - headroom).step_by(size / 60 + 1).chain([size - headroom]) {
                let bytes = pattern(length);
                let mut buffer = vec![0xee; size];
                buffer[headroom..headroom + length].copy_from_slice(&bytes);
                let text = encode(&mut buffer, headroom..headroom + length, 10);
                assert!(text.end < size, "a byte is left behind it");
                assert_eq!(text.len(), length.div_ceil(3) * 4);
                assert!(decode(&buffer[text], 100) == Ok(bytes), "{length} of {size}");
            }
        }
    }

    #[test]
    fn b2_line_breaks_mean_nothing() {
        for text in ["Zm9v\nYmE=\n", "\r\nZm9\r\nvYm\nE\n=", "\n\nZm9vYmE=\r"] {
            for length in 1..10 {
                assert_eq!(
                    decode(text.as_bytes(), length).as_deref(),
                    Ok(&b"fooba"[..]),
                    "{text:?}"
                );
            }
        }
    }

    #[test]
    fn b5_what_is_no_base64() {
        for text in [
            "Z",
            "Zg",
            "Zg=",
            "Zm8",
            "=",
            "Z===",
            "Zg==Zg==",
            "Zg==f",
            "Zm8=v",
            "Zg=o",
            "Zm9v=",
            "Zm9v====",
            "Zm 9v",
            "Zm9v\t",
            "Zm9-",
            "Zm9_",
            "Zm9\u{e4}",
        ] {
            for length in 1..10 {
                assert_eq!(decode(text.as_bytes(), length), Err(Violation::NotBase64), "{text}");
            }
        }
    }

    #[test]
    fn b1_a_byte_does_not_wait_for_its_quad_and_a_quad_ends_with_its_message() {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.decode(&mut b"Zm".to_vec(), 0..2, false), Ok(0..1));
        assert_eq!(decoder.decode(&mut b"8=".to_vec(), 0..2, true), Ok(0..1));
        assert_eq!(decoder.decode(&mut b"Zm8=".to_vec(), 0..4, true), Ok(0..2));
        assert_eq!(decoder.decode(&mut [], 0..0, true), Ok(0..0));
    }
}
