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
use crate::client_address::Approach;
use crate::config::Config;
use crate::connection::{Shared, attend};
use crate::ending::{Error, Outcome};
use crate::error_text::error_text;
use crate::hand_over::{HandOver, Request};
use crate::lobby::{Lobby, Prospect};
use crate::memory;
use crate::net::{Accepting, Connection, Listener, Lookups, Socket};
use crate::orders::Orders;
use crate::pause::{Pause, Said};
use crate::peer::{Peer, PeerAddress};
use crate::record::Recordings;
use crate::session::{self, Outbound};
use crate::shutdown::{Shutdown, ShutdownWatch};
use crate::turns::Turns;
use crate::unadmitted;
use crate::upkeep::Rounds;

/// How long accepting rests when the system has no descriptor or memory for one more (L1).
const REST: Duration = Duration::from_millis(100);

/// How long, where a connection gives way that has what is needed.
const BREATH: Duration = Duration::from_millis(1);

/// How many connections beyond those that may be open are accepted while others give way to them.
const AHEAD: usize = 8;

/// How long after many connections have gone memory is given back, and how many are many.
const TIDY: Duration = Duration::from_secs(20);
const MANY: usize = 100;

/// How often sessions in which a peer takes nothing look after themselves.
const LOOK: Duration = Duration::from_secs(10);

/// How long connections that were accepted before a [drain](Shutdown::Drain) have to ask for what they are refused.
const LATE: Duration = Duration::from_secs(5);

/// When sessions that were told to close are cut off: theirs is a matter of two seconds.
const CUT_OFF: Duration = Duration::from_secs(5);

