//! A connection's first request head, read by us.
//!
//! A handshake of draft Hixie-76 is followed by eight bytes that none of its headers announces, so it cannot be left to an HTTP
//! library. Every other head is given back, for hyper to read. Knows where a head ends and whether it is such a handshake; must
//! not know who is admitted, nor how other requests are answered.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use ::http::Request;
use ::http::request::Parts;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use super::idle::IDLE;
use super::upgraded::Upgraded;
use crate::admission::{Admission, Refusal};
use crate::arrival::Arrival;
use crate::lobby::Guest;
use crate::peer::Peer;
use crate::stream::Stream;
use crate::unadmitted::NoSession;
use crate::ws::{Challenge, Scheme};

/// The longest request head, bytes (L2).
pub(super) const HEAD_MAX: usize = 16 * 1024;

/// How much is read at once: most heads are shorter.
const PIECE: usize = 1024;

/// How much of an incomplete head each connection may keep in our memory besides rustls's state, bytes. Only a limited number of
/// connections may keep more at a time (L5).
pub(super) const PARTIAL_HEAD_MAX: usize = 7 * 1024;

/// The longest method of a first request, and the most of empty lines before it, bytes. All of these are looked at again whenever
/// more of a head has come. The longest method that is registered has 17 letters (RFC 9110, section 16.1).
pub(crate) const METHOD_MAX: usize = 64;

/// How many headers hyper accepts in a head, and so do we.
const HEADERS_MAX: usize = 100;

/// What counts for an encrypted connection besides, bytes: rustls's state and its buffers, and what the kernel has of an
/// incomplete record.
pub(crate) const ENCRYPTED: usize = 32 * 1024;

/// What a connection began with.
pub(super) enum First {
    /// A handshake of the old drafts, which was answered with 101.
    Upgraded(Upgraded),
    /// Something else, which hyper reads again from the beginning; or a handshake of the old drafts that is refused, and the
    /// refusal.
    Other(Stream, Option<Refusal>),
    /// Nothing that is read any further: the connection is to be [turned away](super::turn_away).
    None(Stream, NoSession),
}

/// A handshake of the old drafts: its head, what it asks for, and where its head ends.
type Handshake = (Parts, Challenge, usize);

/// Says whether a connection's first head is complete, or cannot become so. Until then the bytes stay with the kernel: a client
/// that is slow with them costs no buffer of ours (L5).
pub(crate) struct Judge<'a> {
    guest: &'a Guest,
    /// The head does not end within this many bytes.
    known: usize,
}

impl<'a> Judge<'a> {
    pub(crate) fn new(guest: &'a Guest) -> Self {
        Self { guest, known: 0 }
    }

    /// What is to be done about these bytes, which are all that have come; if `is_last`, all that will come. `Ok`: read them.
    /// `Err`: end the connection. None: wait for more.
    pub(crate) fn judge(&mut self, seen: &[u8], is_last: bool) -> Option<Result<(), NoSession>> {
        if !may_be_head(seen) {
            return Some(Err(NoSession::NoRequest));
        }
        if is_last || seen.len() > HEAD_MAX {
            return Some(Ok(()));
        }
        match end(seen, self.known) {
            Some(end) if seen.len() >= end + key_length(&seen[..end]) => return Some(Ok(())),
            Some(_) => {}
            None => self.known = seen.len(),
        }
        (!self.guest.leaves_unread(seen.len())).then_some(Err(NoSession::NoMemory))
    }
}

/// Whether these bytes may be the beginning of a request: a method, which is a token (RFC 9110, sections 9.1 and 5.6.2). Empty
/// lines before it are skipped (RFC 9112, section 2.2). Of each there are [`METHOD_MAX`] bytes at most.
pub(crate) fn may_be_head(bytes: &[u8]) -> bool {
    let (blank, begun) = bytes.split_at(blank(bytes));
    let is_of_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let method = begun.iter().take(METHOD_MAX + 1).take_while(|byte| is_of_token(byte)).count();
    let is_method = match begun.get(method) {
        Some(next) => method > 0 && *next == b' ',
        None => true,
    };
    blank.len() <= METHOD_MAX && method <= METHOD_MAX && is_method
}

/// Where the head ends, if that is behind the first `known` bytes. Empty lines before the head are skipped.
pub(crate) fn end(bytes: &[u8], known: usize) -> Option<usize> {
    let blank = blank(bytes);
    end_of_head(&bytes[blank..], known.saturating_sub(blank)).map(|end| blank + end)
}

/// How many bytes of empty lines there are at the beginning.
fn blank(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| !b"\r\n".contains(byte)).unwrap_or(bytes.len())
}

