//! WebSocket as bytes: the opening handshake's head and the framing, sans-I/O.
//!
//! Knows no socket and no clock. A session's framing is a [`Codec`]; the pump works with nothing
//! else, so another protocol version is another variant here.

mod rfc6455;
mod upgrade;

use std::ops::Range;

use arrayvec::ArrayVec;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

pub(crate) use rfc6455::Violation;
pub(crate) use upgrade::{Refusal, Upgrade, VERSIONS};

/// Room that [`Codec::encode`] needs in front of a payload: the longest unmasked frame header
/// (RFC 6455, section 5.2).
pub(crate) const HEADROOM: usize = 10;

/// The payload of a control frame (RFC 6455, section 5.5). Boxed, because they are rare, and a
/// session without one should not have to make room for it.
pub(crate) type ControlPayload = Box<ArrayVec<u8, 125>>;

/// A control frame as it goes over the wire: two bytes of header and the payload.
pub(crate) type ControlFrame = Box<ArrayVec<u8, 127>>;

/// What a decoder found in the bytes from the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// Payload for the target: this range of the buffer, decoded in place, never empty.
    Data(Range<usize>),
    /// A ping, to be answered with this payload.
    Ping(ControlPayload),
    /// A pong; nothing to do.
    Pong,
    /// The client's last frame, with the code and reason if it gave any.
    Close(Option<CloseFrame>),
}

/// The framing of one session, both ways.
#[derive(Debug)]
pub(crate) enum Codec {
    /// RFC 6455 and the HyBi drafts that share its frames, binary payload.
    Rfc6455(rfc6455::Decoder),
}

impl Codec {
    /// RFC 6455 with binary frames.
    pub(crate) fn rfc6455() -> Self {
        Self::Rfc6455(rfc6455::Decoder::default())
    }

    /// Takes the next event out of `buffer[unread]` and moves the start of `unread` past it.
    /// `None`: all of it is consumed, a partial frame header is kept inside.
    pub(crate) fn decode(
        &mut self,
        buffer: &mut [u8],
        unread: &mut Range<usize>,
    ) -> Result<Option<Event>, Violation> {
        match self {
            Self::Rfc6455(decoder) => decoder.decode(buffer, unread),
        }
    }

    /// Makes one frame of `buffer[payload]`, in place, and returns the range to be sent. Needs
    /// [`HEADROOM`] in front of the payload.
    pub(crate) fn encode(&self, buffer: &mut [u8], payload: Range<usize>) -> Range<usize> {
        match self {
            Self::Rfc6455(_) => rfc6455::encode(buffer, payload),
        }
    }

    /// The answer to a ping.
    pub(crate) fn pong(&self, payload: &[u8]) -> ControlFrame {
        match self {
            Self::Rfc6455(_) => rfc6455::pong(payload),
        }
    }

    /// A close frame. A reason is cut at a character's end to what fits (123 bytes).
    pub(crate) fn close(&self, frame: Option<&CloseFrame>) -> ControlFrame {
        match self {
            Self::Rfc6455(_) => rfc6455::close(frame),
        }
    }
}