/// A bridge at work.
pub(crate) struct Bridge {
    /// None any more once it stops accepting.
    listeners: Vec<Accepting>,
    /// Which of them is asked first.
    next: usize,
    /// Each says whether it has given way.
    connections: JoinSet<bool>,
    /// Those of them that are no session yet.
    lobby: Arc<Lobby>,
    /// Those that were accepted while there was no room for them, as others give way; until those have, they wait as in the
    /// kernel's queue. Some have begun, in another image of this program.
    ahead: VecDeque<(Socket, Peer, Beginning)>,
    shared: Arc<Shared>,
    shutdown: watch::Sender<Shutdown>,
    /// Why it is ending, once it is.
    ending: Option<Outcome>,
    /// [`Config::timeout`].
    timeout: Option<Instant>,
    /// When there will have been no session for [`Config::idle_timeout`].
    idle: Option<Instant>,
    /// When accepting goes on, while it rests.
    rested: Option<Instant>,
    /// Whether it was said that accepting fails for want of resources.
    is_exhausted: bool,
    /// How many connections were open then.
    exhausted_at: usize,
    /// Whether it was said that as many connections are open as may be.
    is_full: bool,
    cut_off: Option<Instant>,
    /// When a drain refuses whoever has not asked yet without a word.
    late: Option<Instant>,
    /// When sessions look after themselves next, if one has asked for it.
    next_look: Option<Instant>,
    rounds: Rounds,
    /// The most connections that were open since memory was given back, and when it is again: some time after most of them
    /// have gone.
    peak: usize,
    tidy: Option<Instant>,
    /// How far it is with standing still, as its connections see it.
    pause: Arc<Pause>,
    /// That it should; none if somebody else hears that.
    requests: Option<mpsc::Receiver<Request>>,
    /// What lets it begin, if it goes on where another image has stopped.
    released_by: Option<HandOver>,
    /// Connections that another image has taken in, and that nobody lets in any more.
    unwelcome: Vec<Socket>,
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
        let rounds = Rounds::new(config.upkeep);
        let followed = Followed {
            // By whoever may call them to do something.
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
            rested: None,
            is_exhausted: false,
            exhausted_at: 0,
            is_full: false,
            cut_off: None,
            late: None,
            next_look: None,
            rounds,
            peak: 0,
            tidy: None,
            pause: Arc::default(),
            requests: hand_over.requests(),
            released_by: None,
            unwelcome: Vec::new(),
            shared: Arc::new(Shared {
                admission: Admission::new(&config, lookups.clone(), Arc::clone(&book)),
                sessions: session::Shared {
                    outbound: Outbound {
                        lookups,
                        tls: config.target_tls.clone(),
                        approach: Approach::new(config.client_address.clone()),
                    },
                    turns: Turns::new(),
                    stood: Said::default(),
                },
                stood: Said::default(),
                book,
                recordings: recordings.map_err(Error::Record)?,
                config,
            }),
        })
    }

    /// Runs until it is told to end, or a limit of its configuration ends it, and no connection is
    /// left.
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
            // Asked once, as it changes meanwhile.
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
            && self.rested.is_none()
            && (self.has_room() || (self.ahead.len() < AHEAD && prospect == Prospect::Now))
    }

    fn has_room(&self) -> bool {
        self.connections.len() < self.shared.config.max_connections
    }

    /// The next point in time at which there is something to do.
    fn deadline(&self, prospect: Prospect, now: Instant) -> Option<Instant> {
        let next_round = self.rounds.next();
        let next_guest = match prospect {
            _ if self.ending.is_some() => None,
            // Until then whoever comes waits.
            Prospect::Later(next) => Some(next),
            // Since room was made for those who wait.
            Prospect::Now if self.ahead.len() > self.lobby.leaving() => Some(now),
            Prospect::Now | Prospect::Unknown => None,
        };
        [
            self.timeout,
            self.idle,
            self.rested,
            self.cut_off,
            self.late,
            self.next_look,
            self.tidy,
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
            // Our own, of a limit that has run out.
            Shutdown::NoMore if self.ending.is_some() => {}
            Shutdown::Drain => self.drain(),
            Shutdown::NoMore | Shutdown::Finish => self.stop_accepting(Outcome::Shutdown),
            Shutdown::Now => {
                self.cut_off.get_or_insert(Instant::now() + CUT_OFF);
                self.stop_accepting(Outcome::Shutdown);
            }
        }
    }

    /// Whoever comes from now on is refused by the kernel, and whoever has come is told so.
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
        (self.timeout, self.idle, self.rested) = (None, None, None);
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

    /// Whether there is no session, here or elsewhere.
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
        if is_due(self.rested) {
            self.rested = None;
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
        if is_due(self.tidy) {
            (self.tidy, self.peak) = (None, self.connections.len());
            memory::give_back();
        }
        self.rounds.make(&self.shared.book, now);
        if is_due(self.timeout) {
            self.end(Outcome::Timeout);
        } else if is_due(self.idle) && self.is_idle() {
            self.end(Outcome::IdleTimeout);
        }
    }

    /// Takes a new connection in, or finds out why there is none.
    fn take(&mut self, accepted: io::Result<(Socket, PeerAddress)>) -> Result<(), Error> {
        match accepted {
            Ok((io, address)) => {
                if let Some(peer) = self.knock(address) {
                    self.attend(io, peer, Beginning::new());
                }
                self.tell_if_full();
            }
            Err(error) => match classify(&error) {
                AcceptError::Connection => {
                    debug!("a connection was gone before its accept: {}", error_text(&error));
                }
                AcceptError::Resources => self.rest(&error),
                AcceptError::Listener => return Err(Error::Accept(error)),
            },
        }
        Ok(())
    }

    /// A connection has ended.
    fn closed(&mut self, ended: Result<bool, JoinError>) {
        self.shared.book.metrics.closed();
        if self.peak >= MANY && self.connections.len() < self.peak / 2 {
            self.tidy.get_or_insert_with(|| Instant::now() + TIDY);
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

    /// Has as many give way as wait for that (L5).
    fn make_room(&self, now: Instant) {
        while self.ahead.len() > self.lobby.leaving() && self.lobby.make_room(now) {}
    }

    /// Takes in a client that somebody else has accepted. Nobody comes after it, if nobody listens.
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

    /// Whose a connection is, if it is let in at all.
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

    /// L1: says that others wait, once until there is room again for a tenth.
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

    /// L1, L5: there is no descriptor, or no memory, for one more. The oldest that is no session has a descriptor.
    fn rest(&mut self, error: &io::Error) {
        let errno = error.raw_os_error().map(Errno::from_raw);
        // One at a time: it may take longer than a breath to end. What the system is short of (ENFILE), others would get.
        let has_room = errno == Some(Errno::EMFILE)
            && (self.lobby.leaving() > 0 || self.lobby.make_room(Instant::now()));
        if !self.is_exhausted {
            warn!("cannot accept connections for now: {}", error_text(error));
            self.exhausted_at = self.connections.len();
        }
        self.is_exhausted = true;
        self.rested = Some(Instant::now() + if has_room { BREATH } else { REST });
    }
}

/// Whether so few connections are open that it is worth saying again when accepting fails, which it did at so many.
fn has_room_again(open: usize, exhausted_at: usize) -> bool {
    // The one that was just accepted is open.
    open <= (exhausted_at - exhausted_at.div_ceil(10)).max(1)
}

/// Waits until it is asked to stand still.
async fn asked(requests: &mut Option<mpsc::Receiver<Request>>) -> Request {
    match requests {
        Some(requests) => match requests.recv().await {
            Some(request) => request,
            None => pending().await,
        },
        None => pending().await,
    }
}

/// Whose fault a failed `accept(2)` is.
#[derive(Debug, PartialEq, Eq)]
enum AcceptError {
    /// That connection: the next one may be fine (accept(2), "Error handling").
    Connection,
    /// The system, which may have more later.
    Resources,
    /// The socket itself.
    Listener,
}

fn classify(error: &io::Error) -> AcceptError {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) => {
            AcceptError::Resources
        }
        Some(Errno::EBADF | Errno::EINVAL | Errno::ENOTSOCK | Errno::EOPNOTSUPP) | None => {
            AcceptError::Listener
        }
        Some(_) => AcceptError::Connection,
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

/// Waits until the bridge is told otherwise than before how to end.
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
    fn l1_accept_errors_are_classified() {
        for (errno, kind) in [
            (Errno::EMFILE, AcceptError::Resources),
            (Errno::ENFILE, AcceptError::Resources),
            (Errno::ENOMEM, AcceptError::Resources),
            (Errno::ECONNABORTED, AcceptError::Connection),
            (Errno::EPROTO, AcceptError::Connection),
            (Errno::EPERM, AcceptError::Connection),
            (Errno::EHOSTUNREACH, AcceptError::Connection),
            (Errno::EINVAL, AcceptError::Listener),
        ] {
            assert_eq!(classify(&errno.into()), kind, "{errno}");
        }
    }

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
