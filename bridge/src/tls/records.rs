//! A connection below TLS, whose records stay with the kernel until they are whole, for as long as its client has no session:
//! rustls would keep room for 18 KiB of one that never is (L5). Knows where records end (RFC 8446, section 5.1); what is in
//! them is rustls's to say.

use std::io;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::failure::HandshakeTooLong;
use crate::net::{SEEN_MAX, Socket};

/// How long a record's header is.
const HEADER: usize = 5;

/// The longest that rustls reads (RFC 5246, section 6.2.3), without its header.
const LONGEST: usize = (1 << 14) + (1 << 11);

/// How much a client says of a handshake in answer to us, where it has no certificates to say: at most its hello again. rustls
/// keeps it until it is understood.
pub(super) const FLIGHT: usize = 6 * 1024;

/// How much, where it has.
pub(super) const CERTIFICATES: usize = SEEN_MAX;

/// A connection below TLS.
#[derive(Debug)]
pub(crate) struct Records {
    io: Socket,
    pace: Pace,
}

/// What rustls is given to read.
#[derive(Debug, Clone, Copy)]
enum Pace {
    /// Whatever is there.
    AtWill,
    /// Whole records.
    Whole {
        /// How many bytes of such are there.
        there: usize,
        /// In a handshake: how many may still be read before we say something, and how many after that.
        handshake: Option<(usize, usize)>,
    },
}

impl Records {
    /// As rustls asks for it.
    pub(crate) fn at_will(io: Socket) -> Self {
        Self { io, pace: Pace::AtWill }
    }

    /// Whole records: of a handshake at first, whose first message is there, and in which so many bytes are an answer to us
    /// at most.
    pub(super) fn whole(io: Socket, answer: usize) -> Self {
        if io.is_unix() {
            // There, each write of a byte takes a kilobyte of room: it might never be whole.
            return Self::at_will(io);
        }
        Self { io, pace: Pace::Whole { there: 0, handshake: Some((SEEN_MAX, answer)) } }
    }

    /// The handshake is over.
    pub(super) fn is_shaken(&mut self) {
        if let Pace::Whole { handshake, .. } = &mut self.pace {
            *handshake = None;
        }
    }

    /// It has a session now, in which each look would cost time. What is there of a record is read when more of it comes.
    pub(crate) fn has_session(&mut self) {
        self.pace = Pace::AtWill;
    }

    /// Something is said to the client, who may say something again.
    fn answers(&mut self) {
        if let Pace::Whole { handshake: Some((left, answer)), .. } = &mut self.pace {
            *left = *answer;
        }
    }

    /// What is below.
    pub(super) fn into_inner(self) -> Socket {
        self.io
    }
}

