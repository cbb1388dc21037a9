//! A connection below TLS. As long as its client has no session, the bytes that rustls has taken without a result yet are counted
//! and limited (L5). TLS records stay in the kernel's buffer until they are whole, where the kernel has room for that: rustls
//! would keep 18 KiB for a record that never becomes whole. Knows where records end (RFC 8446, section 5.1) and whether a
//! handshake is under way; must not know what is in the records, which is rustls's task.

use std::io;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::failure::TooMuch;
use crate::arrival::Arrival;
use crate::net::Socket;

/// How long a record's header is, bytes.
const HEADER: usize = 5;

/// The longest record that rustls reads (RFC 5246, section 6.2.3), without its header, bytes.
const LONGEST: usize = (1 << 14) + (1 << 11);

/// How much rustls reads at a time in a handshake, bytes.
const PIECE: usize = 4096;

/// How many records rustls is given at a time: it keeps some memory for each until the content is read.
const MANY: usize = 16;

/// How many bytes rustls may have taken without a result when it asks for more: parts of a message that it joins.
const UNPROCESSED_MAX: usize = 2 * 1024;

/// The same in a handshake, where a ClientHello may be in many records, and a client may send long certificates, or early data,
/// which is not read.
const HANDSHAKE: usize = 32 * 1024;

/// How many of these bytes a client may send in a handshake before the handshake counts as a
/// [long head](crate::lobby::Guest::begins_long_head), of which only a few are allowed at a time.
const LONG: usize = 5 * 1024;

/// A connection below TLS.
#[derive(Debug)]
pub(crate) struct Records {
    /// `None` only after [`Records::into_inner`].
    io: Option<Socket>,
    pace: ReadLimit,
    /// The TLS handshake, until it is over.
    handshake: Option<Handshake>,
}

/// A handshake under way.
#[derive(Debug)]
struct Handshake {
    arrival: Arc<Arrival>,
    is_long: bool,
}

impl Handshake {
    /// Notes whether many bytes of the handshake have come without a result, and more are waited for.
    fn set_long(&mut self, is_long: bool) {
        if std::mem::replace(&mut self.is_long, is_long) == is_long {
            return;
        }
        let guest = &self.arrival.guest;
        if is_long { guest.begins_long_head() } else { guest.ends_long_head() }
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.set_long(false);
    }
}

/// What rustls is given to read.
#[derive(Debug, Clone, Copy)]
enum ReadLimit {
    /// Whatever has come.
    AtWill,
    /// Only a limited number of bytes without a result; and whole records only, where the kernel has room to keep one that
    /// is not whole.
    Counted {
        is_whole: bool,
        /// How many bytes of whole records are in the kernel's buffer and may be read.
        there: usize,
        /// How many bytes rustls has taken since they last had a result: an answer of ours, or data from the client.
        unprocessed: usize,
        /// The limit of `unprocessed`.
        most: usize,
        /// rustls has asked for more although `unprocessed` was above its limit.
        is_too_much: bool,
    },
}

impl Records {
    /// A connection of which rustls reads whatever has come.
    pub(crate) fn at_will(io: Socket) -> Self {
        Self { io: Some(io), pace: ReadLimit::AtWill, handshake: None }
    }

    /// A client's connection whose bytes are counted, and whose records are read whole where that is possible; `arrival`'s
    /// handshake begins.
    pub(super) fn counted(io: Socket, arrival: Arc<Arrival>) -> Self {
        // With little room in the kernel a record might never become whole.
        let is_whole = !io.has_little_room();
        let pace = ReadLimit::Counted {
            is_whole,
            there: 0,
            unprocessed: 0,
            most: HANDSHAKE,
            is_too_much: false,
        };
        let handshake = Some(Handshake { arrival, is_long: false });
        Self { io: Some(io), pace, handshake }
    }

    /// The handshake is over.
    pub(super) fn is_shaken(&mut self) {
        self.handshake = None;
        if let ReadLimit::Counted { is_whole, most, .. } = &mut self.pace {
            // Where records are read in parts, one that is not whole has no result yet, either.
            *most = if *is_whole { UNPROCESSED_MAX } else { HEADER + LONGEST + UNPROCESSED_MAX };
        }
        self.is_heard();
    }