/// Reads a connection's first head, and answers it if it is an old handshake that is admitted. All of it must be
/// there by `deadline`; to decide on it may take longer.
pub(super) async fn receive(
    mut stream: Stream,
    peer: &Arc<Peer>,
    admission: &Admission,
    deadline: Instant,
    arrival: &Arrival,
) -> Result<First, NoSession> {
    let scheme = if peer.tls.is_some() { Scheme::Wss } else { Scheme::Ws };
    let mut bytes = Vec::new();
    let read = read_handshake(&mut stream, &mut bytes, scheme, arrival);
    let read = timeout_at(deadline, read).await.unwrap_or(Err(NoSession::TimedOut));
    if bytes.len() > PARTIAL_HEAD_MAX {
        // The head is complete, or we read no more of it.
        arrival.guest.ends_long_head();
    }
    let handshake = match read {
        Err(why @ (NoSession::NoRequest | NoSession::NoMemory)) => {
            arrival.busy();
            return Ok(First::None(stream, why));
        }
        handshake => handshake?,
    };
    let Some((head, challenge, length)) = handshake else {
        let head = Bytes::from(bytes);
        if scheme == Scheme::Ws {
            arrival.asks(head.clone());
        }
        stream.put_back(head);
        return Ok(First::Other(stream, None));
    };
    let bytes = Bytes::from(bytes);
    if scheme == Scheme::Ws {
        arrival.asks(bytes.clone());
    }
    let end = length + challenge.key_length();
    let asker = admission.door.asker(peer, &head.headers);
    arrival.guest.is_answered(0);
    let ticket = match admission.admit(&head, &asker, &arrival.guest).await {
        Ok(ticket) => ticket,
        Err(refusal) => {
            stream.put_back(bytes);
            return Ok(First::Other(stream, Some(refusal.closing())));
        }
    };
    arrival.busy();
    let answer = challenge.answer(&bytes[length..end]);
    let sent = async {
        stream.write_all(&answer).await?;
        stream.flush().await
    };
    timeout(IDLE, sent).await.map_err(|_| NoSession::TimedOut)??;
    stream.put_back(bytes.slice(end..));
    Ok(First::Upgraded(Upgraded { stream, upgrade: challenge.upgrade, ticket }))
}

/// Reads a head, and if it is an old handshake the bytes of its key, too.
async fn read_handshake(
    stream: &mut Stream,
    bytes: &mut Vec<u8>,
    scheme: Scheme,
    arrival: &Arrival,
) -> Result<Option<Handshake>, NoSession> {
    let Some(length) = read_head(stream, bytes, arrival).await? else { return Ok(None) };
    let needed = length + key_length(&bytes[..length]);
    while bytes.len() < needed {
        arrival.begun(bytes);
        if read_or_wait(stream, bytes, arrival).await? == 0 {
            return Err(NoSession::Left);
        }
    }
    let Some(head) = parse(&bytes[..length]) else { return Ok(None) };
    Ok(Challenge::from_head(&head, scheme).map(|challenge| (head, challenge, length)))
}

/// How many bytes follow a head that no header announces: the key of a Hixie-76 handshake.
fn key_length(head: &[u8]) -> usize {
    const KEY: &[u8] = b"sec-websocket-key1";
    if !head.windows(KEY.len()).any(|name| name.eq_ignore_ascii_case(KEY)) {
        return 0;
    }
    let challenge = parse(head).and_then(|head| Challenge::from_head(&head, Scheme::Ws));
    challenge.map_or(0, |challenge| challenge.key_length())
}

/// Reads until the head is complete, and returns its length. `None`: it is too long, or ended early, or is no GET. Until it is
/// complete, what was read counts for the budget.
async fn read_head(
    stream: &mut Stream,
    bytes: &mut Vec<u8>,
    arrival: &Arrival,
) -> Result<Option<usize>, NoSession> {
    let besides = if stream.is_encrypted() { ENCRYPTED } else { 0 };
    loop {
        let known = bytes.len();
        // No more than is needed, where `reserve` might double it: many slow clients may keep such a buffer.
        bytes.reserve_exact(PIECE);
        bytes.resize(known + PIECE, 0);
        let there = stream.read_now(&mut bytes[known..]);
        bytes.truncate(known + there);
        if there == 0 && read_or_wait(stream, bytes, arrival).await? == 0 {
            return Ok(None);
        }
        if !may_be_head(bytes) {
            return Err(NoSession::NoRequest);
        }
        if bytes.len() > HEAD_MAX {
            return Ok(None);
        }
        if let Some(end) = end(bytes, known) {
            return Ok(bytes.starts_with(b"GET ").then_some(end));
        }
        // Twice, as `arrival` keeps a copy, from which the new binary begins anew in a hand-over.
        if !arrival.guest.keeps(besides + 2 * bytes.len()) {
            return Err(NoSession::NoMemory);
        }
        arrival.begun(bytes);
    }
}

