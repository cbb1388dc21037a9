//! How a bridge stands still for a hand-over, and how it goes on from its state, in the new binary or in a forked copy of the old
//! process (O2). Knows the order of the steps; what is saved of a session or a connection is decided by their own modules.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use super::Bridge;
use super::rest::KeptLegs;
use crate::arrival::{Beginning, SavedConnection, StoodConnection};
use crate::config::Config;
use crate::connection::{Shared, go_on};
use crate::error_text::error_text;
use crate::hand_over::{BridgeState, Frozen, NotFrozen, Request, Rest};
use crate::leg::{Leg, SavedLeg};
use crate::net::{Accepting, Listener, Socket};
use crate::orders::Orders;
use crate::peer::{Peer, SavedPeer};
use crate::record::StoodRecording;
use crate::saved::{Descriptors, Invalid, Place};
use crate::session::{Ongoing, Resumption, SavedSession, StoodSession};
use crate::tap::Tap;

/// How long connections may take that are between two states which can be handed over. Sessions move bytes meanwhile.
const SETTLE: Duration = Duration::from_millis(250);

impl Bridge {
    /// Stands still, if the bridge can, until whoever sent the request drops the [`Frozen`] that is the answer.
    pub(super) async fn stand_still(&mut self, Request { until, answer }: Request) {
        let told = if self.ending.is_some() || self.shared.book.is_closed() {
            Err(NotFrozen::Ended)
        } else {
            self.freeze(until).await
        };
        match told {
            Ok((frozen, goes_on)) => {
                let _ = answer.send(Ok(frozen));
                let _ = goes_on.await;
            }
            Err(why) => drop(answer.send(Err(why))),
        }
        self.go_on();
    }

    /// All tasks go on as before. Sessions that have lent their connections get them back.
    fn go_on(&self) {
        self.pause.go_on();
        drop((self.shared.stood.take(), self.shared.sessions.stood.take()));
        self.wake();
    }

    /// If the bridge was resumed, waits until the old binary cannot go on in its place any more: until then nothing moves.
    pub(super) async fn be_released(&mut self) {
        if let Some(hand_over) = self.released_by.take() {
            hand_over.released().await;
            for _closed in self.no_longer_allowed.drain(..) {
                self.shared.book.metrics.closed();
            }
            self.go_on();
        }
    }

    async fn freeze(
        &mut self,
        until: Instant,
    ) -> Result<(Frozen, tokio::sync::oneshot::Receiver<()>), NotFrozen> {
        self.pause.begin_settling();
        // A connection that is not through by then is begun anew by the new binary where that is possible, and else cut off.
        let settle = until.min(Instant::now() + SETTLE);
        let _ = timeout_at(settle, self.settled()).await;
        self.pause.be_still();
        self.wake();
        let all = timeout_at(until, self.all_stand()).await;
        all.map_err(|_| NotFrozen::Busy("a connection"))?;
        let sessions = self.shared.sessions.stood.take();
        let recordings = timeout_at(until, flushed(&sessions)).await;
        recordings.map_err(|_| NotFrozen::Busy("a recording"))?;
        let (mut state, bytes, rest) = self.collect(self.shared.stood.take(), sessions);
        self.save(&mut state);
        // A state that the new binary would refuse fails this hand-over, and costs nobody a connection.
        look(&state, &bytes, &self.shared.config).map_err(NotFrozen::Unfit)?;
        Ok(Frozen::new(state, bytes, rest))
    }

    /// Waits until no connection is between two states, and reaps those that end meanwhile.
    async fn settled(&mut self) {
        let pause = Arc::clone(&self.pause);
        let mut settled = std::pin::pin!(pause.settled());
        loop {
            tokio::select! {
                () = &mut settled => return,
                Some(ended) = self.connections.join_next() => self.closed(ended),
            }
        }
    }

    /// Waits until every connection stands still, and has saved its state where that is possible.
    async fn all_stand(&mut self) {
        while self.pause.standing() < self.connections.len() {
            tokio::select! {
                () = self.pause.changed() => {}
                Some(ended) = self.connections.join_next() => self.closed(ended),
            }
        }
    }

    /// Wakes all connections, so that they look at the pause again.
    fn wake(&self) {
        self.shutdown.send_modify(|_| {});
    }