    /// The connection has a session now, and is counted no more: each look into the kernel's buffer would cost time. A part
    /// of a record that is in that buffer is read when more of the record comes.
    pub(crate) fn has_session(&mut self) {
        self.pace = ReadLimit::AtWill;
    }

    /// What rustls has taken has had a result: an answer of ours, or data from the client.
    pub(crate) fn is_heard(&mut self) {
        if let ReadLimit::Counted { there, unprocessed, is_too_much, .. } = &mut self.pace {
            // The last piece that rustls has taken may end within a record. The beginning of that record has had no result.
            let is_cut = *there > 0 && self.handshake.is_some();
            *unprocessed = if is_cut { PIECE.min(*unprocessed) } else { 0 };
            *is_too_much = false;
        }
        if let Some(handshake) = &mut self.handshake {
            handshake.set_long(false);
        }
    }

    /// More bytes are waited for, while `unprocessed` bytes have had no result yet.
    fn waits(&mut self, unprocessed: usize) {
        if unprocessed > LONG
            && let Some(handshake) = &mut self.handshake
        {
            handshake.set_long(true);
        }
    }

    /// The socket below.
    pub(super) fn into_inner(mut self) -> Socket {
        self.io.take().expect("only this takes it")
    }

    fn io(&mut self) -> Pin<&mut Socket> {
        Pin::new(&mut **self)
    }
}

/// The length of the whole records at the beginning of `bytes`, of [`MANY`] at most. A record that is too long counts with its
/// header only. `None`: the first record is not whole yet.
pub(crate) fn whole(bytes: &[u8]) -> Option<usize> {
    let mut end = 0;
    for _ in 0..MANY {
        let Some(&[_, _, _, high, low]) = bytes[end..].first_chunk::<HEADER>() else { break };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length > LONGEST {
            // rustls refuses it by its header.
            return Some(end + HEADER);
        }
        if bytes.len() - end < HEADER + length {
            break;
        }
        end += HEADER + length;
    }
    (end > 0).then_some(end)
}

impl AsyncRead for Records {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut pace = self.pace;
        if let ReadLimit::Counted { is_whole, there: there @ 0, unprocessed, most, is_too_much } =
            &mut pace
        {
            if *unprocessed > *most {
                if *is_too_much {
                    return Poll::Ready(Err(io::Error::other(TooMuch)));
                }
                // What rustls has taken may complete the handshake: then `is_shaken` is called. Otherwise rustls asks
                // again, and gets the error.
                *is_too_much = true;
                self.pace = pace;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if *is_whole {
                let seen = self.poll_peek(cx, |seen, is_last| match whole(seen) {
                    Some(length) => Some(Some(length)),
                    None => is_last.then_some(None),
                });
                if seen.is_pending() {
                    self.waits(*unprocessed);
                }
                match ready!(seen)? {
                    Some(length) => *there = length,
                    // The client has ended its stream, perhaps within a record: there is no whole record to wait for.
                    None => pace = ReadLimit::AtWill,
                }
            }
        }
        let ReadLimit::Counted { is_whole, there, unprocessed, .. } = &mut pace else {
            self.pace = pace;
            return self.io().poll_read(cx, room);
        };
        let most = if *is_whole { *there } else { usize::MAX };
        let mut part = ReadBuf::new(room.initialize_unfilled_to(most.min(room.remaining())));
        let read = self.io().poll_read(cx, &mut part);
        let length = part.filled().len();
        room.advance(length);
        *there = there.saturating_sub(length);
        *unprocessed += length;
        if read.is_pending() {
            self.waits(*unprocessed);
        }
        self.pace = pace;
        read
    }
}

impl AsyncWrite for Records {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.is_heard();
        self.io().poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.is_heard();
        self.io().poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        (**self).is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io().poll_shutdown(cx)
    }
}

impl Deref for Records {
    type Target = Socket;

    fn deref(&self) -> &Socket {
        self.io.as_ref().expect("nobody has it who has taken it")
    }
}

