//! The accept loop: which connections there are, and when the bridge is done.
//!
//! Knows counts and clocks; what happens on a connection is [`connection`](crate::connection)'s.

mod rest;
mod still;

use std::collections::VecDeque;
use std::future::{pending, poll_fn};
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use nix::errno::Errno;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, error, warn};

use crate::admission::Admission;
use crate::arrival::Beginning;
use crate::book::{Book, Followed, Limits};
use crate::budget::Budget;
use crate::client_address::TargetConnector;
use crate::config::Config;
use crate::connection::{Shared, attend};
use crate::ending::{Error, Outcome};
use crate::error_text::error_text;
use crate::hand_over::{HandOver, Request};
use crate::lobby::{Lobby, Prospect};
use crate::memory;
use crate::net::{AcceptError, Accepting, Connection, Listener, Lookups, Socket};
use crate::orders::Orders;
use crate::pause::{Pause, PauseReports};
use crate::peer::{Peer, PeerAddress};
use crate::record::Recordings;
use crate::session::{self, Outbound};
use crate::shutdown::{Shutdown, ShutdownWatch};
use crate::turns::Turns;
use crate::unadmitted;
use crate::upkeep::UpkeepSchedule;

/// How long accepting pauses when the system has no file descriptor or memory for another connection (L1).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long it pauses where a connection that is being closed has the missing descriptor.
const SHORT_ACCEPT_PAUSE: Duration = Duration::from_millis(1);

/// How many connections are accepted beyond `max_connections` while others are closed to make room for them.
const ACCEPT_AHEAD: usize = 8;

/// How long after many connections have ended free memory is returned to the system, and how many connections are many.
const TRIM_DELAY: Duration = Duration::from_secs(20);
const TRIM_MIN_PEAK: usize = 100;

/// How often sessions in which a peer takes nothing check whether they are over.
const LOOK: Duration = Duration::from_secs(10);

/// How long connections that were accepted before a [drain](Shutdown::Drain) have to send the request that is then answered.
const LATE: Duration = Duration::from_secs(5);

/// How long after [`Shutdown::Now`] connections that are still open are cut off: sessions need no more than two seconds to close.
const CUT_OFF: Duration = Duration::from_secs(5);

/// A bridge at work.
pub(crate) struct Bridge {
    /// The listening sockets; none any more once the bridge stops accepting.
    listeners: Vec<Accepting>,
    /// Which listener is asked first next time.
    next: usize,
    /// The task of each connection. It returns whether the connection was closed to make room for another.
    connections: JoinSet<bool>,
    /// The connections without a session.
    lobby: Arc<Lobby>,
    /// Connections that were accepted while there was no room for them, as others are being closed; until those have ended, these
    /// wait as in the kernel's queue. Some of them were begun by the old binary of a hand-over.
    ahead: VecDeque<(Socket, Peer, Beginning)>,
    shared: Arc<Shared>,
    shutdown: watch::Sender<Shutdown>,
    /// Why the bridge is ending, once it is.
    ending: Option<Outcome>,
    /// [`Config::timeout`].
    timeout: Option<Instant>,
    /// When there will have been no session for [`Config::idle_timeout`].
    idle: Option<Instant>,
    /// When accepting goes on, while it is paused.
    paused_until: Option<Instant>,
    /// Whether the log was told that accepting fails for lack of file descriptors or memory.
    is_exhausted: bool,
    /// How many connections were open then.
    exhausted_at: usize,
    /// Whether the log was told that as many connections are open as may be.
    is_full: bool,
    cut_off: Option<Instant>,
    /// When a drain closes, without an answer, connections that have sent no request yet.
    late: Option<Instant>,
    /// When sessions in which a peer takes nothing check next whether they are over, if one has asked for it.
    next_look: Option<Instant>,
    rounds: UpkeepSchedule,
    /// The most connections that were open since free memory was last returned, and when it is returned next: some time after
    /// most of them have ended.
    peak: usize,
    trim_at: Option<Instant>,
    /// How far the bridge is with standing still for a hand-over, as its connections see it.
    pause: Arc<Pause>,
    /// Requests to stand still; none if another bridge receives them.
    requests: Option<mpsc::Receiver<Request>>,
    /// What releases the bridge, if it goes on from the state of the old binary.
    released_by: Option<HandOver>,
    /// Connections that the old binary has accepted, and whose clients may not connect any more.
    no_longer_allowed: Vec<Socket>,
}