    /// What the tasks that stand still have saved: the connections and sessions that are handed over, with their bytes, and the
    /// sessions that are not.
    fn collect(
        &self,
        connections: Vec<StoodConnection>,
        sessions: Vec<StoodSession>,
    ) -> (BridgeState, Vec<u8>, Rest) {
        let (mut state, mut bytes, mut rest) =
            (BridgeState::default(), Vec::new(), Rest::default());
        rest.config = Some(Arc::clone(&self.shared.config));
        state.book = self.shared.book.saved();
        for StoodConnection { mut saved, head } in connections {
            saved.head = Place::put(&mut bytes, &head);
            state.connections.push(saved);
        }
        // These come last, so that they wait in the new binary, too.
        state.connections.extend(self.ahead.iter().map(|(io, peer, from)| SavedConnection {
            socket: io.saved(),
            peer: SavedPeer::of(peer),
            is_introduced: from.is_introduced,
            head: Place::put(&mut bytes, &from.head),
            since: from.since.into(),
            is_kept_alive: from.is_kept_alive,
        }));
        for mut session in sessions {
            let saved = &mut session.saved;
            saved.entry.last_seen = self.shared.book.last_seen(saved.entry.id);
            saved.recording = session.recording.as_ref().map(StoodRecording::saved);
            if session.legs.is_some() {
                // The new binary does not have these sessions, and its counters must not fall.
                state.book.received += saved.entry.received;
                state.book.sent += saved.entry.sent;
                rest.sessions.push(session);
                continue;
            }
            saved.move_by(bytes.len());
            bytes.extend_from_slice(&session.bytes);
            state.sessions.push(session.saved);
        }
        (state, bytes, rest)
    }

    fn save(&self, state: &mut BridgeState) {
        state.listeners = self.listeners.iter().map(Accepting::saved).collect();
        state.timeout = self.timeout.map(Into::into);
        state.idle = self.idle.map(Into::into);
        (state.next_beat, state.next_limits) = self.rounds.saved();
        (state.is_full, state.is_exhausted) = (self.is_full, self.is_exhausted);
        state.recordings = self.shared.recordings.as_ref().map_or(0, |all| all.taken());
        state.penalties = self.shared.admission.saved_penalties();
    }

    /// The bridge that goes on from a saved state. `kept` has the connections of sessions that could not be handed over, in the
    /// forked copy of the old process; in the new binary it is empty.
    pub(crate) fn resume(
        Frozen { state, bytes, .. }: Frozen,
        descriptors: &mut Descriptors,
        mut kept: KeptLegs,
        config: Arc<Config>,
        orders: Orders,
    ) -> Result<Self, Invalid> {
        descriptors.look(&state.descriptors())?;
        look(&state, &bytes, &config)?;
        let hand_over = orders.hand_over.clone();
        let bridge = Self::new(Vec::new(), config, orders);
        let mut bridge = bridge.map_err(|why| Invalid(why.to_string()))?;
        bridge.released_by = Some(hand_over);
        bridge.timeout = state.timeout.map(|timeout| timeout.instant().into());
        let idle = state.idle.filter(|_| bridge.shared.config.idle_timeout.is_some());
        bridge.idle = idle.map(|idle| idle.instant().into());
        bridge.rounds.resume(state.next_beat, state.next_limits);
        (bridge.is_full, bridge.is_exhausted) = (state.is_full, state.is_exhausted);
        let open = state.sessions.len() + state.connections.len();
        bridge.exhausted_at = open;
        bridge.shared.book.resume(&state.book, open as u64);
        bridge.shared.admission.resume_penalties(&state.penalties);
        if let Some(recordings) = &bridge.shared.recordings {
            recordings.go_on_from(state.recordings);
        }
        let mut taken = Taken::default();
        if let Err(why) = bridge.take_all(state, &bytes, descriptors, &mut kept, &mut taken) {
            // The descriptors must stay open: the old binary goes on with them.
            std::mem::forget((taken, std::mem::take(&mut bridge.listeners)));
            return Err(why);
        }
        bridge.begin(taken);
        // If there is no session, the idle time begins now.
        if bridge.idle.is_none() {
            bridge.count_sessions();
        }
        Ok(bridge)
    }

    fn take_all(
        &mut self,
        state: BridgeState,
        bytes: &[u8],
        descriptors: &mut Descriptors,
        kept: &mut KeptLegs,
        taken: &mut Taken,
    ) -> Result<(), Invalid> {
        for saved in state.listeners {
            let listener = Listener::resume(saved, descriptors)?;
            let accepting = Accepting::begin(listener);
            let why =
                |error| Invalid(format!("cannot use listening socket: {}", error_text(&error)));
            self.listeners.push(accepting.map_err(why)?);
        }
        for saved in state.sessions {
            let is_idle = !saved.is_busy();
            let ongoing = self.shared.resume(saved, bytes, descriptors, kept)?;
            taken.sessions.push((is_idle, ongoing));
        }
        for saved in state.connections {
            taken.connections.push(self.shared.begin_anew(saved, bytes, descriptors)?);
        }
        Ok(())
    }

