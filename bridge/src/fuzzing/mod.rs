//! Properties of every parser of bytes from clients, or from servers that we ask: they hold whatever the bytes are (L3).
//!
//! Each property takes any bytes, and panics if it does not hold. `tests/fuzz` searches for bytes with which it does not; the
//! test below tries committed inputs and others close to them. Only those two builds have this module, so that the parsers need
//! not be public for it.
#![expect(clippy::missing_panics_doc, reason = "panicking is what they are for")]

mod base64;
mod certificate;
mod forwarded;
mod frames;
mod head;
mod hello;
mod hixie;
mod jwt;
#[cfg(test)]
mod neighbours;
mod numbers;
mod proxy_header;
mod redact;
mod redis;
mod state;
mod target;
mod token;
mod token_api;
mod token_file;
mod web;

use std::future::poll_fn;
use std::ops::Range;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use crate::buffer::{Lease, SIZE};
use crate::ws::{Codec, Event, Framing, Violation};

pub use base64::base64;
pub use certificate::certificate;
pub use forwarded::forwarded;
pub use frames::frames;
pub use head::head;
pub use hello::hello;
pub use hixie::hixie;
pub use jwt::jwt;
pub(crate) use numbers::Numbers;
pub use proxy_header::proxy_header;
pub use redis::redis;
pub use state::state;
pub use token::token;
pub use token_api::token_api;
pub use web::web;

/// What a codec makes of a client's bytes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Decoded {
    /// For the target.
    data: Vec<u8>,
    events: Vec<Event>,
    violation: Option<Violation>,
}

/// Decodes bytes that come in pieces as long as `length` says, in a buffer as the pump has it, which
/// is written out when `is_taken` says so, and when it is full.
fn decode(
    framing: Framing,
    mut input: &[u8],
    mut length: impl FnMut() -> usize,
    mut is_taken: impl FnMut() -> bool,
) -> Decoded {
    let mut codec = Codec::new(framing);
    let mut decoded = Decoded::default();
    let mut lease = Lease::take();
    while !input.is_empty() && !decoded.is_over() {
        let (piece, rest) = input.split_at(length().min(input.len()).min(SIZE));
        input = rest;
        if is_taken() || piece.len() > SIZE - lease.end() {
            decoded.write_out(&mut lease);
        }
        let start = lease.end();
        let end = start + piece.len();
        lease.bytes[start..end].copy_from_slice(piece);
        decoded.take(&mut codec, &mut lease, start..end);
    }
    decoded.write_out(&mut lease);
    decoded
}

/// Decodes as much as a buffer takes with a codec that is in the middle of something.
fn decode_with(mut codec: Codec, input: &[u8]) {
    let (mut decoded, mut lease) = (Decoded::default(), Lease::take());
    let length = input.len().min(SIZE);
    lease.bytes[..length].copy_from_slice(&input[..length]);
    decoded.take(&mut codec, &mut lease, 0..length);
}

impl Decoded {
    /// Whether nothing that follows counts.
    fn is_over(&self) -> bool {
        self.violation.is_some() || matches!(self.events.last(), Some(Event::Close(_)))
    }

    /// As `Client::decode` does it.
    fn take(&mut self, codec: &mut Codec, lease: &mut Lease, mut unread: Range<usize>) {
        loop {
            let start = unread.start;
            match codec.decode(&mut lease.bytes, &mut unread) {
                Ok(Some(Event::Data(piece))) => {
                    assert!(!piece.is_empty(), "nothing is no data");
                    assert!(start <= piece.start && piece.end <= unread.start, "data in its place");
                    lease.push(piece);
                }
                Ok(Some(event)) => self.events.push(event),
                Ok(None) => return assert!(unread.is_empty(), "all of it is consumed"),
                Err(violation) => self.violation = Some(violation),
            }
            if self.is_over() {
                return;
            }
        }
    }

    fn write_out(&mut self, lease: &mut Lease) {
        let data = &mut self.data;
        let written = pin!(poll_fn(|cx| lease.poll_write(cx, data)));
        let written = written.poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(written, Poll::Ready(Ok(()))), "a Vec takes everything");
    }
}

/// Decodes `input` whole and in pieces, of which `seed` says the lengths: it must mean the same.
fn decode_both_ways(framing: Framing, seed: u8, input: &[u8]) -> Decoded {
    let whole = decode(framing, input, || usize::MAX, || false);
    let (mut lengths, mut turns) = (Numbers(seed.into()), Numbers(seed.into()));
    let split = decode(framing, input, || 1 + lengths.below(9), || turns.below(2) == 0);
    assert_eq!(split.events, whole.events);
    assert_eq!(split.violation, whole.violation);
    // Read in pieces, data may have been passed on before the piece with the violation is read.
    assert!(split.data.starts_with(&whole.data));
    assert!(whole.violation.is_some() || split.data == whole.data);
    whole
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::neighbours::{SEEDS, try_neighbours};

    type Property = fn(&[u8]);

    const PROPERTIES: [(&str, Property); 14] = [
        ("base64", super::base64),
        ("certificate", super::certificate),
        ("forwarded", super::forwarded),
        ("frames", super::frames),
        ("head", super::head),
        ("hello", super::hello),
        ("hixie", super::hixie),
        ("jwt", super::jwt),
        ("proxy_header", super::proxy_header),
        ("redis", super::redis),
        ("state", super::state),
        ("token", super::token),
        ("token_api", super::token_api),
        ("web", super::web),
    ];

    /// The seeds of parsers that the supervisor has, and tries: `admin`, `handed_over`, `helper` and `proc_text`.
    const OF_OTHERS: usize = 4;

    #[test]
    fn l3_known_inputs_and_their_neighbours_break_no_parser() {
        assert_eq!(fs::read_dir(SEEDS).unwrap().count(), PROPERTIES.len() + OF_OTHERS);
        for (name, property) in PROPERTIES {
            try_neighbours(name, property);
        }
    }
}
