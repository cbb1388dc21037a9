//! WebSocket as bytes: the opening handshake's head and the framing, sans-I/O.
//!
//! Knows no socket and no clock. A session's framing is a [`Codec`]; the pump works with nothing
//! else, so another protocol version is another variant here. It is public for the benchmark and for
//! fuzzing.

mod base64;
mod challenge;
mod hixie;
mod rfc6455;
mod upgrade;
mod violation;

use std::ops::Range;

use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

pub(crate) use base64::append as append_base64;
pub(crate) use challenge::{Challenge, Scheme};
pub use hixie::Draft;
pub(crate) use upgrade::{NoUpgrade, Upgrade, VERSIONS, path_of, single};
pub use violation::Violation;

/// The longest unmasked frame header (RFC 6455, section 5.2).
const HEADROOM: usize = 10;

/// The sub-protocol of bytes as they are.
const BINARY: &str = "binary";

/// The sub-protocol of text frames whose payload is base64.
const BASE64: &str = "base64";

/// The payload of a control frame (RFC 6455, section 5.5). Boxed, because they are rare, and a
/// session without one should not have to make room for it.
pub type ControlPayload = Box<ArrayVec<u8, 125>>;

/// A control frame as it goes over the wire: two bytes of header and the payload.
pub type ControlFrame = Box<ArrayVec<u8, 127>>;

/// What a decoder found in the bytes from the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Payload for the target: this range of the buffer, decoded in place, never empty.
    Data(Range<usize>),
    /// A ping, to be answered with this payload.
    Ping(ControlPayload),
    /// A pong; nothing to do.
    Pong,
    /// The client's last frame, with the code and reason if it gave any.
    Close(Option<CloseFrame>),
}

/// What a handshake settled about the frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// RFC 6455 and the HyBi drafts that share its frames, the payload as it is.
    Binary,
    /// The same frames, as text frames with the payload in base64.
    Base64,
    /// An old draft, the payload in base64.
    Hixie(Draft),
}

/// How the payload of frames travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Encoding {
    /// As it is.
    Binary,
    /// As base64.
    Base64,
}

/// The framing of one session, both ways.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[expect(private_interfaces, reason = "what is inside is made by `new` alone")]
pub enum Codec {
    /// RFC 6455 and the HyBi drafts that share its frames.
    Rfc6455(rfc6455::Decoder),
    /// The Hixie drafts, which are older.
    Hixie(hixie::Decoder),
}

impl Codec {
    /// A codec at the first byte of a session.
    pub fn new(framing: Framing) -> Self {
        match framing {
            Framing::Binary => Self::Rfc6455(rfc6455::Decoder::default()),
            Framing::Base64 => Self::Rfc6455(rfc6455::Decoder::base64()),
            Framing::Hixie(draft) => Self::Hixie(hixie::Decoder::new(draft)),
        }
    }

    /// Takes the next event out of `buffer[unread]` and moves the start of `unread` past it.
    /// `None`: all of it is consumed, a partial frame header is kept inside.
    ///
    /// # Errors
    /// The client broke the protocol; nothing that follows can be understood.
    pub fn decode(
        &mut self,
        buffer: &mut [u8],
        unread: &mut Range<usize>,
    ) -> Result<Option<Event>, Violation> {
        match self {
            Self::Rfc6455(decoder) => decoder.decode(buffer, unread),
            Self::Hixie(decoder) => decoder.decode(buffer, unread),
        }
    }

    /// Whether the last event was the end of a frame, and not the beginning of a longer one.
    pub fn is_between_frames(&self) -> bool {
        match self {
            Self::Rfc6455(decoder) => decoder.is_between_frames(),
            Self::Hixie(decoder) => decoder.is_between_frames(),
        }
    }

    /// Where in a buffer of `size` bytes a payload must begin for [`encode`](Self::encode): behind
    /// the room for a header, and for what base64 adds to the largest payload that then fits.
    pub fn headroom(&self, size: usize) -> usize {
        match self {
            Self::Rfc6455(decoder) if !decoder.is_base64() => HEADROOM,
            Self::Rfc6455(_) | Self::Hixie(_) => base64::headroom(size),
        }
    }

    /// Makes one frame of `buffer[payload]`, in place, and returns the range to be sent. The payload
    /// begins at [`headroom`](Self::headroom).
    pub fn encode(&self, buffer: &mut [u8], payload: Range<usize>) -> Range<usize> {
        match self {
            Self::Rfc6455(decoder) if !decoder.is_base64() => rfc6455::encode(buffer, payload),
            Self::Rfc6455(_) => rfc6455::encode_base64(buffer, payload),
            Self::Hixie(_) => hixie::encode(buffer, payload),
        }
    }

    /// Whether a codec that was saved for a hand-over has possible values.
    pub(crate) fn is_valid(&self) -> bool {
        match self {
            Self::Rfc6455(decoder) => decoder.is_valid(),
            Self::Hixie(decoder) => decoder.is_valid(),
        }
    }

