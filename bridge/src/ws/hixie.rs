//! Framing of the old drafts: draft-hixie-thewebsocketprotocol-75 and -76, streaming.
//!
//! A frame is 0x00, text, 0xFF; the text is base64, because these drafts can carry nothing but
//! UTF-8. In -76, a frame whose first byte has its high bit set announces a length; only one such frame
//! has a meaning: `FF 00`, which closes.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{ControlFrame, Event, Violation, base64};

const BEGIN: u8 = 0x00;
const END: u8 = 0xff;

/// Which of the two drafts; their frames differ in the close alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Draft {
    /// The connection's end is the only close.
    Hixie75,
    /// `FF 00` closes, and is answered.
    Hixie76,
}

/// Where in the client's byte stream we are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Decoder {
    pub(super) draft: Draft,
    position: Position,
    base64: base64::Decoder,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Position {
    Between,
    InFrame,
    /// Behind the first byte of `FF 00`.
    InClose,
}

impl Decoder {
    /// At the first byte behind the handshake.
    pub(super) fn new(draft: Draft) -> Self {
        Self { draft, position: Position::Between, base64: base64::Decoder::default() }
    }

    /// See [`Codec::decode`](super::Codec::decode).
    pub(super) fn decode(
        &mut self,
        buffer: &mut [u8],
        unread: &mut Range<usize>,
    ) -> Result<Option<Event>, Violation> {
        while unread.start < unread.end {
            if self.position == Position::InFrame {
                let data = self.take_payload(buffer, unread)?;
                if !data.is_empty() {
                    return Ok(Some(Event::Data(data)));
                }
                continue;
            }
            let byte = buffer[unread.start];
            unread.start += 1;
            self.position = match (self.position, byte) {
                (Position::Between, BEGIN) => Position::InFrame,
                (Position::Between, END) => Position::InClose,
                (Position::InClose, 0) => return Ok(Some(Event::Close(None))),
                (Position::InClose, _) => return Err(Violation::UnknownFrame(END)),
                (_, kind) => return Err(Violation::UnknownFrame(kind)),
            };
        }
        Ok(None)
    }

    /// Whether a decoder that was saved for a hand-over has possible values.
    pub(super) fn is_valid(&self) -> bool {
        self.base64.is_valid()
    }

    /// Whether the last event ended its frame.
    pub(super) fn is_between_frames(&self) -> bool {
        self.position != Position::InFrame
    }

    /// Takes and decodes what there is of the frame's payload.
    fn take_payload(
        &mut self,
        buffer: &mut [u8],
        unread: &mut Range<usize>,
    ) -> Result<Range<usize>, Violation> {
        let found = buffer[unread.clone()].iter().position(|byte| *byte == END);
        let end = found.map_or(unread.end, |at| unread.start + at);
        let piece = unread.start..end;
        unread.start = end;
        if found.is_some() {
            unread.start += 1;
            self.position = Position::Between;
        }
        self.base64.decode(buffer, piece, found.is_some())
    }
}

/// Makes one frame of `buffer[payload]`; see [`Codec::encode`](super::Codec::encode).
pub(super) fn encode(buffer: &mut [u8], payload: Range<usize>) -> Range<usize> {
    let text = base64::encode(buffer, payload, 1);
    buffer[0] = BEGIN;
    buffer[text.end] = END;
    0..text.end + 1
}

/// The frame that tells the client that nothing more will come. It is empty in -75, which has no such frame.
pub(super) fn close(draft: Draft) -> ControlFrame {
    let mut frame = ControlFrame::default();
    if draft == Draft::Hixie76 {
        frame.extend([0xff, 0x00]);
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes a client's bytes that come in pieces of `length`. Returns the payload, whether a close came, and the violation.
    fn decode(input: &[u8], length: usize) -> (Vec<u8>, bool, Option<Violation>) {
        let mut decoder = Decoder::new(Draft::Hixie76);
        let mut data = Vec::new();
        for piece in input.chunks(length) {
            let mut buffer = piece.to_vec();
            let mut unread = 0..buffer.len();
            loop {
                match decoder.decode(&mut buffer, &mut unread) {
                    Ok(Some(Event::Data(piece))) => data.extend(&buffer[piece]),
                    Ok(Some(Event::Close(None))) => return (data, true, None),
                    Ok(Some(event)) => panic!("{event:?}"),
                    Ok(None) => break,
                    Err(violation) => return (data, false, Some(violation)),
                }
            }
        }
        (data, false, None)
    }

    #[test]
    fn b2_frames_come_out_whole_however_they_are_split() {
        let input = b"\x00aGVsbG8=\xff\x00\xff\x00IHdv\xff\x00cmxk\xff\xff\x00\x00bm8=\xff";
        for length in 1..=input.len() {
            assert_eq!(decode(input, length), (b"hello world".to_vec(), true, None), "{length}");
        }
    }

    #[test]
    fn b2_b5_what_breaks_the_protocol() {
        for (input, violation, code) in [
            (&b"\x00aGVsbG8=\xffx"[..], Violation::UnknownFrame(b'x'), 1002),
            (b"\x00aGVsbG8=\xff\x80\x03abc", Violation::UnknownFrame(0x80), 1002),
            (b"\x00aGVsbG8=\xff\xff\x03abc", Violation::UnknownFrame(0xff), 1002),
            (b"\x00aGVsbG8=\xff\x00aGV\xff", Violation::NotBase64, 1007),
            (b"\x00aGVsbG8=\xff\x00a\xff\x00GVs\xff", Violation::NotBase64, 1007),
            (b"\x00aGVsbG8=\xff\x00a\x00", Violation::NotBase64, 1007),
        ] {
            for length in 1..=input.len() {
                let (data, _, found) = decode(input, length);
                assert!(data.starts_with(b"hello"), "what came before it is kept");
                assert_eq!(found, Some(violation), "{input:?}");
            }
            assert_eq!(u16::from(violation.close_code()), code);
        }
    }

    #[test]
    fn b2_a_frame_of_ours() {
        let headroom = base64::headroom(40);
        let mut buffer = [0xee; 40];
        buffer[headroom..headroom + 5].copy_from_slice(b"hello");
        let frame = encode(&mut buffer, headroom..headroom + 5);
        assert_eq!(&buffer[frame], b"\x00aGVsbG8=\xff");
        assert_eq!(close(Draft::Hixie76)[..], [0xff, 0x00]);
        assert!(close(Draft::Hixie75).is_empty());
    }
}
