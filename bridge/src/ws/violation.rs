//! The ways in which a client can break the protocol, in any framing, and the close code for each. Must not know
//! how a frame is read. The sections are those of RFC 6455.

use serde::{Deserialize, Serialize};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// How a client broke the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Violation {
    /// Section 5.1: a client masks every frame.
    #[error("unmasked frame")]
    Unmasked,
    /// Section 5.2: no extension was negotiated that gives them a meaning.
    #[error("reserved bits set")]
    ReservedBits,
    /// Section 5.2.
    #[error("unknown opcode {0}")]
    UnknownOpcode(u8),
    /// Section 5.2: the most significant bit of a 64-bit length is 0.
    #[error("frame length out of range")]
    LengthOutOfRange,
    /// Section 5.2: the minimal number of bytes is used to encode the length.
    #[error("frame length not minimally encoded")]
    LengthNotMinimal,
    /// Section 5.5.
    #[error("fragmented control frame")]
    FragmentedControl,
    /// Section 5.5: at most 125 bytes.
    #[error("control frame too long")]
    LongControl,
    /// Section 5.4.
    #[error("continuation of no message")]
    LoneContinuation,
    /// Section 5.4: fragments of one message are not interleaved with another.
    #[error("new message inside a fragmented one")]
    InterruptedMessage,
    /// Section 5.5.1: two bytes of code, or none.
    #[error("close frame of one byte")]
    TruncatedCloseCode,
    /// Section 7.4.
    #[error("invalid close code {0}")]
    InvalidCloseCode(u16),
    /// Section 5.5.1.
    #[error("close reason is not UTF-8")]
    CloseReasonNotUtf8,
    /// Section 5.5.2: each ping is answered, but the client does not read the answers.
    #[error("too many pings whose answers are not read")]
    PingFlood,
    /// In a session whose sub-protocol is base64, or that is of an old draft.
    #[error("payload is not base64")]
    NotBase64,
    /// An old draft: a frame begins with 0x00, or is `FF 00`.
    #[error("unknown frame type {0}")]
    UnknownFrame(u8),
}

impl Violation {
    /// The code that the connection is failed with (section 7.4.1).
    pub fn close_code(self) -> CloseCode {
        match self {
            Self::CloseReasonNotUtf8 | Self::NotBase64 => CloseCode::Invalid,
            Self::PingFlood => CloseCode::Policy,
            _ => CloseCode::Protocol,
        }
    }
}
