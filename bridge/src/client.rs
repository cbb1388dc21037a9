//! The client's half of a session: frames in, frames out, and how it ended.
//!
//! Lives as long as the session does, while targets may come and go. Knows nothing of targets: the
//! payload for one is left in [`Client::payload`], where the pump finds it.

mod saved;

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::yield_now;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::book::{Call, Session};
use crate::budget::Reservation;
use crate::buffer::{Lease, SIZE, SMALL_SIZE};
use crate::leg::Leg;
use crate::net::{Heard, PeerStatus};
use crate::stream::Stream;
use crate::tap::{Tap, To};
use crate::ws::{Codec, ControlPayload, Event, Violation};
pub(crate) use saved::SavedClient;

/// How long a peer that was told of the end may take to end too; what it still sends is discarded. Closing a socket
/// with unread bytes resets the connection, and by that the peer would lose our last bytes.
pub(crate) const DRAIN: Duration = Duration::from_secs(2);

/// After how many bytes a turn is over: a full buffer has more. See [`turns`](crate::turns).
pub(crate) const TURN: u64 = SIZE as u64 / 2;

/// How many bytes of pongs may wait for a client that does not read them. A pong is shorter than its ping: the pongs to
/// all the pings of one read always have room.
const PONGS: usize = SIZE;

/// What was last heard of the client.
#[derive(Debug)]
pub(crate) enum Input {
    /// It may send more.
    Open,
    /// Its close frame.
    Closed(Option<CloseFrame>),
    /// The end of its stream without a close frame.
    Ended,
    /// An error of its connection.
    Failed(io::ErrorKind),
    /// It broke the protocol.
    Violated(Violation),
}

/// The state of our close frame.
#[derive(Debug, PartialEq, Eq)]
enum Close {
    No,
    Wanted(Option<CloseFrame>),
    /// It is among the bytes that are to be sent, or sent.
    Done,
    /// The connection takes nothing any more.
    Impossible,
}

/// What came of a read whose bytes are thrown away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Discarded {
    /// There may be more.
    Bytes,
    /// The end of the stream, or an error of it.
    End,
}

/// Reads once, and throws the bytes away.
pub(crate) fn poll_discard(
    stream: &mut (impl AsyncRead + Unpin),
    cx: &mut Context<'_>,
) -> Poll<Discarded> {
    match ready!(Lease::take().poll_read(cx, stream, 0)) {
        Ok(1..) => Poll::Ready(Discarded::Bytes),
        Ok(0) | Err(_) => Poll::Ready(Discarded::End),
    }
}

/// A WebSocket client, after the 101.
pub(crate) struct Client {
    stream: Stream,
    codec: Codec,
    pub(crate) input: Input,
    /// How many bytes were read, whatever the client's frames are.
    read: u64,
    /// Payload from the client that is not yet at the target.
    pub(crate) payload: Option<Lease>,
    /// A data frame that is not yet at the client.
    frame: Option<Lease>,
    /// The control frames that are not yet at the client, in the order in which they are sent. Their memory is freed when all
    /// are sent, and no sooner: by that it is known that some wait ([`is_stuck`](Self::is_stuck)), here or in TLS.
    control: Vec<u8>,
    close: Close,
    /// Whether our side of the connection is shut down.
    is_shut: bool,
    /// How many bytes of pongs were put among the control frames, in all.
    ponged: u64,
    /// How many of them there were when nothing was left to be sent last, here or in TLS.
    pongs_sent: u64,
    /// How many bytes were under way to the client when it was found [silent](Call::Unheard) last.
    left_unheard: u64,
    /// When the session was first told to end, by a limit or by the administrator.
    told_to_end: Option<Instant>,
    /// How the session ended, for the log: the first reason there was.
    ending: Option<(CloseCode, Box<str>)>,
    /// The session's traffic letters and recording, if there are any.
    pub(crate) tap: Option<Box<Tap>>,
    /// The session's part of the memory budget: more than 0 bytes while a peer takes nothing.
    pub(crate) held: Reservation,
    /// Whether buffers of ours are a part of `held`, and not only bytes in the kernel.
    holds_buffers: bool,
    /// Whether the kernel is told to keep few unsent bytes for the client, as memory was scarce at the last look.
    has_unsent_limit: bool,
    pub(crate) session: Session,
}