/// Reads what has come, or waits for it. A connection that waits with a long head is one of the few that may.
async fn read_or_wait(
    stream: &mut Stream,
    bytes: &mut Vec<u8>,
    arrival: &Arrival,
) -> io::Result<usize> {
    let is_long = bytes.len() > PARTIAL_HEAD_MAX;
    let mut read = pin!(stream.read_buf(bytes));
    match poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx))).await {
        Poll::Ready(read) => read,
        Poll::Pending => {
            if is_long {
                arrival.guest.begins_long_head();
            }
            read.await
        }
    }
}

/// Where the empty line ends that ends a head, if that is behind the first `known` bytes. A line may end without a carriage
/// return (RFC 9112, section 2.2).
pub(crate) fn end_of_head(bytes: &[u8], known: usize) -> Option<usize> {
    (known..bytes.len())
        .filter(|at| bytes[*at] == b'\n')
        .find(|at| bytes[..*at].ends_with(b"\n") || bytes[..*at].ends_with(b"\n\r"))
        .map(|at| at + 1)
}

/// A head as the rest of the crate reads it, if it is well-formed; if not, hyper says what is wrong with it.
pub(crate) fn parse(bytes: &[u8]) -> Option<Parts> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut headers);
    if !head.parse(bytes).ok()?.is_complete() {
        return None;
    }
    let version =
        if head.version == Some(1) { ::http::Version::HTTP_11 } else { ::http::Version::HTTP_10 };
    let mut request = Request::builder().method(head.method?).uri(head.path?).version(version);
    for header in head.headers {
        request = request.header(header.name, header.value);
    }
    Some(request.body(()).ok()?.into_parts().0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzzing::Numbers;

    #[test]
    fn b2_the_end_of_a_head_is_found_wherever_reading_paused() {
        for head in ["GET / HTTP/1.1\r\nA: b\r\n\r\n", "GET / HTTP/1.1\nA: b\n\n"] {
            let bytes = [head.as_bytes(), b"key3\r\n\r\n"].concat();
            for length in 0..bytes.len() {
                for known in 0..length.min(head.len()) {
                    let expected = (length >= head.len()).then_some(head.len());
                    assert_eq!(end_of_head(&bytes[..length], known), expected, "{length} {known}");
                }
            }
        }
    }

    #[test]
    fn l5_a_head_begins_with_a_token_and_nothing_else_does() {
        let long = "A".repeat(30);
        for begun in ["", "\r\n", "G", "GET ", "get /", "\r\nGET / H", "a!#$%&'*+-.^_`|~1 x", &long]
        {
            assert!(may_be_head(begun.as_bytes()), "{begun:?}");
        }
        for other in ["\0", "(", " GET", "GET\r\n", "GET\t/", "GE:T /", "\r\n/", "\u{e4}"] {
            assert!(!may_be_head(other.as_bytes()), "{other:?}");
        }
    }

    /// However much has come, a look at it costs no more than that.
    #[test]
    fn l5_no_long_method_begins_a_head_and_no_long_blank() {
        for before in ["", "\r\n", &"\r\n".repeat(32)] {
            let head =
                |length: usize, behind: &str| format!("{before}{}{behind}", "~".repeat(length));
            for behind in ["", " ", " / HTTP/1.1\r\n"] {
                assert!(may_be_head(head(64, behind).as_bytes()), "{before:?} {behind:?}");
                assert!(!may_be_head(head(65, behind).as_bytes()), "{before:?} {behind:?}");
            }
        }
        for behind in ["", "GET / HTTP/1.1\r\n"] {
            for (blank, other) in [("\r\n", "\r\n".repeat(33)), ("\n", "\n".repeat(65))] {
                let most = blank.repeat(64 / blank.len());
                assert!(may_be_head((most + behind).as_bytes()), "{blank:?} {behind:?}");
                assert!(!may_be_head((other + behind).as_bytes()), "{blank:?} {behind:?}");
            }
        }
    }

    #[test]
    fn l3_no_bytes_make_a_head_panic() {
        let good = b"GET /x HTTP/1.1\r\nHost: a\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n\
            Origin: o\r\nSec-WebSocket-Key1: 1 2\r\nSec-WebSocket-Key2: 3 4\r\n\r\n";
        let mut numbers = Numbers(1);
        for _ in 0..20_000 {
            let mut bytes = good.to_vec();
            for _ in 0..3 {
                let at = numbers.below(bytes.len());
                bytes[at] = u8::try_from(numbers.below(256)).unwrap();
            }
            if let Some(head) = parse(&bytes) {
                let challenge = Challenge::from_head(&head, Scheme::Ws);
                assert!(
                    challenge.is_none_or(|challenge| challenge.answer(b"12345678").len() > 100)
                );
            }
        }
    }
}
