//! A session from its handshake to its end: it is connected to its target, and bytes are moved.
//!
//! A connection to a service is one attempt; a connection to the program is made by the program's gate, and may be lost
//! and made again. Must not know how a handshake is read, nor how bytes are moved.

mod saved;
mod stood;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::account::SessionLog;
use crate::book::Entry;
use crate::client::Client;
use crate::client_address::{TargetConnector, Way};
use crate::destination::Destination;
use crate::error_text::error_text;
use crate::leg::Leg;
use crate::net::{Lookups, Socket};
use crate::pause::PauseReports;
use crate::program::{Gate, Hold, Trial};
use crate::pump::{End, Joined, Pump, SHUTTING_DOWN};
use crate::shutdown::{Shutdown, ShutdownWatch, Told};
use crate::tls::Connector;
use crate::turns::Turns;
use crate::unreachable::Unreachable;
pub(crate) use saved::{Resumption, SavedSession};
pub(crate) use stood::{LentLegs, StoodSession};

/// What all sessions of a bridge share.
pub(crate) struct Shared {
    pub(crate) outbound: Outbound,
    pub(crate) turns: Turns,
    /// The states of the sessions that stand still.
    pub(crate) stood: PauseReports<StoodSession>,
}

/// How targets are reached.
pub(crate) struct Outbound {
    pub(crate) lookups: Lookups,
    /// What encrypts the connection, if targets are encrypted; it may change at any time, for later sessions.
    pub(crate) tls: Option<watch::Receiver<Connector>>,
    /// How clients are shown to targets.
    pub(crate) approach: TargetConnector,
}

/// How the wait for a connection ended.
enum Wait<T> {
    Connected(T),
    Unreachable(Unreachable),
    /// The client's input ended first, and left nothing to be delivered.
    ClientEnded,
    /// [`Shutdown::Now`] came first.
    Shutdown,
    /// The session is to stand still, without a connection.
    Still,
}

/// How far a session is.
pub(crate) struct Course {
    pub(crate) stage: Stage,
    /// What is left of the time that the client of the program may be held, once it has been held.
    hold: Option<Hold>,
    /// Whether the beginning of the session is in the log.
    is_recorded: bool,
}

/// What a session is doing.
pub(crate) enum Stage {
    /// It is being connected to its target.
    Connecting,
    /// It has its connection.
    Joined(Joined),
    /// It is over, except that the last bytes for the client are still sent.
    Leaving,
}

/// Why no more bytes are moved.
enum Left {
    Ended(End),
    /// The session is to stand still.
    Still,
}

/// What is next for a session.
enum Next {
    /// Its next stage.
    Stage,
    /// Its stage again, after it has stood still.
    Still,
    Over,
}

/// A session, and how far it is. It is boxed, so that it is moved as one pointer and takes room in a task only once.
pub(crate) struct Ongoing {
    pub(crate) client: Client,
    pub(crate) account: SessionLog,
    pub(crate) course: Course,
}

impl Ongoing {
    pub(crate) fn begin(client: Client) -> Box<Self> {
        let mut account = SessionLog::default();
        let course = Course::begin(&client.session.entry, &mut account);
        Box::new(Self { client, account, course })
    }
}

impl Course {
    /// The course of a new session. If the target has a name, the beginning of the session is logged only when the
    /// target is reached.
    fn begin(entry: &Entry, account: &mut SessionLog) -> Self {
        let destination = &*entry.destination;
        let is_recorded = !destination.has_name();
        if is_recorded {
            account.reach(|| destination.reached(None));
            account.started(entry);
        }
        Self { stage: Stage::Connecting, hold: None, is_recorded }
    }

    fn target(&mut self) -> Option<&mut Leg> {
        match &mut self.stage {
            Stage::Joined(joined) => Some(&mut joined.target),
            Stage::Connecting | Stage::Leaving => None,
        }
    }

    /// No bytes are moved any more.
    fn ended(&mut self, end: End, client: &Client) -> Next {
        match (end, std::mem::replace(&mut self.stage, Stage::Leaving)) {
            (End::Finished, Stage::Joined(joined)) => joined.end(),
            (End::Finished, _) => {}
            (End::Lost, _joined) => {
                self.lost(client);
                return Next::Stage;
            }
        }
        Next::Over
    }

    /// The program has dropped the connection: another connection may still serve this client.
    fn lost(&mut self, client: &Client) {
        if let (Destination::Program(gate), Some(hold)) =
            (&*client.session.entry.destination, &mut self.hold)
        {
            gate.lost(hold);
        }
        self.stage = if client.is_over() { Stage::Leaving } else { Stage::Connecting };
    }
}

