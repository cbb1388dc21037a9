//! A client as saved in a hand-over and resumed after it: in the middle of a frame, with the bytes that were read of it
//! and not written yet. Must not know how it is serialized.

use std::io;

use serde::{Deserialize, Serialize};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::{Client, Close, Input, PONGS};
use crate::book::Session;
use crate::budget::Reservation;
use crate::buffer::{Lease, SIZE};
use crate::leg::{Leg, SavedLeg};
use crate::saved::{Invalid, Moment, Place, error_kind};
use crate::stream::Stream;
use crate::tap::Tap;
use crate::ws::{Codec, Violation};

/// A client, as saved in a hand-over.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedClient {
    pub(crate) leg: SavedLeg,
    unread: Place,
    codec: Codec,
    input: SavedInput,
    payload: Place,
    /// Whether all of the payload is written, but an encrypted connection to the target has not sent all of it.
    #[serde(default)]
    is_unflushed: bool,
    frame: Place,
    control: Place,
    close: SavedClose,
    is_shut: bool,
    left_unheard: u64,
    #[serde(default)]
    told_to_end: Option<Moment>,
    ending: Option<SavedFrame>,
}

/// A close code and its reason.
#[derive(Debug, Serialize, Deserialize)]
struct SavedFrame(u16, String);

#[derive(Debug, Serialize, Deserialize)]
enum SavedInput {
    Open,
    Closed(Option<SavedFrame>),
    Ended,
    Failed(#[serde(with = "error_kind")] io::ErrorKind),
    Violated(Violation),
}

#[derive(Debug, Serialize, Deserialize)]
enum SavedClose {
    No,
    Wanted(Option<SavedFrame>),
    Done,
    Impossible,
}

impl SavedClient {
    /// Saves a client, and puts its bytes behind `all`.
    pub(crate) fn of(client: &mut Client, all: &mut Vec<u8>) -> Self {
        let left = |lease: &Option<Lease>| lease.as_ref().map_or_else(Vec::new, |l| l.left_bytes());
        Self {
            unread: Place::put(all, client.stream.unread_bytes()),
            leg: client.stream.leg().saved(),
            codec: client.codec.clone(),
            input: SavedInput::of(&client.input),
            payload: Place::put(all, &left(&client.payload)),
            is_unflushed: client
                .payload
                .as_ref()
                .is_some_and(|lease| lease.left_bytes().is_empty()),
            frame: Place::put(all, &left(&client.frame)),
            control: Place::put(all, &client.control),
            close: SavedClose::of(&client.close),
            is_shut: client.is_shut,
            left_unheard: client.left_unheard,
            told_to_end: client.told_to_end.map(Moment::from),
            ending: client.ending.as_ref().map(|(code, reason)| SavedFrame::new(*code, reason)),
        }
    }

    /// As [`Place::move_by`].
    pub(crate) fn move_by(&mut self, base: usize) {
        for place in [&mut self.unread, &mut self.payload, &mut self.frame, &mut self.control] {
            place.move_by(base);
        }
    }

    /// Whether bytes that were read are still to be written: such a session goes on first.
    pub(crate) fn is_busy(&self) -> bool {
        self.is_unflushed || self.payload != Place::default() || self.frame != Place::default()
    }

    /// Whether this is a possible state, before a connection is taken for it.
    pub(crate) fn look(&self, all: &[u8]) -> Result<(), Invalid> {
        self.unread.of(all)?;
        let fits = [self.payload, self.frame].map(|place| Ok(place.of(all)?.len() <= SIZE));
        let fits = fits.into_iter().collect::<Result<Vec<_>, Invalid>>()?;
        // The codec matters only as long as the client's frames are read. Behind the pongs there may be a close frame,
        // of at most 127 bytes.
        let is_read = matches!(self.input, SavedInput::Open);
        let is_valid =
            (!is_read || self.codec.is_valid()) && self.control.of(all)?.len() <= PONGS + 127;
        let possible = is_valid && fits.into_iter().all(|fits| fits);
        possible.then_some(()).ok_or_else(|| Invalid("it has an impossible client".to_owned()))
    }

    /// How its frames are read.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn codec(&self) -> Codec {
        self.codec.clone()
    }

    /// The client again, over this leg, which is its connection.
    pub(crate) fn resume(
        self,
        leg: Leg,
        all: &[u8],
        tap: Option<Box<Tap>>,
        session: Session,
    ) -> Result<Client, Invalid> {
        Ok(Client {
            stream: Stream::resume(leg, self.unread.of(all)?),
            codec: self.codec,
            input: self.input.resume(),
            read: 0,
            payload: match Lease::with(self.payload.of(all)?)? {
                None if self.is_unflushed => Some(Lease::take()),
                payload => payload,
            },
            frame: Lease::with(self.frame.of(all)?)?,
            control: self.control.of(all)?.to_vec(),
            close: self.close.resume(),
            is_shut: self.is_shut,
            ponged: 0,
            pongs_sent: 0,
            left_unheard: self.left_unheard,
            told_to_end: self.told_to_end.map(|told| told.instant().into()),
            ending: self.ending.map(|SavedFrame(code, reason)| (code.into(), reason.into())),
            tap,
            held: Reservation::new(session.budget()),
            holds_buffers: false,
            has_unsent_limit: false,
            session,
        })
    }
}

impl SavedFrame {
    fn new(code: CloseCode, reason: &str) -> Self {
        Self(code.into(), reason.to_owned())
    }

    fn of(frame: Option<&CloseFrame>) -> Option<Self> {
        frame.map(|frame| Self::new(frame.code, &frame.reason))
    }

    fn resume(self) -> CloseFrame {
        let Self(code, reason) = self;
        CloseFrame { code: code.into(), reason: reason.into() }
    }
}

impl SavedInput {
    fn of(input: &Input) -> Self {
        match input {
            Input::Open => Self::Open,
            Input::Closed(frame) => Self::Closed(SavedFrame::of(frame.as_ref())),
            Input::Ended => Self::Ended,
            Input::Failed(kind) => Self::Failed(*kind),
            Input::Violated(violation) => Self::Violated(*violation),
        }
    }

    fn resume(self) -> Input {
        match self {
            Self::Open => Input::Open,
            Self::Closed(frame) => Input::Closed(frame.map(SavedFrame::resume)),
            Self::Ended => Input::Ended,
            Self::Failed(kind) => Input::Failed(kind),
            Self::Violated(violation) => Input::Violated(violation),
        }
    }
}

impl SavedClose {
    fn of(close: &Close) -> Self {
        match close {
            Close::No => Self::No,
            Close::Wanted(frame) => Self::Wanted(SavedFrame::of(frame.as_ref())),
            Close::Done => Self::Done,
            Close::Impossible => Self::Impossible,
        }
    }

    fn resume(self) -> Close {
        match self {
            Self::No => Close::No,
            Self::Wanted(frame) => Close::Wanted(frame.map(SavedFrame::resume)),
            Self::Done => Close::Done,
            Self::Impossible => Close::Impossible,
        }
    }
}