    /// Starts the tasks of all sessions and connections, those first that have something to write. They begin when the bridge is
    /// released.
    fn begin(&mut self, Taken { mut sessions, connections }: Taken) {
        sessions.sort_by_key(|(is_idle, ongoing)| (*is_idle, ongoing.client.session.entry.id));
        for (_, ongoing) in sessions {
            let (shared, mut shutdown) = (Arc::clone(&self.shared), self.watch());
            self.connections.spawn(async move {
                // Until then the old binary may still take the session back.
                shutdown.goes_on(Some(0)).await;
                go_on(ongoing, shared, shutdown).await;
                false
            });
        }
        for (io, peer, from) in connections {
            match peer {
                Some(peer) => self.attend(io, peer, from),
                None => self.no_longer_allowed.push(io),
            }
        }
    }
}

/// The sessions and connections that were taken out of a state.
#[derive(Default)]
struct Taken {
    /// Each with whether it has nothing to write.
    sessions: Vec<(bool, Box<Ongoing>)>,
    connections: Vec<(Socket, Option<Peer>, Beginning)>,
}

impl Shared {
    fn resume(
        &self,
        mut saved: SavedSession,
        bytes: &[u8],
        descriptors: &mut Descriptors,
        kept: &mut KeptLegs,
    ) -> Result<Box<Ongoing>, Invalid> {
        let id = saved.entry.id;
        let legs = match kept.remove(&id) {
            Some(legs) => legs,
            None => (
                leg(saved.client.leg, descriptors)?,
                saved.target().map(|target| leg(target, descriptors)).transpose()?,
            ),
        };
        let mut peer = saved.entry.peer.clone().resume();
        // A session stays, however many connections its client has.
        let _ = self.admission.door.take_in(&mut peer);
        let peer = Arc::new(peer);
        let session = self.book.go_on(&saved.entry, Arc::clone(&peer), &self.config.directory)?;
        let recorder = match (saved.recording.take(), &self.recordings) {
            (Some(recording), Some(all)) => {
                Some(recording.resume(all, (id, &peer), descriptors)?)
            }
            (Some(_), None) | (None, _) => None,
        };
        let tap = Tap::new(self.config.traffic.clone(), recorder);
        let table = self.config.client_address.table.as_ref();
        saved.resume(Resumption { session, legs, bytes, tap, table })
    }

    /// A connection without a session, which begins anew; without a peer if its client may not connect any more.
    fn begin_anew(
        &self,
        saved: SavedConnection,
        bytes: &[u8],
        descriptors: &mut Descriptors,
    ) -> Result<(Socket, Option<Peer>, Beginning), Invalid> {
        let SavedConnection { socket, peer, is_introduced, head, since, is_kept_alive } = saved;
        let io = Socket::resume(socket, descriptors)?;
        let since = since.instant().into();
        let head = Bytes::copy_from_slice(head.of(bytes)?);
        let from = Beginning { since, head, is_introduced, is_kept_alive, is_from_another: true };
        let door = &self.admission.door;
        let peer = if is_introduced {
            let mut peer = peer.resume();
            door.take_in(&mut peer).is_ok().then_some(peer)
        } else {
            door.knock(peer.address).ok()
        };
        Ok((io, peer, from))
    }
}

/// Checks all of a state that can be checked without a descriptor: before one is taken, which cannot be given back to the old
/// binary, and before the state is handed over.
fn look(state: &BridgeState, bytes: &[u8], config: &Config) -> Result<(), Invalid> {
    let table = config.client_address.table.as_ref();
    for session in &state.sessions {
        session.look(bytes, &config.directory, table)?;
    }
    for connection in &state.connections {
        connection.head.of(bytes)?;
    }
    let mut numbers: Vec<_> = state.sessions.iter().map(|session| session.entry.id).collect();
    numbers.sort_unstable();
    let is_twice = numbers.windows(2).any(|pair| pair[0] == pair[1]);
    let is_early = numbers.last().is_some_and(|last| *last > state.book.begun);
    if is_twice || is_early {
        return Err(Invalid("it has an impossible number of a session".to_owned()));
    }
    Ok(())
}

fn leg(saved: SavedLeg, descriptors: &mut Descriptors) -> Result<Leg, Invalid> {
    match saved {
        SavedLeg::Plain(socket) => Socket::resume(socket, descriptors).map(Leg::Plain),
        SavedLeg::Kept => {
            Err(Invalid("it has an encrypted connection, and not its keys".to_owned()))
        }
    }
}

/// Waits until what the sessions have given to their recordings is written.
async fn flushed(sessions: &[StoodSession]) {
    for session in sessions {
        if let Some(recording) = &session.recording {
            recording.flushed().await;
        }
    }
}