impl Client {
    /// A client whose next byte is its first frame's.
    pub(crate) fn new(
        stream: Stream,
        codec: Codec,
        tap: Option<Box<Tap>>,
        session: Session,
    ) -> Self {
        let held = Reservation::new(session.budget());
        Self {
            stream,
            codec,
            input: Input::Open,
            read: 0,
            payload: None,
            frame: None,
            control: Vec::new(),
            close: Close::No,
            is_shut: false,
            ponged: 0,
            pongs_sent: 0,
            left_unheard: u64::MAX,
            told_to_end: None,
            ending: None,
            tap,
            held,
            holds_buffers: false,
            has_unsent_limit: false,
            session,
        }
    }

    /// The client's connection.
    pub(crate) fn leg(&mut self) -> &mut Leg {
        self.stream.leg()
    }

    /// Our address on the client's connection, if that is TCP.
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        self.stream.local_address()
    }

    /// Whether no data may follow: a close frame is sent or under way, or nothing can be sent.
    pub(crate) fn is_closing(&self) -> bool {
        self.close != Close::No
    }

    /// Whether nothing can be sent. What the client sent before can still be read.
    pub(crate) fn is_deaf(&self) -> bool {
        self.close == Close::Impossible
    }

    /// Whether the session is ending, by us or by the client.
    pub(crate) fn is_over(&self) -> bool {
        self.is_closing() || !matches!(self.input, Input::Open)
    }

    /// How many bytes for the client are under way, here or in the kernel.
    pub(crate) fn under_way(&self) -> u64 {
        let frame = self.frame.as_ref().map_or(0, |frame| frame.left());
        (frame + self.control.len()) as u64 + self.stream.unsent()
    }

    /// Whether a frame waits to be taken.
    pub(crate) fn is_stuck(&self) -> bool {
        self.frame.is_some() || self.control.capacity() > 0
    }

    /// How many bytes were read of the client, whatever its frames are.
    pub(crate) fn read(&self) -> u64 {
        self.read
    }

    /// How many bytes of pongs the client was sent or is to be sent, in all. Pings are not among them: whether the client
    /// answers a heartbeat is known without a look.
    pub(crate) fn ponged(&self) -> u64 {
        self.ponged
    }

    /// What the kernel says of the client while nothing is read from it. If the connection has failed, nothing more is sent.
    pub(crate) fn look_after(&mut self, cx: &mut Context<'_>) -> PeerStatus {
        let status = self.stream.peer_status(cx);
        if status == PeerStatus::Failed {
            self.end(CloseCode::Abnormal, "client: connection failed");
            self.give_up_sending();
        }
        status
    }

    /// Sends a ping, if the framing has one. While the client is not read, its pong is not seen: what counts then is
    /// that its kernel acknowledges the ping.
    pub(crate) fn ping(&mut self) {
        if let Some(ping) = self.codec.ping().filter(|_| self.close == Close::No) {
            self.control.extend_from_slice(&ping);
        }
    }

    /// Does what the session is [called](Call) to do. True: the session is to end.
    pub(crate) fn answer_calls(&mut self, cx: &mut Context<'_>) -> bool {
        let mut is_ending = false;
        while let Some(call) = self.session.take_call(cx) {
            let (code, reason) = match call {
                Call::Dismissed => (CloseCode::Policy, "ended by the administrator"),
                Call::TooLong => (CloseCode::Normal, "session timeout"),
                Call::Expired => (CloseCode::Normal, "token expired"),
                Call::TooQuiet => (CloseCode::Normal, "session idle timeout"),
                Call::Unheard => {
                    if self.takes_nothing() {
                        self.give_up();
                        is_ending = true;
                    }
                    continue;
                }
                Call::Ping => {
                    // A control frame that waits to be sent is enough.
                    if self.control.is_empty() {
                        self.ping();
                    }
                    continue;
                }
            };
            // A session that has ended already is quiet while its client takes what is left.
            if call != Call::TooQuiet || !self.is_over() {
                self.told_to_end.get_or_insert_with(Instant::now);
            }
            self.close(code, reason);
            is_ending = true;
        }
        is_ending
    }

    /// How long ago the session was told to end, by a limit or by the administrator, if it was.
    pub(crate) fn told_to_end(&self) -> Option<Duration> {
        self.told_to_end.map(|told| told.elapsed())
    }

    /// Whether a client that sends nothing, not even the answer to a ping, takes nothing either. The old
    /// drafts have no pings: such a client may be silent.
    fn takes_nothing(&mut self) -> bool {
        let left = self.under_way();
        let takes = left > 0 && left != std::mem::replace(&mut self.left_unheard, left);
        !takes && self.codec.ping().is_some()
    }

    /// See [`Socket::reset_on_close`](crate::net::Socket::reset_on_close).
    pub(crate) fn reset_on_close(&self) {
        self.stream.reset_on_close();
    }

    /// When the client's kernel has answered last, if the connection is TCP.
    pub(crate) fn heard(&self) -> Option<Heard> {
        self.stream.heard()
    }

    /// Gives the client up: its connection has not failed, but nothing is heard of the client any more.
    pub(crate) fn give_up(&mut self) {
        self.input = Input::Failed(io::ErrorKind::TimedOut);
        self.answer_input();
        self.give_up_sending();
    }

    /// How the session ended: 1006 if nobody said anything (RFC 6455, section 7.1.5).
    pub(crate) fn ending(&self) -> (u16, &str) {
        match &self.ending {
            Some((code, reason)) => (u16::from(*code), reason),
            None => (u16::from(CloseCode::Abnormal), ""),
        }
    }

    /// Notes how the session ended, if that is not known already.
    pub(crate) fn end(&mut self, code: CloseCode, reason: impl Into<Box<str>>) {
        self.ending.get_or_insert_with(|| (code, reason.into()));
    }

    /// Has a close frame sent at the next frame boundary; the first one counts.
    pub(crate) fn close(&mut self, code: CloseCode, reason: &str) {
        self.end(code, reason);
        if self.close == Close::No {
            self.close = Close::Wanted(Some(CloseFrame { code, reason: reason.into() }));
        }
    }

    /// Answers the end of the client's input with our own close frame where one is due, and notes
    /// how the session ended. Does nothing while the input is open.
    pub(crate) fn answer_input(&mut self) {
        match &self.input {
            Input::Open => {}
            Input::Closed(frame) => {
                let code = frame.as_ref().map(|frame| frame.code);
                let reason =
                    frame.as_ref().map_or_else(String::new, |frame| frame.reason.to_string());
                self.end(code.unwrap_or(CloseCode::Status), reason);
                if self.close == Close::No {
                    let echo = code.map(|code| CloseFrame { code, reason: "".into() });
                    self.close = Close::Wanted(echo);
                }
            }
            Input::Ended => self.end(CloseCode::Abnormal, "client ended without a close frame"),
            Input::Failed(kind) => self.end(CloseCode::Abnormal, format!("client: {kind}")),
            Input::Violated(violation) => {
                self.close(violation.close_code(), &violation.to_string());
            }
        }
    }

    /// Reads once, behind the payload that is still there, and decodes all of it. Pending also when there is no room:
    /// then the task is woken when the payload can be written.
    pub(crate) fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let is_scarce = self.is_scarce();
        if is_scarce && self.waiting_control() >= SMALL_SIZE {
            // No more pings are read before their answers have room.
            ready!(self.poll_send(cx));
        }
        let mut lease = self.payload.take().unwrap_or_else(|| Lease::take_as(is_scarce));
        let start = lease.end();
        if start == lease.size() {
            self.payload = Some(lease);
            return Poll::Pending;
        }
        let read = lease.poll_read(cx, &mut self.stream, start);
        match read {
            Poll::Pending | Poll::Ready(Ok(0) | Err(_)) => {}
            Poll::Ready(Ok(length)) => {
                self.session.note_heard();
                self.read += length as u64;
                self.decode(&mut lease, start..start + length);
            }
        }
        self.payload = Some(lease).filter(|lease| !lease.is_done());
        match ready!(read) {
            Ok(0) => self.input = Input::Ended,
            Ok(_) => {}
            Err(error) => {
                self.input = Input::Failed(error.kind());
                self.give_up_sending();
            }
        }
        Poll::Ready(())
    }

    fn decode(&mut self, lease: &mut Lease, mut unread: Range<usize>) {
        loop {
            match self.codec.decode(&mut lease.bytes, &mut unread) {
                Ok(Some(Event::Data(piece))) => {
                    self.session.count_received(piece.len());
                    if let Some(tap) = &mut self.tap {
                        tap.client_sent(
                            &lease.bytes[piece.clone()],
                            self.codec.is_between_frames(),
                        );
                    }
                    lease.push(piece);
                }
                Ok(Some(Event::Ping(payload))) if self.put_pong(&payload) => {}
                Ok(Some(Event::Ping(_))) => {
                    return self.input = Input::Violated(Violation::PingFlood);
                }
                Ok(Some(Event::Pong)) => {}
                // Nothing that follows a close frame counts (RFC 6455, section 5.5.1).
                Ok(Some(Event::Close(frame))) => return self.input = Input::Closed(frame),
                Ok(None) => return,
                Err(violation) => return self.input = Input::Violated(violation),
            }
        }
    }

    /// Has a ping answered, behind those before it (B11). False: too many answers wait already.
    fn put_pong(&mut self, payload: &ControlPayload) -> bool {
        if self.close != Close::No {
            return true;
        }
        let pong = self.codec.pong(payload);
        let has_room = self.control.len() + pong.len() <= PONGS;
        if has_room {
            self.control.extend_from_slice(&pong);
            self.ponged += pong.len() as u64;
        }
        has_room
    }

    /// Where in a buffer the payload of the next frame must begin.
    pub(crate) fn headroom(&self, lease: &Lease) -> usize {
        self.codec.headroom(lease.size())
    }

    /// How many bytes of control frames may wait, here or in TLS, which takes some that the kernel has not.
    fn waiting_control(&self) -> usize {
        let pongs = usize::try_from(self.ponged - self.pongs_sent).unwrap_or(usize::MAX);
        pongs.max(self.control.len())
    }

    /// The size of the buffers that hold waiting payload and frames, ours and TLS's, bytes.
    fn kept(&self) -> usize {
        let size = |lease: &Option<Lease>| lease.as_ref().map_or(0, |lease| lease.size());
        let (payload, frame) = (size(&self.payload), size(&self.frame));
        let by_tls = self.stream.kept_by_tls(frame.max(self.waiting_control()));
        payload + frame + by_tls + self.control.capacity()
    }

    /// Counts in the memory budget our own buffers and the bytes that are under way, of which a slow peer may have taken
    /// a part since the last count.
    pub(crate) fn hold(&mut self, under_way: u64) {
        let kept = self.kept();
        self.holds_buffers = kept > 0;
        self.held.resize(kept + usize::try_from(under_way).unwrap_or(usize::MAX / 4));
    }

    /// Whether buffers of ours were among what was counted last.
    pub(crate) fn holds_buffers(&self) -> bool {
        self.holds_buffers
    }

    /// Whether memory is scarce. If that has changed, the kernel is told to keep less of what is sent to the client, or as
    /// much as usual.
    pub(crate) fn is_scarce(&mut self) -> bool {
        let is_scarce = self.held.budget().is_tight();
        self.limit_unsent(is_scarce);
        is_scarce
    }

    /// Has the kernel keep less of what is sent to the client, if memory is scarce, or as much as usual.
    pub(crate) fn limit_unsent(&mut self, is_scarce: bool) {
        if std::mem::replace(&mut self.has_unsent_limit, is_scarce) != is_scarce {
            self.stream.leg().limit_unsent(is_scarce);
        }
    }

    /// Whether the framing has a close frame, by which the client can be told of the end while its own bytes still come.
    pub(crate) fn has_close(&self) -> bool {
        self.codec.has_close()
    }

    /// Takes `length` payload bytes that were read to [`headroom`](Self::headroom) of `lease` as the next frame. The
    /// frame before it must be sent.
    pub(crate) fn put_frame(&mut self, mut lease: Lease, length: usize) {
        debug_assert!(self.frame.is_none() && !self.is_closing());
        let start = self.headroom(&lease);
        if let Some(tap) = &mut self.tap {
            tap.target_sent(&lease.bytes[start..start + length]);
        }
        let frame = self.codec.encode(&mut lease.bytes, start..start + length);
        lease.push(frame);
        self.session.count_sent(length);
        self.frame = Some(lease);
    }

    /// Sends all there is to send: the frame, then control frames, the close frame last. Ready:
    /// nothing is left. A connection that fails here takes nothing more, but what the client sent
    /// before can still be read from it.
    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if ready!(self.poll_send_all(cx)).is_err() {
            self.give_up_sending();
        }
        Poll::Ready(())
    }

    fn poll_send_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(frame) = &mut self.frame {
            ready!(match &self.tap {
                None => frame.poll_write(cx, &mut self.stream),
                Some(tap) => tap.poll_write(To::Client, frame, cx, &mut self.stream),
            })?;
            self.frame = None;
        }
        if let Close::Wanted(frame) = &self.close {
            self.control.extend_from_slice(&self.codec.close(frame.as_ref()));
            self.close = Close::Done;
        }
        while !self.control.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.control))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => drop(self.control.drain(..written)),
            }
        }
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.control = Vec::new();
        self.pongs_sent = self.ponged;
        Poll::Ready(Ok(()))
    }

    /// Serves a client that has no target: answers its pings and its close, and keeps its payload, as much of it as a buffer
    /// takes. Ready when the session is to end, or when the client's input has ended and has left nothing for a target.
    pub(crate) fn poll_hold(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let turn_over = self.read + TURN;
        loop {
            if self.answer_calls(cx) {
                return Poll::Ready(());
            }
            self.answer_input();
            // Not waited for: pongs that cannot be sent yet have room.
            let _ = self.poll_send(cx);
            self.account();
            if !matches!(self.input, Input::Open) {
                return if self.payload.is_none() { Poll::Ready(()) } else { Poll::Pending };
            }
            ready!(self.poll_receive(cx));
            if self.read >= turn_over {
                // The other tasks that are ready come first.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }

    /// Counts in the memory budget what is kept for a client that has no target: its payload, and pongs that it has not
    /// taken.
    fn account(&mut self) {
        if self.kept() > 0 || self.ponged > 0 || !self.held.is_none() {
            self.hold(self.under_way());
        }
    }

    /// Sends what is left and shuts our side down.
    pub(crate) fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.poll_send(cx));
        if !self.is_shut {
            // An error here is the client's end, which is what the drain waits for.
            let _ = ready!(Pin::new(&mut self.stream).poll_shutdown(cx));
            self.is_shut = true;
        }
        Poll::Ready(())
    }

    /// Reads once, and throws the bytes away.
    pub(crate) fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<Discarded> {
        poll_discard(&mut self.stream, cx)
    }

    /// Ends a session that has no target.
    pub(crate) async fn farewell(&mut self) {
        let finish_and_drain = async {
            poll_fn(|cx| self.poll_finish(cx)).await;
            while poll_fn(|cx| self.poll_discard(cx)).await == Discarded::Bytes {
                yield_now().await;
            }
        };
        let _ = timeout(DRAIN, finish_and_drain).await;
    }

    fn give_up_sending(&mut self) {
        self.frame = None;
        self.control = Vec::new();
        self.pongs_sent = self.ponged;
        self.close = Close::Impossible;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::*;
    use crate::book::Book;
    use crate::destination::Address;
    use crate::net::Socket;
    use crate::peer::Peer;
    use crate::stream::tests::encrypted;
    use crate::ws::{Draft, Framing};

    fn client(socket: UnixStream, framing: Framing) -> Client {
        client_by(Stream::new(Socket::Unix(socket)), framing)
    }

    fn client_by(stream: Stream, framing: Framing) -> Client {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1)).into();
        let peer = Arc::new(Peer::new(address));
        let destination = Address { host: "localhost".into(), port: 9 };
        let session =
            Book::new(1, true).begin(peer, Arc::new(destination.into()), None, None).unwrap();
        Client::new(stream, Codec::new(framing), None, session)
    }

    #[tokio::test]
    async fn l5_what_tls_has_of_a_frame_that_is_not_taken_counts() {
        let (ours, mut theirs) = encrypted().await;
        let mut client = client_by(ours, Framing::Binary);
        let lease = Lease::take();
        let (size, length) = (lease.size(), 40_000);
        client.put_frame(lease, length);
        poll_fn(|cx| {
            assert!(client.poll_send(cx).is_pending(), "the kernel has it all");
            Poll::Ready(())
        })
        .await;
        client.hold(0);
        assert_eq!(client.held.budget().used(), size + 64 * 1024, "our buffer, and that of TLS");
        let mut taken = vec![0; length];
        let sent = poll_fn(|cx| client.poll_send(cx));
        tokio::join!(sent, theirs.read_exact(&mut taken)).1.unwrap();
        client.hold(0);
        assert_eq!(client.held.budget().used(), 0);
    }

    #[tokio::test]
    async fn l5_what_tls_has_of_pongs_that_are_not_taken_counts() {
        let (ours, theirs) = encrypted().await;
        let mut client = client_by(ours, Framing::Binary);
        let asked = ControlPayload::new([0; 125].into());
        let pong = client.codec.pong(&asked).len();
        poll_fn(|cx| {
            while client.poll_send(cx).is_ready() {
                assert!(client.put_pong(&asked));
            }
            // The kernel is full, and TLS is not.
            for _ in 0..SMALL_SIZE / pong {
                assert!(client.put_pong(&asked) && client.poll_send(cx).is_pending());
            }
            Poll::Ready(())
        })
        .await;
        assert_eq!(client.control.len(), 0, "TLS has them all");
        client.hold(0);
        assert!(client.held.budget().used() >= SMALL_SIZE);
        assert!(client.waiting_control() >= SMALL_SIZE, "no more pings are read");
        drop(theirs);
        poll_fn(|cx| client.poll_send(cx)).await;
        client.hold(0);
        assert_eq!(client.held.budget().used(), 0);
    }

    #[tokio::test]
    async fn b13_a_session_that_has_ended_is_not_told_to_end_because_it_is_quiet() {
        for (input, is_told) in [(Input::Open, true), (Input::Closed(None), false)] {
            let (ours, _theirs) = UnixStream::pair().unwrap();
            let mut client = client(ours, Framing::Binary);
            client.input = input;
            client.session.entry.call(Call::TooQuiet);
            poll_fn(|cx| {
                assert!(client.answer_calls(cx));
                Poll::Ready(())
            })
            .await;
            assert_eq!(client.told_to_end().is_some(), is_told);
        }
    }

    #[tokio::test]
    async fn b12_a_silent_client_that_takes_what_is_under_way_is_there() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut client = client(ours, Framing::Binary);
        let late = Duration::from_millis(100);
        let mut piece = vec![0; 1 << 16];
        while timeout(late, client.stream.write(&piece)).await.is_ok() {}
        for _ in 0..2 {
            assert!(!client.takes_nothing(), "it has had no time, or has taken some");
            assert!(client.takes_nothing());
            theirs.read_exact(&mut piece).await.unwrap();
        }
        while timeout(late, theirs.read(&mut piece)).await.is_ok() {}
        assert!(client.takes_nothing(), "all is taken, its ping too");
    }

    #[tokio::test]
    async fn b12_a_silent_client_of_an_old_draft_is_believed_to_be_there() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        assert!(!client(ours, Framing::Hixie(Draft::Hixie76)).takes_nothing());
    }
}
