//! One reading of all sockets, for many questions about the connections from one local port, where the kernel does not
//! answer each question by itself. A reading takes longer the more sockets there are: so it is made on a thread that
//! may block, and serves all tasks that ask meanwhile. Knows nothing of what the answers are for.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{self, Arc, PoisonError};
use std::time::Instant;

use tokio::sync::Mutex;

use super::{Socket, TCP_LISTEN, canonical, proc_net};
use crate::blocking;

/// The sockets at one time.
#[derive(Debug)]
pub(crate) struct Reading {
    began: Instant,
    /// The far ends of our connections, by both addresses.
    ends: HashMap<(SocketAddr, SocketAddr), Socket>,
    /// How many connections wait to be accepted, by the port.
    waiting: HashMap<u16, u32>,
}

/// The last reading, and who makes the next.
#[derive(Debug)]
pub(crate) struct Readings {
    /// Our port; the ends of other connections are not kept.
    port: u16,
    /// The last complete reading. The lock is not held while the next one is made.
    last: sync::Mutex<Option<Arc<Reading>>>,
    /// Held by the task that makes the next reading.
    turn: Mutex<()>,
}

impl Reading {
    fn of(port: u16) -> io::Result<Self> {
        let began = Instant::now();
        let (mut ends, mut waiting) = (HashMap::new(), HashMap::new());
        for socket in proc_net::sockets()? {
            if socket.state == TCP_LISTEN {
                *waiting.entry(socket.local.port()).or_default() += socket.unread;
            } else if socket.peer.port() == port {
                ends.insert((socket.local, socket.peer), socket);
            }
        }
        Ok(Self { began, ends, waiting })
    }

    /// Whether the reading was begun after this time.
    pub(crate) fn is_after(&self, time: Instant) -> bool {
        self.began > time
    }

    /// As [`super::accepted`].
    pub(crate) fn accepted(&self, target: SocketAddr, ours: SocketAddr) -> io::Result<bool> {
        let found = self.connection(target, ours).map(Socket::is_accepted);
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// As [`super::can_be_met`].
    pub(crate) fn can_be_met(&self, target: SocketAddr, ours: SocketAddr) -> bool {
        self.connection(target, ours).is_some_and(Socket::can_be_met)
    }

    /// As [`super::is_anybody_waiting`].
    pub(crate) fn is_anybody_waiting(&self, port: u16) -> bool {
        self.waiting.get(&port).is_some_and(|waiting| *waiting > 0)
    }

    fn connection(&self, target: SocketAddr, ours: SocketAddr) -> Option<&Socket> {
        self.ends.get(&(canonical(target), canonical(ours)))
    }
}

impl Readings {
    pub(crate) fn of(port: u16) -> Self {
        Self { port, last: sync::Mutex::default(), turn: Mutex::default() }
    }

    /// The last reading, if there is one.
    pub(crate) fn last(&self) -> Option<Arc<Reading>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A reading that was begun after this time; all tasks that wait for one get the same.
    pub(crate) async fn after(&self, time: Instant) -> io::Result<Arc<Reading>> {
        let _turn = self.turn.lock().await;
        if let Some(reading) = self.last().filter(|reading| reading.is_after(time)) {
            return Ok(reading);
        }
        let port = self.port;
        let reading = Arc::new(blocking::run(move || Reading::of(port)).await??);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&reading));
        Ok(reading)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn f3_one_reading_answers_for_all_who_asked_before_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap();
        let stream = TcpStream::connect(target).unwrap();
        let ours = stream.local_addr().unwrap();
        let readings = Readings::of(ours.port());
        assert!(readings.last().is_none());
        let began = Instant::now();
        let (one, other) = tokio::join!(readings.after(began), readings.after(began));
        let (one, other) = (one.unwrap(), other.unwrap());
        assert!(Arc::ptr_eq(&one, &other));
        assert!(one.is_anybody_waiting(target.port()) && one.can_be_met(target, ours));
        assert!(!one.accepted(target, ours).unwrap());
        let _accepted = listener.accept().unwrap();
        assert!(Arc::ptr_eq(&one, &readings.after(began).await.unwrap()), "it is good for that");
        let next = readings.after(Instant::now()).await.unwrap();
        assert!(!next.is_anybody_waiting(target.port()) && next.can_be_met(target, ours));
        assert!(next.accepted(target, ours).unwrap());
        let nobody = SocketAddr::new(ours.ip(), 1);
        assert!(!next.can_be_met(target, nobody));
        assert_eq!(next.accepted(target, nobody).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