impl Bridge {
    /// A bridge that accepts from `listeners`, which must be listening.
    pub(crate) fn new(
        listeners: Vec<Listener>,
        config: Arc<Config>,
        Orders { shutdown, hand_over }: Orders,
    ) -> Result<Self, Error> {
        let listeners = listeners.into_iter().map(Accepting::begin).collect::<Result<_, _>>();
        let budget = Budget::new(config.memory);
        let recordings = config.record.clone();
        let recordings =
            recordings.map(|path| Recordings::new(path, Arc::clone(&budget))).transpose();
        let rounds = UpkeepSchedule::new(config.upkeep);
        let followed = Followed {
            // Upkeep and an observer may call sessions to do something.
            are_called: rounds.is_needed() || config.observer.is_some(),
            are_counted: rounds.is_needed() || config.run_once || config.idle_timeout.is_some(),
        };
        let in_all = if config.run_once { 1 } else { u64::MAX };
        let limits = Limits { in_all, at_once: config.max_connections };
        let lobby = Lobby::new(Arc::clone(&budget));
        let book = Book::telling(limits, followed, config.open_sessions.clone(), budget);
        if let Some(observer) = &config.observer {
            observer.observe(&book);
        }
        let (lookups, now) = (Lookups::new(), Instant::now());
        Ok(Self {
            listeners: listeners.map_err(Error::Listen)?,
            next: 0,
            connections: JoinSet::new(),
            lobby,
            ahead: VecDeque::new(),
            shutdown,
            ending: None,
            timeout: config.timeout.map(Instant::from_std),
            idle: config.idle_timeout.map(|time| now + time),
            paused_until: None,
            is_exhausted: false,
            exhausted_at: 0,
            is_full: false,
            cut_off: None,
            late: None,
            next_look: None,
            rounds,
            peak: 0,
            trim_at: None,
            pause: Arc::default(),
            requests: hand_over.requests(),
            released_by: None,
            no_longer_allowed: Vec::new(),
            shared: Arc::new(Shared {
                admission: Admission::new(&config, lookups.clone(), Arc::clone(&book)),
                sessions: session::Shared {
                    outbound: Outbound {
                        lookups,
                        tls: config.target_tls.clone(),
                        approach: TargetConnector::new(config.client_address.clone()),
                    },
                    turns: Turns::new(),
                    stood: PauseReports::default(),
                },
                stood: PauseReports::default(),
                book,
                recordings: recordings.map_err(Error::Record)?,
                config,
            }),
        })
    }

    /// Runs until the bridge is told to end, or a limit of its configuration ends it, and no connection is left.
    pub(crate) async fn run(mut self) -> Result<Outcome, Error> {
        self.be_released().await;
        let mut shutdown = self.shutdown.subscribe();
        self.obey(*shutdown.borrow_and_update());
        let mut elsewhere = self.shared.config.is_busy_elsewhere.clone();
        loop {
            if self.listeners.is_empty() && self.connections.is_empty() {
                return Ok(self.ending.unwrap_or(Outcome::Served));
            }
            let (book, lobby) = (Arc::clone(&self.shared.book), Arc::clone(&self.lobby));
            lobby.waits_for_room(!self.has_room());
            let now = Instant::now();
            self.make_room(now);
            // Asked once for both uses below, as the answer may change between them.
            let prospect = if self.has_room() { Prospect::Unknown } else { lobby.prospect(now) };
            let accepting = self.is_accepting(prospect);
            let deadline = self.deadline(prospect, now);
            tokio::select! {
                biased;
                told = changed(&mut shutdown) => self.obey(told),
                Some(ended) = self.connections.join_next() => self.closed(ended),
                () = book.changed() => {
                    self.count_sessions();
                    self.plan_look();
                    if self.rounds.is_needed() {
                        self.rounds.plan(book.any(), Instant::now());
                    }
                }
                () = lobby.changed() => {}
                Ok(()) = elsewhere.changed() => self.count_sessions(),
                () = at(deadline) => self.look_at_clock(Instant::now()),
                request = asked(&mut self.requests) => self.stand_still(request).await,
                accepted = accept(&self.listeners, self.next), if accepting => {
                    self.next = self.next.wrapping_add(1);
                    self.take(accepted)?;
                }
            }
        }
    }