/// Takes a session from its stage to its end: connects the client to its destination and moves bytes until that is
/// over. While bytes are moved, the future keeps nothing else: there are many sessions, and most are idle.
#[expect(clippy::manual_async_fn, reason = "it would keep its arguments twice")]
pub(crate) fn bridge(
    ongoing: &mut Ongoing,
    shared: &Shared,
    shutdown: &mut ShutdownWatch,
) -> impl Future<Output = ()> {
    async move {
        loop {
            let next = match &mut ongoing.course.stage {
                Stage::Connecting => Box::pin(join(ongoing, &shared.outbound, shutdown)).await,
                Stage::Joined(joined) => {
                    let mut pump = Pump::new(&mut ongoing.client, joined, shutdown.clone());
                    match run(&mut pump, &shared.turns, shutdown).await {
                        Left::Ended(end) => {
                            drop(pump);
                            ongoing.course.ended(end, &ongoing.client)
                        }
                        Left::Still => Next::Still,
                    }
                }
                Stage::Leaving => Box::pin(leave(&mut ongoing.client, shutdown)).await,
            };
            match next {
                Next::Stage => {}
                Next::Still => Box::pin(stand_still(ongoing, &shared.stood, shutdown)).await,
                Next::Over => return,
            }
        }
    }
}

/// Gets a connection, and has the log say that the session starts, if it has not said so.
async fn join(
    Ongoing { client, account, course }: &mut Ongoing,
    outbound: &Outbound,
    shutdown: &mut ShutdownWatch,
) -> Next {
    let entry = Arc::clone(&client.session.entry);
    let destination = &*entry.destination;
    let connected = connect(client, destination, outbound, shutdown, &mut course.hold).await;
    let Ok(connected) = connected else { return Next::Still };
    if let Some((leg, _)) = &connected {
        account.reach(|| destination.reached(Some(leg)));
    }
    if !std::mem::replace(&mut course.is_recorded, true) {
        account.started(&entry);
    }
    course.stage = match connected {
        Some((leg, trial)) => Stage::Joined(Joined::new(leg, trial)),
        None => Stage::Leaving,
    };
    Next::Stage
}

async fn leave(client: &mut Client, shutdown: &mut ShutdownWatch) -> Next {
    tokio::select! {
        () = client.farewell() => Next::Over,
        () = shutdown.still() => Next::Still,
    }
}

/// Reports the state of the session, and waits until it may go on.
async fn stand_still(
    ongoing: &mut Ongoing,
    stood: &PauseReports<StoodSession>,
    shutdown: &mut ShutdownWatch,
) {
    // Whatever goes on with the session assumes that memory is not scarce, as for a new session.
    ongoing.client.limit_unsent(false);
    if let Stage::Joined(joined) = &mut ongoing.course.stage {
        joined.limit_unsent(false);
    }
    let mut bytes = Vec::new();
    let mut saved = ongoing.saved(&mut bytes);
    let Ongoing { client, course, .. } = ongoing;
    let recording = client.tap.as_ref().and_then(|tap| tap.stand());
    let (mut legs, mut returned) = (None, None);
    if saved.is_encrypted() {
        saved.keep_legs();
        let take = |leg: &mut Leg| std::mem::replace(leg, Leg::Away);
        let (lent, back) = LentLegs::new(take(client.leg()), course.target().map(take));
        (legs, returned) = (Some(lent), Some(back));
    }
    let session = StoodSession { saved, bytes, recording, legs };
    let stands = shutdown.pause.stand(|| stood.add(session));
    shutdown.goes_on(stands).await;
    let Some(back) = returned else { return };
    // If the hand-over fails, the session gets its legs back; if it succeeds, exec(2) has replaced this program, or this is
    // its forked copy, in which this task never runs.
    if let Ok((leg, target)) = back.await {
        *client.leg() = leg;
        if let (Some(place), Some(target)) = (course.target(), target) {
            *place = target;
        }
    }
}

/// The session is to stand still, and has no connection yet.
struct Waiting;

/// Connects once. `hold` is what is left of the time that a client of the program may be held. `None`: the client is
/// not connected, and has been told why.
async fn connect(
    client: &mut Client,
    destination: &Destination,
    outbound: &Outbound,
    shutdown: &mut ShutdownWatch,
    hold: &mut Option<Hold>,
) -> Result<Option<(Leg, Option<Trial>)>, Waiting> {
    let session = &client.session.entry;
    let way = outbound.approach.way(&session.peer, session.id);
    let us = way.introduces().then(|| client.local_address()).flatten();
    match destination {
        Destination::Service(endpoint) => {
            let _under_way = shutdown.pause.set_out();
            let connected = async {
                let socket = endpoint.connect(&outbound.lookups, Some(&way)).await?;
                outbound.greet(socket, destination, &way, us).await
            };
            let connected = wait(client, shutdown, connected).await?;
            Ok(connected.map(|leg| (leg, None)))
        }
        Destination::Program(gate) => {
            let hold = hold.get_or_insert_with(|| gate.hold());
            let connected = outbound.pass(gate, destination, (&way, us), shutdown.clone(), hold);
            let connected = wait(client, shutdown, connected).await?;
            Ok(connected.map(|(leg, trial)| (leg, Some(trial))))
        }
    }
}

