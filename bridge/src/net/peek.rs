//! Waiting for something that is whole, and leaving it with the kernel until it is: whoever has no session yet, and says
//! little or nothing, then costs no buffer of ours (L5). The memory that is looked at is the thread's, for as long as the look
//! takes.

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

/// How much can be looked at: a head of 16 KiB and what is behind it, or the longest record of TLS.
pub(crate) const SEEN_MAX: usize = 19 * 1024;

thread_local! {
    static ROOM: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// How much room the kernel must have for what comes, so that as much as can be looked at can be waited for; bytes as it counts
/// them (socket(7), SO_RCVBUF), which is twice what comes in or more.
const ROOM_MIN: usize = 48 * 1024;

/// A peer has sent an urgent byte before it was let in, as no protocol of ours knows any.
#[derive(Debug, thiserror::Error)]
#[error("it sends urgent data")]
struct Urgent;

/// A connection whose bytes were looked at and are still to be read. If nobody does, they are thrown away: closed with
/// unread bytes, it would be reset, and not ended. Only who has sent [urgent](Urgent) ones is reset.
#[derive(Debug)]
pub(crate) struct Unread(Option<Socket>);

impl Unread {
    pub(crate) fn new(io: Socket) -> Self {
        Self(Some(io))
    }

    /// To be read.
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
    /// Whether what is not whole might have no room in the kernel, and so never be whole there. At a Unix socket each write of a
    /// byte takes a kilobyte of room; and an administrator may have made that of TCP small (tcp(7), `tcp_rmem`).
    pub(crate) fn has_little_room(&self) -> bool {
        self.is_unix() || SockRef::from(self).recv_buffer_size().is_ok_and(|room| room < ROOM_MIN)
    }

    /// Throws away what has come and was not read.
    pub(crate) fn discard(&self) {
        // A thread that is ending has no room any more.
        let _ = ROOM.try_with(|room| {
            let mut room = room.borrow_mut();
            // It may be another thread that has looked.
            room.resize(SEEN_MAX, 0);
            self.read_now(&mut room)
        });
    }

    /// Waits until `judge` can say what the first bytes are, and leaves them to be read. It is shown all that there are, up to
    /// [`SEEN_MAX`], each time there are more, and whether these are the last; then it must judge. Cancel-safe. An error, where
    /// more of them is [urgent](Urgent).
    pub(crate) async fn peek_until<T>(
        &self,
        mut judge: impl FnMut(&[u8], bool) -> Option<T>,
    ) -> io::Result<T> {
        // What came with the connection is there before the runtime has heard of it.
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

    /// The same for whoever reads the connection, to be polled, but that nothing is looked at before the runtime has heard of
    /// it.
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

    /// Waits until there are bytes, or there is an end; whether that is behind them.
    async fn readable(&self) -> io::Result<bool> {
        let ready = match self {
            Self::Tcp(io) => io.ready(Interest::READABLE).await,
            Self::Unix(io) => io.ready(Interest::READABLE).await,
        };
        Ok(ready?.is_read_closed())
    }

    /// Looks at what is there. Whatever comes after this look is heard of.
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

    /// Whether an urgent byte has come (tcp(7), poll(2)): what is behind it is not seen, however much the kernel keeps.
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
            room.resize(SEEN_MAX, 0);
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
            // The runtime hears of what comes afterwards.
            theirs.write_all(b"e").await.unwrap();
            let read = timeout(Duration::from_secs(20), ours.read(&mut room)).await;
            assert_eq!(read.unwrap().unwrap(), 1);
        }
    }

    /// L5: what is behind it would be kept by the kernel, and counted by nobody.
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

    /// L5: what nobody reads is taken from the kernel by whichever thread drops it: the peer sees an end and no reset.
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