impl DerefMut for Records {
    fn deref_mut(&mut self) -> &mut Socket {
        self.io.as_mut().expect("nobody has it who has taken it")
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        if let (Some(io), ReadLimit::Counted { .. }) = (&self.io, self.pace) {
            // Closed with unread bytes, the connection would be reset.
            io.discard();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::arrival::Beginning;
    use crate::budget::Budget;
    use crate::lobby::Lobby;
    use crate::peer::Peer;

    /// A record of so many bytes.
    fn record(length: u16) -> Vec<u8> {
        let [high, low] = length.to_be_bytes();
        [&[0x17, 3, 3, high, low][..], &vec![7; length.into()]].concat()
    }

    #[test]
    fn l5_records_are_whole_with_their_last_byte() {
        let (first, second) = (record(300), record(0));
        let both = [&first[..], &second].concat();
        for length in 0..=both.len() {
            let expected = match length {
                0..305 => None,
                305..310 => Some(305),
                _ => Some(310),
            };
            assert_eq!(whole(&both[..length]), expected, "{length}");
        }
    }

    #[test]
    fn l5_a_record_that_is_too_long_is_not_waited_for() {
        let longest = record(u16::try_from(LONGEST).unwrap());
        assert_eq!(whole(&longest), Some(longest.len()));
        assert_eq!(whole(&longest[..longest.len() - 1]), None);
        assert!(longest.len() <= crate::net::PEEK_MAX);
        let [high, low] = u16::try_from(LONGEST + 1).unwrap().to_be_bytes();
        let too_long = [0x17, 3, 3, high, low];
        assert_eq!(whole(&too_long), Some(HEADER));
        assert_eq!(whole(&[&record(9)[..], &too_long].concat()), Some(14 + HEADER));
        let many = record(1).repeat(MANY + 1);
        assert_eq!(whole(&many), Some(many.len() - 6));
    }

    async fn pair() -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let theirs = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (listener.accept().await.unwrap().0.into(), theirs)
    }

    #[tokio::test]
    async fn l5_what_is_not_whole_stays_with_the_kernel() {
        let (ours, mut theirs) = pair().await;
        let arrival = arrival(&ours, &theirs);
        let mut ours = Records::counted(ours, arrival);
        let longest = record(u16::try_from(LONGEST).unwrap());
        let (last, begun) = longest.split_last().unwrap();
        let mut room = vec![0; longest.len()];
        theirs.write_all(begun).await.unwrap();
        let none = timeout(Duration::from_millis(100), ours.read(&mut room)).await;
        assert!(none.is_err(), "{none:?}");
        // The next record has begun, too, and is not read.
        theirs.write_all(&[*last, 0x17, 3]).await.unwrap();
        let read = timeout(Duration::from_secs(20), ours.read_exact(&mut room)).await;
        read.expect("in time").unwrap();
        assert_eq!(room, longest);
        ours.is_heard();
        let none = timeout(Duration::from_millis(100), ours.read(&mut room)).await;
        assert!(none.is_err(), "{none:?}");
        ours.has_session();
        theirs.write_all(&[3]).await.unwrap();
        let read = timeout(Duration::from_secs(20), ours.read_exact(&mut room[..3])).await;
        read.expect("in time").unwrap();
        assert_eq!(room[..3], [0x17, 3, 3]);
    }

    /// However the bytes are split, and also if the stream ends within a record.
    #[tokio::test]
    async fn l5_all_arrives_in_its_order() {
        let all = [record(20), record(0), record(5), record(300)[..50].to_vec()].concat();
        for cut in [1, 3, 7, 24, 25, 26, all.len()] {
            let (ours, mut theirs) = pair().await;
            let arrival = arrival(&ours, &theirs);
            let mut ours = Records::counted(ours, arrival);
            let send = async {
                for piece in all.chunks(cut) {
                    theirs.write_all(piece).await.unwrap();
                    if cut > 1 {
                        sleep(Duration::from_millis(2)).await;
                    }
                }
                drop(theirs);
            };
            let mut read = Vec::new();
            let receive = timeout(Duration::from_secs(20), ours.read_to_end(&mut read));
            let ((), received) = tokio::join!(send, receive);
            received.expect("in time").unwrap();
            assert_eq!(read, all, "{cut}");
        }
    }

    fn arrival(io: &Socket, from: &TcpStream) -> Arc<Arrival> {
        let peer = Peer::new(from.local_addr().unwrap().into());
        let guest = Lobby::new(Budget::new(1 << 20)).enter(None);
        Arrival::new(io, &peer, &Beginning::new(), Arc::default(), guest)
    }

    async fn is_too_much(ours: &mut Records) -> bool {
        let mut room = [0; 100];
        let read = timeout(Duration::from_secs(20), ours.read(&mut room));
        let error = read.await.expect("in time").unwrap_err();
        error.get_ref().unwrap().is::<TooMuch>()
    }

    /// There is a limit for bytes without a result, in a handshake and after it. A long record that has a result does not
    /// reach it.
    #[tokio::test]
    async fn l5_rustls_does_not_join_for_long() {
        let (ours, mut theirs) = pair().await;
        let arrival = arrival(&ours, &theirs);
        let mut ours = Records::counted(ours, arrival);
        let piece = record(1_000);
        let mut room = [0; 1_005];
        for most in [HANDSHAKE, HANDSHAKE, UNPROCESSED_MAX] {
            for _ in 0..most / piece.len() {
                theirs.write_all(&piece).await.unwrap();
                ours.read_exact(&mut room).await.unwrap();
            }
            ours.write_all(b"an answer").await.unwrap();
        }
        for long in [record(16_000), record(10_000)] {
            theirs.write_all(&long).await.unwrap();
            ours.read_exact(&mut vec![0; long.len()]).await.unwrap();
            ours.is_heard();
        }
        for _ in 0..=HANDSHAKE / piece.len() {
            theirs.write_all(&piece).await.unwrap();
            ours.read_exact(&mut room).await.unwrap();
        }
        assert!(is_too_much(&mut ours).await && is_too_much(&mut ours).await);
        ours.is_shaken();
        for _ in 0..=UNPROCESSED_MAX / piece.len() {
            theirs.write_all(&piece).await.unwrap();
            ours.read_exact(&mut room).await.unwrap();
        }
        assert!(is_too_much(&mut ours).await);
    }

    /// An answer of ours is no result of a record of which rustls has only the beginning.
    #[tokio::test]
    async fn l5_what_rustls_has_of_a_record_counts_behind_an_answer() {
        let (ours, mut theirs) = pair().await;
        let arrival = arrival(&ours, &theirs);
        let mut ours = Records::counted(ours, arrival);
        let both = [record(200), record(9_000)].concat();
        theirs.write_all(&both).await.unwrap();
        ours.read_exact(&mut [0; PIECE]).await.unwrap();
        ours.write_all(b"an answer").await.unwrap();
        ours.read_exact(&mut vec![0; both.len() - PIECE]).await.unwrap();
        let none = timeout(Duration::from_millis(100), ours.read(&mut [0; 9])).await;
        assert!(none.is_err(), "{none:?}");
        assert!(both.len() - PIECE < LONG && ours.handshake.as_ref().unwrap().is_long);
    }

    /// The limit also holds where the kernel has no room for a whole record.
    #[tokio::test]
    async fn l5_what_comes_to_nothing_at_a_unix_socket_has_its_end() {
        let (ours, mut theirs) = tokio::net::UnixStream::pair().unwrap();
        let (_, from) = pair().await;
        let ours = Socket::Unix(ours);
        let arrival = arrival(&ours, &from);
        let mut ours = Records::counted(ours, arrival);
        let (piece, mut room) = (record(1_000), [0; 1_005]);
        for most in [HANDSHAKE, HEADER + LONGEST + UNPROCESSED_MAX] {
            for _ in 0..=most / piece.len() {
                // In parts, as a client may write them.
                for part in piece.chunks(600) {
                    theirs.write_all(part).await.unwrap();
                }
                ours.read_exact(&mut room).await.unwrap();
            }
            assert!(is_too_much(&mut ours).await);
            ours.is_shaken();
        }
        ours.has_session();
        theirs.write_all(&piece[..3]).await.unwrap();
        ours.read_exact(&mut room[..3]).await.unwrap();
    }

    /// A peer that has sent a part of a record sees an ordinary end, and no reset.
    #[tokio::test]
    async fn l5_what_is_not_whole_is_thrown_away_in_the_end() {
        let (ours, mut theirs) = pair().await;
        let arrival = arrival(&ours, &theirs);
        let mut ours = Records::counted(ours, arrival);
        theirs.write_all(&record(9)[..5]).await.unwrap();
        let none = timeout(Duration::from_millis(100), ours.read(&mut [0; 9])).await;
        assert!(none.is_err(), "{none:?}");
        drop(ours);
        assert_eq!(theirs.read(&mut [0; 9]).await.unwrap(), 0);
    }
}