/// How many bytes of records there are that are whole, or too long to become so; none if that is still to be seen.
pub(crate) fn whole(bytes: &[u8]) -> Option<usize> {
    let mut end = 0;
    while let Some(&[_, _, _, high, low]) = bytes[end..].first_chunk::<HEADER>() {
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
        let Self { io, pace } = &mut *self;
        if let Pace::Whole { there: there @ 0, .. } = pace {
            let seen = io.poll_peek(cx, |seen, is_last| match whole(seen) {
                Some(length) => Some(Some(length)),
                None => is_last.then_some(None),
            });
            match ready!(seen)? {
                Some(length) => *there = length,
                // What an end has left is no record.
                None => *pace = Pace::AtWill,
            }
        }
        let Pace::Whole { there, handshake } = pace else {
            return Pin::new(io).poll_read(cx, room);
        };
        let left = handshake.as_mut().map(|(left, _)| left);
        let most = (*there).min(left.as_ref().map_or(usize::MAX, |left| **left));
        if most == 0 {
            return Poll::Ready(Err(io::Error::other(HandshakeTooLong)));
        }
        let mut part = ReadBuf::new(room.initialize_unfilled_to(most.min(room.remaining())));
        ready!(Pin::new(io).poll_read(cx, &mut part))?;
        let length = part.filled().len();
        room.advance(length);
        *there -= length;
        if let Some(left) = left {
            *left -= length;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Records {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.answers();
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.answers();
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl Deref for Records {
    type Target = Socket;

    fn deref(&self) -> &Socket {
        &self.io
    }
}

impl DerefMut for Records {
    fn deref_mut(&mut self) -> &mut Socket {
        &mut self.io
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::{sleep, timeout};

    use super::*;

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
        assert!(longest.len() <= crate::net::SEEN_MAX);
        let [high, low] = u16::try_from(LONGEST + 1).unwrap().to_be_bytes();
        let too_long = [0x17, 3, 3, high, low];
        assert_eq!(whole(&too_long), Some(HEADER));
        assert_eq!(whole(&[&record(9)[..], &too_long].concat()), Some(14 + HEADER));
    }

    async fn pair() -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let theirs = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (listener.accept().await.unwrap().0.into(), theirs)
    }

    #[tokio::test]
    async fn l5_what_is_not_whole_stays_with_the_kernel() {
        let (ours, mut theirs) = pair().await;
        let mut ours = Records::whole(ours, FLIGHT);
        let longest = record(u16::try_from(LONGEST).unwrap());
        let (last, begun) = longest.split_last().unwrap();
        let mut room = vec![0; longest.len()];
        theirs.write_all(begun).await.unwrap();
        let none = timeout(Duration::from_millis(100), ours.read(&mut room)).await;
        assert!(none.is_err(), "{none:?}");
        // The next one has begun, too, and is not read.
        theirs.write_all(&[*last, 0x17, 3]).await.unwrap();
        let read = timeout(Duration::from_secs(20), ours.read_exact(&mut room)).await;
        read.expect("in time").unwrap();
        assert_eq!(room, longest);
        let none = timeout(Duration::from_millis(100), ours.read(&mut room)).await;
        assert!(none.is_err(), "{none:?}");
        ours.has_session();
        theirs.write_all(&[3]).await.unwrap();
        let read = timeout(Duration::from_secs(20), ours.read_exact(&mut room[..3])).await;
        read.expect("in time").unwrap();
        assert_eq!(room[..3], [0x17, 3, 3]);
    }

    /// However it is cut, and whatever an end cuts off.
    #[tokio::test]
    async fn l5_all_arrives_in_its_order() {
        let all = [record(20), record(0), record(5), record(300)[..50].to_vec()].concat();
        for cut in [1, 3, 7, 24, 25, 26, all.len()] {
            let (ours, mut theirs) = pair().await;
            let mut ours = Records::whole(ours, FLIGHT);
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

    #[tokio::test]
    async fn l5_what_a_client_says_of_a_handshake_has_its_end() {
        for answer in [FLIGHT, CERTIFICATES] {
            let (ours, mut theirs) = pair().await;
            let mut ours = Records::whole(ours, answer);
            let piece = record(4_000);
            let mut room = [0; 4_005];
            for most in [SEEN_MAX, answer, answer] {
                for _ in 0..most / piece.len() {
                    theirs.write_all(&piece).await.unwrap();
                    ours.read_exact(&mut room).await.unwrap();
                }
                ours.write_all(b"an answer").await.unwrap();
            }
            for _ in 0..=answer / piece.len() {
                theirs.write_all(&piece).await.unwrap();
            }
            let mut left = answer;
            let error = loop {
                match ours.read(&mut room).await {
                    Ok(length) => left -= length,
                    Err(error) => break error,
                }
            };
            assert!(error.get_ref().unwrap().is::<HandshakeTooLong>(), "{error}");
            assert_eq!(left, 0);
            ours.is_shaken();
            ours.read_exact(&mut room[..piece.len() - answer % piece.len()]).await.unwrap();
        }
    }
}