impl Outbound {
    /// Does the TLS handshake with the target, if targets are encrypted.
    async fn encrypt(&self, socket: Socket, to: &Destination) -> Result<Leg, Unreachable> {
        let Some(tls) = &self.tls else { return Ok(socket.into()) };
        let connector = tls.borrow().clone();
        let encrypted = connector.encrypt(socket, to.certificate_name()).await;
        encrypted.map_err(|why| Unreachable::Encrypt(to.to_string(), why))
    }

    /// Sends the header that says who the client is, if one is wanted, before all else; then does the TLS handshake.
    async fn greet(
        &self,
        mut socket: Socket,
        to: &Destination,
        way: &Way<'_>,
        us: Option<SocketAddr>,
    ) -> Result<Leg, Unreachable> {
        let introduced = way.introduce(&mut socket, us).await;
        introduced.map_err(|error| Unreachable::Connect(to.to_string(), error_text(&error)))?;
        self.encrypt(socket, to).await
    }

    /// Connects to the program. If the program resets the connection before it has read who the client is, or during
    /// the TLS handshake, it may have ended before it accepted the connection (W4), so this is tried once more. If the
    /// next connection is reset as well, the program does not speak TLS.
    async fn pass(
        &self,
        gate: &Gate,
        to: &Destination,
        (way, us): (&Way<'_>, Option<SocketAddr>),
        shutdown: ShutdownWatch,
        hold: &mut Hold,
    ) -> Result<(Leg, Trial), Unreachable> {
        let (socket, trial) = gate.connect(way, shutdown.clone(), hold).await?;
        match self.greet(socket, to, way, us).await {
            Err(Unreachable::Encrypt(_, why)) if why.is_reset() => gate.lost(hold),
            Err(Unreachable::Connect(..)) => gate.lost(hold),
            encrypted => return encrypted.map(|leg| (leg, trial)),
        }
        let (socket, trial) = gate.connect(way, shutdown, hold).await?;
        self.greet(socket, to, way, us).await.map(|leg| (leg, trial))
    }
}

/// Attends to the client until it is connected. `None`: the client is not connected, and has been told why.
async fn wait<T>(
    client: &mut Client,
    shutdown: &mut ShutdownWatch,
    connected: impl Future<Output = Result<T, Unreachable>>,
) -> Result<Option<T>, Waiting> {
    let wait = tokio::select! {
        biased;
        told = shutdown.told(false) => match told {
            Told::Shutdown => Wait::Shutdown,
            Told::Still => Wait::Still,
        },
        () = poll_fn(|cx| client.poll_hold(cx)) => Wait::ClientEnded,
        connected = connected => match connected {
            Ok(connected) => Wait::Connected(connected),
            Err(why) => Wait::Unreachable(why),
        },
    };
    match wait {
        Wait::Connected(connected) => return Ok(Some(connected)),
        Wait::Still => return Err(Waiting),
        Wait::Unreachable(why) if !shutdown.has_reached(Shutdown::Now) => {
            client.session.count_unreachable(&why);
            client.close(why.code(), &why.tell());
        }
        // The target cannot be reached because it was stopped along with us: it is our shutdown that ends the session.
        Wait::Unreachable(_) | Wait::Shutdown => client.close(CloseCode::Away, SHUTTING_DOWN),
        Wait::ClientEnded => {}
    }
    Ok(None)
}

/// Moves bytes until the session is over, or is to stand still.
async fn run(pump: &mut Pump<'_>, turns: &Turns, shutdown: &mut ShutdownWatch) -> Left {
    let mut knows_end = false;
    loop {
        tokio::select! {
            // The shutdown is looked at first: the end of a target that is stopped along with us must not become a
            // 1011.
            biased;
            told = shutdown.told(knows_end) => match told {
                Told::Still => return Left::Still,
                Told::Shutdown => {
                    knows_end = true;
                    pump.shut_down();
                }
            },
            // If this future is dropped, the session loses its place in the queue for a turn, and nothing else.
            end = turns.carry(pump) => return Left::Ended(end),
        }
    }
}