    fn is_accepting(&self, prospect: Prospect) -> bool {
        !self.listeners.is_empty()
            && self.paused_until.is_none()
            && (self.has_room() || (self.ahead.len() < ACCEPT_AHEAD && prospect == Prospect::Now))
    }

    fn has_room(&self) -> bool {
        self.connections.len() < self.shared.config.max_connections
    }

    /// The next point in time at which there is something to do.
    fn deadline(&self, prospect: Prospect, now: Instant) -> Option<Instant> {
        let next_round = self.rounds.next();
        let next_guest = match prospect {
            _ if self.ending.is_some() => None,
            // Until then new connections wait in the kernel's queue.
            Prospect::Later(next) => Some(next),
            // Since `run` called `make_room`, a connection that can be closed has appeared: `make_room` is called again at once.
            Prospect::Now if self.ahead.len() > self.lobby.leaving() => Some(now),
            Prospect::Now | Prospect::Unknown => None,
        };
        [
            self.timeout,
            self.idle,
            self.paused_until,
            self.cut_off,
            self.late,
            self.next_look,
            self.trim_at,
            next_round,
            next_guest,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn obey(&mut self, shutdown: Shutdown) {
        match shutdown {
            Shutdown::Run | Shutdown::Late => {}
            // The bridge itself has sent this, as a limit has run out.
            Shutdown::NoMore if self.ending.is_some() => {}
            Shutdown::Drain => self.drain(),
            Shutdown::NoMore | Shutdown::Finish => self.stop_accepting(Outcome::Shutdown),
            Shutdown::Now => {
                self.cut_off.get_or_insert(Instant::now() + CUT_OFF);
                self.stop_accepting(Outcome::Shutdown);
            }
        }
    }

    /// From now on the kernel refuses new connections. Those that wait in a queue of ours or of a listener are taken up, and get
    /// an answer.
    fn drain(&mut self) {
        self.shared.book.close();
        let listeners = std::mem::take(&mut self.listeners);
        for (io, peer, from) in std::mem::take(&mut self.ahead) {
            self.take_up(io, peer, from.again());
        }
        self.stop_accepting(Outcome::Shutdown);
        self.late = Some(Instant::now() + LATE);
        for (io, address) in listeners.into_iter().flat_map(Accepting::close) {
            if let Some(peer) = self.knock(address) {
                self.take_up(io, peer, Beginning::new());
            }
        }
    }

    /// A limit of the configuration has run out.
    fn end(&mut self, outcome: Outcome) {
        self.stop_accepting(outcome);
        self.tell(Shutdown::NoMore);
    }

    fn tell(&self, shutdown: Shutdown) {
        self.shutdown.send_modify(|given| *given = shutdown.max(*given));
    }

    fn stop_accepting(&mut self, outcome: Outcome) {
        self.ending = Some(outcome);
        self.listeners.clear();
        self.ahead.drain(..).for_each(|_closed| self.shared.book.metrics.closed());
        (self.timeout, self.idle, self.paused_until) = (None, None, None);
    }

    fn count_sessions(&mut self) {
        if self.ending.is_some() {
            return;
        }
        let book = &self.shared.book;
        if book.is_exhausted() {
            return self.end(Outcome::RunOnce);
        }
        let idle_timeout = self.shared.config.idle_timeout.filter(|_| self.is_idle());
        self.idle = idle_timeout.map(|time| Instant::now() + time);
    }

    /// Whether there is no session, in this process or in another that carries sessions of ours to their end.
    fn is_idle(&self) -> bool {
        !self.shared.book.any() && !*self.shared.config.is_busy_elsewhere.borrow()
    }

    fn plan_look(&mut self) {
        if self.shared.book.is_look_wanted() {
            self.next_look.get_or_insert(Instant::now() + LOOK);
        }
    }

    fn look_at_clock(&mut self, now: Instant) {
        let is_due = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        if is_due(self.paused_until) {
            self.paused_until = None;
        }
        if is_due(self.cut_off) {
            self.cut_off = None;
            warn!(connections = self.connections.len(), "cutting off what has not closed in time");
            self.connections.abort_all();
        }
        if is_due(self.late) {
            self.late = None;
            self.tell(Shutdown::Late);
        }
        if is_due(self.next_look) {
            self.next_look = None;
            self.shared.book.look();
        }
        if is_due(self.trim_at) {
            (self.trim_at, self.peak) = (None, self.connections.len());
            memory::give_back();
        }
        self.rounds.make(&self.shared.book, now);
        if is_due(self.timeout) {
            self.end(Outcome::Timeout);
        } else if is_due(self.idle) && self.is_idle() {
            self.end(Outcome::IdleTimeout);
        }
    }

    /// Takes in a connection that `accept(2)` has returned, or finds out why it failed.
    fn take(&mut self, accepted: io::Result<(Socket, PeerAddress)>) -> Result<(), Error> {
        match accepted {
            Ok((io, address)) => {
                if let Some(peer) = self.knock(address) {
                    self.attend(io, peer, Beginning::new());
                }
                self.tell_if_full();
            }
            Err(error) => match AcceptError::of(&error) {
                AcceptError::Connection => {
                    debug!("a connection was gone before its accept: {}", error_text(&error));
                }
                AcceptError::Resources => self.pause_accepting(&error),
                AcceptError::Listener => return Err(Error::Accept(error)),
            },
        }
        Ok(())
    }

    /// A connection has ended.
    fn closed(&mut self, ended: Result<bool, JoinError>) {
        self.shared.book.metrics.closed();
        if self.peak >= TRIM_MIN_PEAK && self.connections.len() < self.peak / 2 {
            self.trim_at.get_or_insert_with(|| Instant::now() + TRIM_DELAY);
        }
        if reap(ended) {
            self.lobby.has_gone();
        }
        while self.has_room()
            && let Some((io, peer, from)) = self.ahead.pop_front()
        {
            self.take_up(io, peer, from.again());
        }
    }

    /// Has as many connections without a session closed as accepted connections wait for room (L5).
    fn make_room(&self, now: Instant) {
        while self.ahead.len() > self.lobby.leaving() && self.lobby.make_room(now) {}
    }

    /// Takes in a connection that somebody else has accepted. If there is no listener, no other comes after it.
    pub(crate) fn take_one(&mut self, connection: Connection) -> Result<(), Error> {
        match connection.begin() {
            Ok((io, address)) => {
                if let Some(peer) = self.knock(address) {
                    self.take_up(io, peer, Beginning::new());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                debug!("the connection was gone before it was served");
            }
            Err(error) => return Err(Error::Connection(error)),
        }
        Ok(())
    }

    /// The peer of a new connection, if it may connect at all.
    fn knock(&self, address: PeerAddress) -> Option<Peer> {
        let metrics = &self.shared.book.metrics;
        metrics.accepted();
        let known = self.shared.admission.door.knock(address);
        let refused = known.as_ref().err();
        if let Some(why) = refused {
            metrics.no_session(why);
            metrics.closed();
            unadmitted::ended(&address.into(), why);
        }
        known.ok()
    }

    /// Attends to a connection, as soon as there is room for it.
    fn attend(&mut self, io: Socket, peer: Peer, from: Beginning) {
        if self.has_room() {
            self.take_up(io, peer, from);
        } else {
            self.ahead.push_back((io, peer, from));
        }
    }

    fn take_up(&mut self, io: Socket, peer: Peer, from: Beginning) {
        let shutdown = self.watch();
        self.peak = self.peak.max(self.connections.len() + 1);
        let is_of_many = self.shared.admission.door.speaks_for_many(&peer);
        let guest = self.lobby.enter((!is_of_many).then(|| peer.address.client()));
        self.connections.spawn(attend(io, (peer, guest), from, Arc::clone(&self.shared), shutdown));
    }

    fn watch(&self) -> ShutdownWatch {
        ShutdownWatch::new(self.shutdown.subscribe(), Arc::clone(&self.pause))
    }

    /// L1: logs that new connections wait, once until there is room again for a tenth of `max_connections`.
    fn tell_if_full(&mut self) {
        let (open, most) = (self.connections.len(), self.shared.config.max_connections);
        if open >= most && !self.is_full {
            warn!(
                "{most} connections are open, as many as may be: others wait for their turn, or have the oldest end that is \
                 no session"
            );
            self.is_full = true;
        } else if open <= most - most.div_ceil(10) {
            self.is_full = false;
        }
        if has_room_again(open, self.exhausted_at) {
            self.is_exhausted = false;
        }
    }

    /// L1, L5: pauses accepting, as there is no file descriptor or memory for another connection. To free a descriptor, the
    /// oldest connection without a session is closed.
    fn pause_accepting(&mut self, error: &io::Error) {
        let errno = error.raw_os_error().map(Errno::from_raw);
        // One at a time: closing it may take longer than `SHORT_ACCEPT_PAUSE`. Where the whole system has no descriptor left
        // (ENFILE), none is closed: another process would get its descriptor.
        let has_room = errno == Some(Errno::EMFILE)
            && (self.lobby.leaving() > 0 || self.lobby.make_room(Instant::now()));
        if !self.is_exhausted {
            warn!("cannot accept connections for now: {}", error_text(error));
            self.exhausted_at = self.connections.len();
        }
        self.is_exhausted = true;
        self.paused_until =
            Some(Instant::now() + if has_room { SHORT_ACCEPT_PAUSE } else { ACCEPT_PAUSE });
    }
}

/// Whether so few connections are open that the next failure of accepting is worth a log line again. The last one came when
/// `exhausted_at` were open.
fn has_room_again(open: usize, exhausted_at: usize) -> bool {
    // The connection that was just accepted is one of the open ones.
    open <= (exhausted_at - exhausted_at.div_ceil(10)).max(1)
}

/// Waits for a request to stand still.
async fn asked(requests: &mut Option<mpsc::Receiver<Request>>) -> Request {
    match requests {
        Some(requests) => match requests.recv().await {
            Some(request) => request,
            None => pending().await,
        },
        None => pending().await,
    }
}

/// A panic ends its own connection and nothing else (L3).
fn reap(ended: Result<bool, JoinError>) -> bool {
    ended.unwrap_or_else(|failure| {
        if failure.is_panic() {
            error!(%failure, "connection ended by a panic");
        }
        false
    })
}

/// Accepts from whichever listener has a connection, beginning with number `first`.
async fn accept(listeners: &[Accepting], first: usize) -> io::Result<(Socket, PeerAddress)> {
    poll_fn(|cx| {
        for turn in 0..listeners.len() {
            let listener = &listeners[(first.wrapping_add(turn)) % listeners.len()];
            if let Poll::Ready(accepted) = listener.poll_accept(cx) {
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    })
    .await
}

/// Waits until what the bridge is told of its end changes.
async fn changed(shutdown: &mut watch::Receiver<Shutdown>) -> Shutdown {
    shutdown.changed().await.expect("the bridge has a sender itself");
    *shutdown.borrow_and_update()
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l1_there_is_room_again_when_a_tenth_has_gone_and_at_last_with_one() {
        assert!(has_room_again(90, 100) && !has_room_again(91, 100));
        for exhausted_at in [0, 1, 2] {
            assert!(has_room_again(1, exhausted_at) && !has_room_again(2, exhausted_at));
        }
    }

    #[tokio::test]
    async fn l3_a_panic_in_one_connection_is_reaped_like_any_end() {
        let mut connections = JoinSet::new();
        connections.spawn(async { panic!("on purpose") });
        assert!(!reap(connections.join_next().await.unwrap()));
        assert!(connections.is_empty());
    }
}