    /// How the payload travels.
    pub(crate) fn encoding(&self) -> Encoding {
        match self {
            Self::Rfc6455(decoder) if !decoder.is_base64() => Encoding::Binary,
            Self::Rfc6455(_) | Self::Hixie(_) => Encoding::Base64,
        }
    }

    /// Whether the client can be told that no more will come, other than by the connection's end.
    pub fn has_close(&self) -> bool {
        !matches!(self, Self::Hixie(decoder) if decoder.draft == hixie::Draft::Hixie75)
    }

    /// The answer to a ping.
    pub fn pong(&self, payload: &[u8]) -> ControlFrame {
        match self {
            Self::Rfc6455(_) | Self::Hixie(_) => rfc6455::pong(payload),
        }
    }

    /// A ping without payload. The old drafts have none.
    pub(crate) fn ping(&self) -> Option<ControlFrame> {
        matches!(self, Self::Rfc6455(_)).then(rfc6455::ping)
    }

    /// A close frame. A reason is cut at a character's end to what fits (123 bytes). Old drafts
    /// have no reasons, and -75 has no such frame: it is empty.
    pub fn close(&self, frame: Option<&CloseFrame>) -> ControlFrame {
        match self {
            Self::Rfc6455(_) => rfc6455::close(frame),
            Self::Hixie(decoder) => hixie::close(decoder.draft),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzzing::Numbers;

    const FRAMINGS: [Framing; 4] = [
        Framing::Binary,
        Framing::Base64,
        Framing::Hixie(Draft::Hixie75),
        Framing::Hixie(Draft::Hixie76),
    ];

    /// Bytes, of which many mean something in one framing or another.
    fn bytes(numbers: &mut Numbers) -> Vec<u8> {
        const LIKELY: &[u8] =
            b"\x00\xff\x81\x01\x82\x02\x80\x00\x88\x89\x84\x83\xfe\xffAQz9+/==\x03\xe8";
        let length = numbers.below(60);
        let mut byte = || match numbers.below(4) {
            0 => u8::try_from(numbers.below(256)).unwrap(),
            _ => LIKELY[numbers.below(LIKELY.len())],
        };
        (0..length).map(|_| byte()).collect()
    }

    /// All that a decoder makes of an input that comes in pieces as long as `length` says.
    fn decode(
        framing: Framing,
        input: &[u8],
        mut length: impl FnMut() -> usize,
    ) -> (Vec<u8>, Vec<Event>, Option<Violation>) {
        let mut codec = Codec::new(framing);
        let (mut data, mut events, mut rest) = (Vec::new(), Vec::new(), input);
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(length().clamp(1, rest.len()));
            rest = behind;
            let mut buffer = piece.to_vec();
            let mut unread = 0..buffer.len();
            loop {
                match codec.decode(&mut buffer, &mut unread) {
                    Ok(Some(Event::Data(piece))) => {
                        assert!(!piece.is_empty() && piece.end <= unread.start);
                        data.extend(&buffer[piece]);
                    }
                    Ok(Some(event)) => events.push(event),
                    Ok(None) => break,
                    Err(violation) => return (data, events, Some(violation)),
                }
            }
            assert!(unread.is_empty(), "all of it is consumed");
        }
        (data, events, None)
    }

    #[test]
    fn l3_whatever_comes_no_decoder_panics_and_no_split_changes_what_it_says() {
        let mut numbers = Numbers(1);
        for _ in 0..40_000 {
            let input = bytes(&mut numbers);
            let framing = FRAMINGS[numbers.below(FRAMINGS.len())];
            let (data, events, violation) = decode(framing, &input, || usize::MAX);
            let split = decode(framing, &input, || 1 + numbers.below(9));
            // In pieces, data in front of a violation may be passed on before the violation is seen.
            assert!(split.0.starts_with(&data), "{framing:?} {input:?}");
            assert!(violation.is_some() || split.0.len() == data.len(), "{framing:?} {input:?}");
            assert_eq!((split.1, split.2), (events, violation), "{framing:?} {input:?}");
        }
    }

    #[test]
    fn b1_b2_what_is_encoded_is_decoded_again() {
        const SIZE: usize = 400;
        for framing in FRAMINGS {
            let codec = Codec::new(framing);
            let start = codec.headroom(SIZE);
            for length in 1..=SIZE - start {
                let mut buffer: Vec<u8> = (0..=255).cycle().take(SIZE).collect();
                let payload = buffer[start..start + length].to_vec();
                let frame = codec.encode(&mut buffer, start..start + length);
                let frame = buffer[frame].to_vec();
                let text = if let Framing::Hixie(_) = framing {
                    frame
                } else {
                    // A client's frame has a mask; a mask of zeroes changes nothing.
                    let header = if frame[1] == 126 { 4 } else { 2 };
                    let (header, text) = frame.split_at(header);
                    [&[header[0], header[1] | 0x80], &header[2..], &[0; 4], text].concat()
                };
                let decoded = decode(framing, &text, || 7);
                assert_eq!(decoded, (payload, vec![], None), "{framing:?}");
            }
        }
    }
}
