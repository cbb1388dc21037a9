//! A session from its handshake to its end: it is connected to where it goes, and bytes are moved.
//!
//! The way to a service is one attempt; the way to the program is its gate's, and may be gone again. Must
//! not know how a handshake is read, nor how bytes are moved.

mod saved;
mod stood;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::account::Account;
use crate::book::Entry;
use crate::client::Client;
use crate::client_address::{Approach, Way};
use crate::destination::Destination;
use crate::error_text::error_text;
use crate::leg::Leg;
use crate::net::{Lookups, Socket};
use crate::pause::Said;
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
    /// What those say of themselves that stand still.
    pub(crate) stood: Said<StoodSession>,
}

/// How targets are reached.
pub(crate) struct Outbound {
    pub(crate) lookups: Lookups,
    /// What encrypts the connection, where that is asked for; may change at any time, for the sessions to come.
    pub(crate) tls: Option<watch::Receiver<Connector>>,
    /// Who clients are shown as.
    pub(crate) approach: Approach,
}

/// How the wait for a connection ended.
enum Wait<T> {
    Connected(T),
    Unreachable(Unreachable),
    /// The client's input ended first, and left nothing to be delivered.
    ClientEnded,
    /// [`Shutdown::Now`] came first.
    Shutdown,
    /// It is to stand still, without a connection.
    Still,
}

/// How far a session is.
pub(crate) struct Course {
    pub(crate) stage: Stage,
    /// What a client of the program has left of its time, once it has been held.
    hold: Option<Hold>,
    /// Whether the log has its beginning.
    is_recorded: bool,
}

/// What a session is about.
pub(crate) enum Stage {
    /// It gets a connection.
    Connecting,
    /// It has one.
    Joined(Joined),
    /// It is over but for its last words.
    Leaving,
}

/// How moving bytes was left.
enum Left {
    Ended(End),
    /// To stand still.
    Still,
}

/// What is next for a session.
enum Next {
    /// Its stage.
    Stage,
    /// The same, when it may go on.
    Still,
    Over,
}

/// A session, and how far it is. Boxed, it is moved as one pointer, and a task has room for it once.
pub(crate) struct Ongoing {
    pub(crate) client: Client,
    pub(crate) account: Account,
    pub(crate) course: Course,
}

impl Ongoing {
    pub(crate) fn begin(client: Client) -> Box<Self> {
        let mut account = Account::default();
        let course = Course::begin(&client.session.entry, &mut account);
        Box::new(Self { client, account, course })
    }
}

impl Course {
    /// At its beginning. The log learns of a target that has a name when that was reached.
    fn begin(entry: &Entry, account: &mut Account) -> Self {
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

    /// The program has dropped the connection: another may still serve this client.
    fn lost(&mut self, client: &Client) {
        if let (Destination::Program(gate), Some(hold)) =
            (&*client.session.entry.destination, &mut self.hold)
        {
            gate.lost(hold);
        }
        self.stage = if client.is_over() { Stage::Leaving } else { Stage::Connecting };
    }
}

/// Takes the client on from there: connects it to its destination and moves bytes until that is over. While they are moved,
/// nothing else is kept here: there are many sessions, and most are idle.
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
                        Left::Still => {
                            pump.halt();
                            Next::Still
                        }
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

/// Says what the session is, and waits until it may go on.
async fn stand_still(
    ongoing: &mut Ongoing,
    stood: &Said<StoodSession>,
    shutdown: &mut ShutdownWatch,
) {
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
    // Who has borrowed them gives them back, or this process is gone.
    if let Ok((leg, target)) = back.await {
        *client.leg() = leg;
        if let (Some(place), Some(target)) = (course.target(), target) {
            *place = target;
        }
    }
}

/// Still without a connection: it is to stand still.
struct Waiting;

/// Connects once. `hold` is what a client of the program has left of its time. `None`: it is not connected, and has been
/// told why.
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
    /// Shakes hands with whoever is there, where that is asked for.
    async fn encrypt(&self, socket: Socket, to: &Destination) -> Result<Leg, Unreachable> {
        let Some(tls) = &self.tls else { return Ok(socket.into()) };
        let connector = tls.borrow().clone();
        let encrypted = connector.encrypt(socket, to.certificate_name()).await;
        encrypted.map_err(|why| Unreachable::Encrypt(to.to_string(), why))
    }

    /// Says who the client is, where that is asked for, before all else.
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

    /// To the program. One that resets the connection before it has heard who the client is, or during the
    /// handshake, may have ended before it has accepted it (W4); if the next does so too, it does not speak TLS.
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

/// Attends to the client until it is connected. `None`: it is not, and has been told why.
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
        // Stopped along with us, it cannot be reached: we are what ends the session.
        Wait::Unreachable(_) | Wait::Shutdown => client.close(CloseCode::Away, SHUTTING_DOWN),
        Wait::ClientEnded => {}
    }
    Ok(None)
}

/// Moves bytes, until that is over, or it is to stand still.
async fn run(pump: &mut Pump<'_>, turns: &Turns, shutdown: &mut ShutdownWatch) -> Left {
    let mut knows_end = false;
    loop {
        tokio::select! {
            // Being told to stop comes first: a target that is stopped along with us must not make a 1011 of it.
            biased;
            told = shutdown.told(knows_end) => match told {
                Told::Still => return Left::Still,
                Told::Shutdown => {
                    knows_end = true;
                    pump.shut_down();
                }
            },
            // Dropped, it loses its place in the queue and nothing else.
            end = turns.carry(pump) => return Left::Ended(end),
        }
    }
}
