//! How far a connection is that has no session: whether another image of this program can begin with it anew (O2), and from
//! which bytes. Knows what was read and answered; must not know what that means.

mod saved;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::time::Instant;

use crate::lobby::Guest;
use crate::net::{SavedSocket, Socket};
use crate::pause::{Pause, Said, UnderWay};
use crate::peer::{Peer, Route, SavedPeer};
use crate::saved::Place;
pub(crate) use saved::{SavedConnection, StoodConnection};

/// Where a connection begins: at its first byte, or where another image has left it.
#[derive(Debug)]
pub(crate) struct Beginning {
    /// When it was accepted, or had its last answer, or its next head began.
    pub(crate) since: Instant,
    /// What was read already, and has no answer.
    pub(crate) head: Bytes,
    /// Whether a proxy has said whose it is.
    pub(crate) is_introduced: bool,
    /// Whether it has had an answer before.
    pub(crate) is_kept_alive: bool,
    /// From another image of this program, it begins when the bridge has gone on.
    pub(crate) is_from_another: bool,
}

/// A connection that has arrived.
#[derive(Debug)]
pub(crate) struct Arrival {
    socket: SavedSocket,
    pause: Arc<Pause>,
    /// Its place among those who have no session.
    pub(crate) guest: Guest,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    peer: SavedPeer,
    route: Route,
    is_introduced: bool,
    is_encrypted: bool,
    /// When it was accepted, had its last answer, or began its first head here, where it had one before.
    since: Instant,
    /// Answers that were given whole.
    answers: u64,
    progress: Progress,
    /// It comes through before the bridge stands still.
    under_way: Option<UnderWay>,
}

/// How far it is.
#[derive(Debug)]
enum Progress {
    /// So much was read of its first head.
    Begun(Bytes),
    /// Its last request was answered, and nothing has come since.
    Idle,
    /// In between.
    Busy,
}

impl Beginning {
    /// A new connection's.
    pub(crate) fn new() -> Self {
        let since = Instant::now();
        let head = Bytes::new();
        Self { since, head, is_introduced: false, is_kept_alive: false, is_from_another: false }
    }

    /// The same for one that has waited for its turn until now: its time begins.
    pub(crate) fn again(self) -> Self {
        Self { since: Instant::now(), ..self }
    }

    /// Whether its first byte was read already.
    pub(crate) fn is_plain(&self) -> bool {
        self.is_kept_alive || !self.head.is_empty()
    }
}

impl Arrival {
    pub(crate) fn new(
        io: &Socket,
        peer: &Peer,
        from: &Beginning,
        pause: Arc<Pause>,
        guest: Guest,
    ) -> Arc<Self> {
        let progress =
            if from.is_kept_alive { Progress::Idle } else { Progress::Begun(from.head.clone()) };
        let known = Known {
            peer: SavedPeer::of(peer),
            route: peer.route(),
            is_introduced: from.is_introduced,
            is_encrypted: false,
            since: from.since,
            answers: 0,
            progress,
            under_way: None,
        };
        Arc::new(Self { socket: io.saved(), pause, guest, known: Mutex::new(known) })
    }

    /// A proxy has said whose it is, or that it is one of many.
    pub(crate) fn introduced(&self, peer: &Peer, is_of_many: bool) {
        self.guest.is_of((!is_of_many).then(|| peer.address.client()));
        let mut known = self.known();
        (known.peer, known.is_introduced) = (SavedPeer::of(peer), true);
    }

    /// Whose it is, for the records.
    pub(crate) fn route(&self) -> Route {
        self.known().route.clone()
    }

    /// A proxy has said so, whether that client is let in or not.
    pub(crate) fn comes_from(&self, route: Route) {
        self.known().route = route;
    }

    /// It is encrypted, or is about to be.
    pub(crate) fn encrypted(&self) {
        self.known().is_encrypted = true;
        self.busy();
    }

    /// Kept alive by another image, it sends something at last.
    pub(crate) fn wakes(&self, now: Instant) {
        self.known().since = now;
    }

    /// This was read of its first head, and is not the whole of it.
    pub(crate) fn begun(&self, head: &[u8]) {
        let mut known = self.known();
        // Which cannot be begun anew.
        if !known.is_encrypted {
            known.progress = Progress::Begun(Bytes::copy_from_slice(head));
        }
    }

    /// This is its first head, to be answered.
    pub(crate) fn asks(&self, head: Bytes) {
        let mut known = self.known();
        known.progress = Progress::Begun(head);
        self.set_out(&mut known);
    }

    /// It is being answered.
    pub(crate) fn busy(&self) {
        let mut known = self.known();
        known.progress = Progress::Busy;
        self.set_out(&mut known);
    }

    /// An answer was given whole.
    pub(crate) fn answered(&self) {
        self.known().answers += 1;
    }

    /// So many requests were read, and this many bytes with them, of which the client has been sent anything or not. More bytes
    /// may have come behind the last of them. `is_flushed`: nothing waits to be sent. True: an answer is under way.
    pub(crate) fn look(
        &self,
        requests: u64,
        read: u64,
        behind: u64,
        sent: u64,
        is_flushed: bool,
    ) -> bool {
        let mut known = self.known();
        let is_first =
            matches!(&known.progress, Progress::Begun(head) if read <= head.len() as u64);
        if requests == 0 {
            if !is_first {
                known.progress = Progress::Busy;
                known.under_way = None;
            }
            false
        } else if known.answers == requests && is_flushed {
            known.progress = if behind == 0 { Progress::Idle } else { Progress::Busy };
            known.since = Instant::now();
            known.under_way = None;
            false
        } else {
            if !(is_first && requests == 1 && sent == 0) {
                known.progress = Progress::Busy;
            }
            self.set_out(&mut known);
            true
        }
    }

    /// Says how it is to be begun anew, if it can be: some say nothing, as what they are at cannot be handed over.
    pub(crate) fn stand(&self, said: &Said<StoodConnection>) -> Option<u64> {
        let known = self.known();
        let head = match &known.progress {
            _ if known.is_encrypted => None,
            Progress::Begun(head) => Some((head.to_vec(), false)),
            Progress::Idle => Some((Vec::new(), true)),
            Progress::Busy => None,
        };
        self.pause.stand(|| {
            if let Some((head, is_kept_alive)) = head {
                let saved = SavedConnection {
                    socket: self.socket,
                    peer: known.peer.clone(),
                    is_introduced: known.is_introduced,
                    head: Place::default(),
                    since: known.since.into(),
                    is_kept_alive,
                };
                said.add(StoodConnection { saved, head });
            }
        })
    }

    fn set_out(&self, known: &mut Known) {
        if known.under_way.is_none() {
            known.under_way = Some(self.pause.set_out());
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
