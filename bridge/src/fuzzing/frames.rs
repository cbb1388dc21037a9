//! Frames of RFC 6455, compared with what tungstenite reads in the same bytes.

use std::io::{self, Read, Write};

use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket};

use super::{Decoded, decode_both_ways};
use crate::ws::{Codec, Event, Framing, Violation};

/// The longest frame that tungstenite collects, bytes; we have no such limit.
const FRAME_MAX: usize = 1 << 20;

/// The first byte says how the others are split.
pub fn frames(bytes: &[u8]) {
    let Some((seed, input)) = bytes.split_first() else { return };
    let ours = decode_both_ways(Framing::Binary, *seed, input);
    for event in &ours.events {
        answer(event);
    }
    let (theirs, end) = read_by_tungstenite(input);
    // tungstenite gives messages when they are whole, and our codec gives what has come of them.
    let common = ours.data.len().min(theirs.data.len());
    assert_eq!(ours.data[..common], theirs.data[..common]);
    let is_same = |(ours, theirs): (&Event, &Event)| same(ours, theirs);
    assert!(ours.events.iter().zip(&theirs.events).all(is_same), "{ours:?} {theirs:?}");
    match (ours.violation, end) {
        // Text is bytes to us, and a frame may have any length.
        (None, Some(Error::Utf8(_) | Error::Capacity(_))) => {}
        (None, None | Some(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))) => {
            assert_eq!(ours.events.len(), theirs.events.len());
            assert!(theirs.data.len() <= ours.data.len());
        }
        (None, Some(error)) => panic!("tungstenite refuses what we take: {error}"),
        (Some(_), Some(_)) => {}
        // tungstenite takes these close codes, and lengths that are encoded longer than they need be.
        (
            Some(
                Violation::InvalidCloseCode(_)
                | Violation::LengthNotMinimal
                | Violation::LongControl,
            ),
            None,
        ) => {}
        (Some(violation), None) => panic!("tungstenite takes what we refuse: {violation}"),
    }
}

/// The answer to an event is one whole frame.
fn answer(event: &Event) {
    let codec = Codec::new(Framing::Binary);
    let (first, frame) = match event {
        Event::Ping(payload) => (0x8a, codec.pong(payload)),
        Event::Close(frame) => (0x88, codec.close(frame.as_ref())),
        Event::Data(_) | Event::Pong => return,
    };
    assert_eq!((frame[0], usize::from(frame[1])), (first, frame.len() - 2));
}

fn same(ours: &Event, theirs: &Event) -> bool {
    match (ours, theirs) {
        // tungstenite is older than 1014 and reads `Protocol` instead. Other codes that are not allowed are refused by our codec
        // alone.
        (Event::Close(Some(ours)), Event::Close(Some(theirs))) => {
            ours == theirs || u16::from(ours.code) == 1014 && theirs.code == CloseCode::Protocol
        }
        _ => ours == theirs,
    }
}

/// What tungstenite reads; and the error with which it ended, if that was no close frame.
fn read_by_tungstenite(input: &[u8]) -> (Decoded, Option<Error>) {
    let config = WebSocketConfig::default().max_frame_size(Some(FRAME_MAX)).max_message_size(None);
    let mut socket = WebSocket::from_raw_socket(Wire(input), Role::Server, Some(config));
    let mut decoded = Decoded::default();
    loop {
        match socket.read() {
            Ok(Message::Binary(bytes)) => decoded.data.extend(bytes),
            Ok(Message::Text(text)) => decoded.data.extend(text.as_bytes()),
            Ok(Message::Ping(payload)) => {
                decoded.events.push(Event::Ping(Box::new(payload.iter().copied().collect())));
            }
            Ok(Message::Pong(_)) => decoded.events.push(Event::Pong),
            Ok(Message::Close(frame)) => {
                decoded.events.push(Event::Close(frame));
                return (decoded, None);
            }
            Ok(Message::Frame(_)) => unreachable!("none is read"),
            Err(error) => return (decoded, Some(error)),
        }
    }
}

/// A connection from which these bytes are read, and which takes any that are written.
struct Wire<'a>(&'a [u8]);

impl Read for Wire<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.0.read(room)
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
