//! The progress of a connection that has no session: whether the new binary can begin it anew after a hand-over (O2),
//! and with which bytes. Knows what was read and answered; must not know what the bytes mean.

mod saved;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::time::Instant;

use crate::lobby::Guest;
use crate::net::{SavedSocket, Socket};
use crate::pause::{Pause, PauseReports, UnderWay};
use crate::peer::{Peer, Route, SavedPeer};
use crate::saved::Place;
pub(crate) use saved::{SavedConnection, StoodConnection};

/// Where a connection begins: at its first byte, or where the old binary has left it.
#[derive(Debug)]
pub(crate) struct Beginning {
    /// When it was accepted, or had its last answer, or its next head began.
    pub(crate) since: Instant,
    /// The bytes that were read already and have no answer.
    pub(crate) head: Bytes,
    /// Whether the PROXY header of a trusted proxy was read.
    pub(crate) is_introduced: bool,
    /// Whether it has had an answer before.
    pub(crate) is_kept_alive: bool,
    /// Whether it comes from the old binary. Then its task begins when the bridge may go on.
    pub(crate) is_from_another: bool,
}

/// A connection that has no session, as its task and the hand-over know it.
#[derive(Debug)]
pub(crate) struct Arrival {
    socket: SavedSocket,
    pause: Arc<Pause>,
    /// Its entry in the lobby, the table of all connections that have no session.
    pub(crate) guest: Guest,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    peer: SavedPeer,
    route: Route,
    is_introduced: bool,
    is_encrypted: bool,
    /// When the connection was accepted, had its last answer, or, if the old binary has answered it before, began its
    /// first head here.
    since: Instant,
    /// How many answers were given whole.
    answers: u64,
    progress: Progress,
    /// Held while a request is being answered: the bridge waits for that before it stands still.
    under_way: Option<UnderWay>,
}

/// What the new binary needs to begin the connection anew.
#[derive(Debug)]
enum Progress {
    /// These bytes of its first head were read, and nothing was answered.
    Begun(Bytes),
    /// Its last request was answered, and nothing has come since.
    Idle,
    /// Anything else: it cannot be begun anew.
    Busy,
}

impl Beginning {
    /// The beginning of a new connection.
    pub(crate) fn new() -> Self {
        let since = Instant::now();
        let head = Bytes::new();
        Self { since, head, is_introduced: false, is_kept_alive: false, is_from_another: false }
    }

    /// The same for a connection that has waited for room until now: its time begins now.
    pub(crate) fn again(self) -> Self {
        Self { since: Instant::now(), ..self }
    }

    /// Whether its first byte was read already, and the connection is unencrypted.
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

    /// The PROXY header of a trusted proxy was read: the connection is `peer`'s. `is_of_many`: it may be any of many clients'.
    pub(crate) fn introduced(&self, peer: &Peer, is_of_many: bool) {
        self.guest.is_of((!is_of_many).then(|| peer.address.client()));
        let mut known = self.known();
        (known.peer, known.is_introduced) = (SavedPeer::of(peer), true);
    }

    /// Its client's address and proxy, for the log records.
    pub(crate) fn route(&self) -> Route {
        self.known().route.clone()
    }

    /// A trusted proxy has named this client, whether that is let in or not.
    pub(crate) fn comes_from(&self, route: Route) {
        self.known().route = route;
    }

    /// The connection is encrypted, or is about to be.
    pub(crate) fn encrypted(&self) {
        self.known().is_encrypted = true;
        self.busy();
    }

    /// The client sends something at last, on a connection that the old binary has kept alive.
    pub(crate) fn wakes(&self, now: Instant) {
        self.known().since = now;
    }

    /// `head` was read of its first head, and is not the whole of it.
    pub(crate) fn begun(&self, head: &[u8]) {
        let mut known = self.known();
        // An encrypted connection cannot be begun anew: its keys do not go along to the new binary.
        if !known.is_encrypted {
            known.progress = Progress::Begun(Bytes::copy_from_slice(head));
        }
    }

    /// `head` is its first head, which is to be answered.
    pub(crate) fn asks(&self, head: Bytes) {
        let mut known = self.known();
        known.progress = Progress::Begun(head);
        self.set_out(&mut known);
    }

    /// It is being answered, or is otherwise at something that cannot be begun anew.
    pub(crate) fn busy(&self) {
        let mut known = self.known();
        known.progress = Progress::Busy;
        self.set_out(&mut known);
    }

    /// An answer was given whole.
    pub(crate) fn answered(&self) {
        self.known().answers += 1;
    }

    /// Notes how far its requests are: `requests` were read, in `read` bytes of which `behind` came behind the last request,
    /// and `sent` bytes were sent to the client. `is_flushed`: nothing waits to be sent. True: an answer is under way.
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

    /// Saves the connection for the new binary, if it can be begun anew; some cannot, as what they are at cannot be
    /// handed over. Returns what [`Pause::stand`] returns.
    pub(crate) fn stand(&self, said: &PauseReports<StoodConnection>) -> Option<u64> {
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
