//! Waits until a message is whole, and leaves its bytes in the kernel's buffer until then: a connection without a
//! session that sends little or nothing costs no buffer of ours (L5). The bytes are peeked at in memory that belongs to
//! the thread and is used only during the look. Must not know what the bytes mean: the caller judges that.

use std::cell::RefCell;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd};
use std::task::{Context, Poll, ready};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};
use socket2::SockRef;
use tokio::io::Interest;

use super::socket::{PeerStatus, Socket};

/// The most bytes that can be peeked at: a request head of 16 KiB and what follows it, or the longest TLS record.
pub(crate) const PEEK_MAX: usize = 19 * 1024;

thread_local! {
    static ROOM: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// How large the kernel's receive buffer must be, so that [`PEEK_MAX`] bytes fit in. In bytes as the kernel counts them
/// (socket(7), SO_RCVBUF), which is at least twice the payload.
const ROOM_MIN: usize = 48 * 1024;

/// The peer has sent an urgent byte before it was let in. No protocol here uses urgent data.
#[derive(Debug, thiserror::Error)]
#[error("it sends urgent data")]
struct Urgent;

/// A connection whose bytes were peeked at and are still to be read. If it is dropped, those bytes are read and thrown
/// away: closed with unread bytes, the connection would be reset instead of ended. Only a peer that has sent
/// [urgent](Urgent) data is reset.
#[derive(Debug)]
pub(crate) struct Unread(Option<Socket>);

impl Unread {
    pub(crate) fn new(io: Socket) -> Self {
        Self(Some(io))
    }

    /// The connection, to be read from.
    pub(crate) fn into_inner(mut self) -> Socket {
        self.0.take().expect("only this and drop() take it")
    }
}

impl Deref for Unread {
    type Target = Socket;

    fn deref(&self) -> &Socket {
        self.0.as_ref().expect("nobody has it who has taken it")
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        if let Some(io) = self.0.take() {
            io.discard();
        }
    }
}

impl Socket {
    /// Whether a message that is not whole may find no room in the kernel's buffer, and so never become whole there. At
    /// a Unix socket each write of one byte takes a kilobyte of that buffer; and an administrator may have made the
    /// buffers of TCP small (tcp(7), `tcp_rmem`).
    pub(crate) fn has_little_room(&self) -> bool {
        self.is_unix() || SockRef::from(self).recv_buffer_size().is_ok_and(|room| room < ROOM_MIN)
    }

    /// Throws away what has come and was not read.
    pub(crate) fn discard(&self) {
        // A thread that is ending has no such memory any more.
        let _ = ROOM.try_with(|room| {
            let mut room = room.borrow_mut();
            // If another thread has peeked, the memory of this one may not have its size yet.
            room.resize(PEEK_MAX, 0);
            self.read_now(&mut room)
        });
    }

    /// Waits until `judge` returns a verdict on the first bytes, and leaves those bytes to be read. Each time more
    /// bytes come, `judge` is shown all of them, up to [`PEEK_MAX`], and told whether they are the last; then it must
    /// return a verdict. Cancel-safe. An error if `judge` needs more bytes and there is [urgent](Urgent) data.
    pub(crate) async fn peek_until<T>(
        &self,
        mut judge: impl FnMut(&[u8], bool) -> Option<T>,
    ) -> io::Result<T> {
        // Bytes that came with the connection are there before the runtime has reported them.
        if let Some(judged) = self.look(false, &mut judge)? {
            return Ok(judged);
        }
        loop {
            let is_last = self.readable().await?;
            if let Some(judged) = self.look_when_readable(is_last, &mut judge)? {
                return Ok(judged);
            }
        }
    }

    /// The same as [`peek_until`](Self::peek_until), for a task that polls the connection; but it looks at nothing
    /// before the runtime has reported bytes.
    pub(crate) fn poll_peek<T>(
        &self,
        cx: &mut Context<'_>,
        mut judge: impl FnMut(&[u8], bool) -> Option<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            ready!(match self {
                Self::Tcp(io) => io.poll_read_ready(cx),
                Self::Unix(io) => io.poll_read_ready(cx),
            })?;
            let is_last = self.peer_status(cx) != PeerStatus::Unknown;
            if let Some(judged) = self.look_when_readable(is_last, &mut judge)? {
                return Poll::Ready(Ok(judged));
            }
        }
    }

    /// Reads what is there, without waiting, and no more than there is room for.
    pub(crate) fn read_now(&self, room: &mut [u8]) -> io::Result<usize> {
        loop {
            match recv(self.as_fd().as_raw_fd(), room, MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EINTR) => {}
                taken => return Ok(taken?),
            }
        }
    }

    /// Waits for bytes or for the end of the stream. Returns whether the end is known, perhaps behind bytes.
    async fn readable(&self) -> io::Result<bool> {
        let ready = match self {
            Self::Tcp(io) => io.ready(Interest::READABLE).await,
            Self::Unix(io) => io.ready(Interest::READABLE).await,
        };
        Ok(ready?.is_read_closed())
    }

    /// Peeks at what is there. If that is not enough, the readiness is cleared, so that the runtime reports what comes
    /// after this look.
    fn look_when_readable<T>(
        &self,
        is_last: bool,
        judge: &mut impl FnMut(&[u8], bool) -> Option<T>,
    ) -> io::Result<Option<T>> {
        let look = || self.look(is_last, judge)?.ok_or(io::ErrorKind::WouldBlock.into());
        let judged = match self {
            Self::Tcp(io) => io.try_io(Interest::READABLE, look),
            Self::Unix(io) => io.try_io(Interest::READABLE, look),
        };
        match judged {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            judged => judged.map(Some),
        }
    }

    /// Whether an urgent byte has come (tcp(7), poll(2)): the bytes behind it cannot be peeked at, however many the
    /// kernel keeps.
    fn has_urgent_byte(&self) -> bool {
        let mut urgent = [PollFd::new(self.as_fd(), PollFlags::POLLPRI)];
        poll(&mut urgent, PollTimeout::ZERO).is_ok()
            && urgent[0].revents().is_some_and(|events| events.contains(PollFlags::POLLPRI))
    }

    fn look<T>(
        &self,
        is_last: bool,
        judge: &mut impl FnMut(&[u8], bool) -> Option<T>,
    ) -> io::Result<Option<T>> {
        ROOM.with_borrow_mut(|room| {
            room.resize(PEEK_MAX, 0);
            let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
            loop {
                match recv(self.as_fd().as_raw_fd(), room, flags) {
                    Ok(length) => {
                        let seen = &room[..length];
                        return match judge(seen, is_last || length == 0) {
                            None if self.has_urgent_byte() => Err(io::Error::other(Urgent)),
                            judged => Ok(judged),
                        };
                    }
                    Err(Errno::EINTR) => {}
                    Err(Errno::EAGAIN) => return Ok(None),
                    Err(error) => return Err(error.into()),
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream, UnixStream};
    use tokio::time::{sleep, timeout};

    use super::*;

    /// Two ends of a connection, of each family.
    async fn pairs() -> [(Socket, Socket); 2] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (theirs, _) = listener.accept().await.unwrap();
        let (one, other) = UnixStream::pair().unwrap();
        [(ours.into(), theirs.into()), (Socket::Unix(one), Socket::Unix(other))]
    }

    #[tokio::test]
    async fn l5_bytes_stay_with_the_kernel_until_all_are_there() {
        for (mut ours, mut theirs) in pairs().await {
            let send = async {
                for byte in b"abcd" {
                    theirs.write_all(&[*byte]).await.unwrap();
                    sleep(Duration::from_millis(5)).await;
                }
            };
            let mut looks = Vec::new();
            let wait = ours.peek_until(|seen, is_last| {
                assert!(!is_last);
                looks.push(seen.len());
                seen.ends_with(b"d").then_some(seen.len())
            });
            let ((), seen) = tokio::join!(send, wait);
            assert_eq!(seen.unwrap(), 4);
            assert!(looks.is_sorted() && looks.len() <= 5, "it waits for each: {looks:?}");
            let mut room = [0; 9];
            assert_eq!(ours.read_now(&mut room).unwrap(), 4);
            assert_eq!(ours.read_now(&mut room).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            // The runtime reports what comes afterwards.
            theirs.write_all(b"e").await.unwrap();
            let read = timeout(Duration::from_secs(20), ours.read(&mut room)).await;
            assert_eq!(read.unwrap().unwrap(), 1);
        }
    }

    /// L5: bytes behind an urgent byte would be kept by the kernel, and counted nowhere.
    #[tokio::test]
    async fn l5_nothing_is_waited_for_behind_an_urgent_byte() {
        let [(ours, mut theirs), _] = pairs().await;
        theirs.write_all(b"ab").await.unwrap();
        let send = async {
            sleep(Duration::from_millis(20)).await;
            SockRef::from(&theirs).send_out_of_band(b"!").unwrap();
        };
        let wait = ours.peek_until(|_, is_last| is_last.then_some(()));
        let (waited, ()) = tokio::join!(timeout(Duration::from_secs(20), wait), send);
        let error = waited.expect("in time").unwrap_err();
        assert!(error.get_ref().unwrap().is::<Urgent>(), "{error}");
    }

    /// L5: unread bytes are thrown away by whichever thread drops the connection: the peer sees an end and no reset.
    #[tokio::test]
    async fn l5_what_was_looked_at_is_taken_by_a_thread_that_has_looked_at_nothing() {
        for (ours, mut theirs) in pairs().await {
            theirs.write_all(b"abc").await.unwrap();
            let ours = Unread::new(ours);
            assert_eq!(ours.peek_until(|seen, _| Some(seen.len())).await.unwrap(), 3);
            let runtime = tokio::runtime::Handle::current();
            let thread = std::thread::spawn(move || {
                let _runtime = runtime.enter();
                drop(ours);
            });
            thread.join().unwrap();
            let read = timeout(Duration::from_secs(20), theirs.read(&mut [0; 9])).await.unwrap();
            assert_eq!(read.unwrap(), 0);
        }
    }

    #[tokio::test]
    async fn l5_an_end_is_seen_behind_bytes_and_without_any() {
        for (sent, ends_first) in [(&b"abc"[..], false), (b"abc", true), (b"", false), (b"", true)]
        {
            for (ours, mut theirs) in pairs().await {
                let end = async {
                    theirs.write_all(sent).await.unwrap();
                    if !ends_first {
                        sleep(Duration::from_millis(20)).await;
                    }
                    drop(theirs);
                };
                let wait = async {
                    if ends_first {
                        sleep(Duration::from_millis(20)).await;
                    }
                    let mut looks = 0;
                    let seen = ours.peek_until(|seen, is_last| {
                        looks += 1;
                        is_last.then(|| seen.to_vec())
                    });
                    let seen = timeout(Duration::from_secs(20), seen).await.unwrap().unwrap();
                    assert_eq!(seen, sent);
                    assert!(looks < 5, "{looks}");
                };
                tokio::join!(end, wait);
            }
        }
    }
}
