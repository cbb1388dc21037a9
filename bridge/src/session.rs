//! A session from its handshake to its end: it is connected to where it goes, and bytes are moved.
//!
//! The way to a service is one attempt; the way to the program is its gate's, and may be gone again. Must
//! not know how a handshake is read, nor how bytes are moved.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::account::Account;
use crate::client::Client;
use crate::client_address::{Approach, Way};
use crate::destination::Destination;
use crate::error_text::error_text;
use crate::leg::Leg;
use crate::net::{Lookups, Socket};
use crate::program::{Gate, Hold, Trial};
use crate::pump::{End, Pump, SHUTTING_DOWN};
use crate::shutdown::{Shutdown, ShutdownWatch};
use crate::tls::Connector;
use crate::turns::Turns;
use crate::unreachable::Unreachable;

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
}

/// Connects the client to its destination and moves bytes until that is over. Has the log say that it starts.
pub(crate) async fn bridge(
    client: &mut Client,
    account: &mut Account,
    outbound: &Outbound,
    turns: &Turns,
    shutdown: &mut ShutdownWatch,
) {
    let entry = Arc::clone(&client.session.entry);
    let destination = &*entry.destination;
    let mut is_recorded = !destination.has_name();
    if is_recorded {
        account.reach(|| destination.reached(None));
        account.started(&entry);
    }
    let mut hold = None;
    loop {
        let connected = connect(client, destination, outbound, shutdown, &mut hold);
        let connected = Box::pin(connected).await;
        if let Some((leg, _)) = &connected {
            account.reach(|| destination.reached(Some(leg)));
        }
        if !std::mem::replace(&mut is_recorded, true) {
            account.started(&entry);
        }
        let Some((leg, trial)) = connected else { break };
        let mut pump = Pump::new(client, leg, trial, shutdown.clone());
        match run(&mut pump, turns, shutdown).await {
            End::Finished => return pump.end(),
            End::Lost => {
                if let (Destination::Program(gate), Some(hold)) = (destination, &mut hold) {
                    gate.lost(hold);
                }
            }
        }
        if client.is_over() {
            break;
        }
    }
    Box::pin(client.farewell()).await;
}

/// Connects once. `hold` is what a client of the program has left of its time.
async fn connect(
    client: &mut Client,
    destination: &Destination,
    outbound: &Outbound,
    shutdown: &mut ShutdownWatch,
    hold: &mut Option<Hold>,
) -> Option<(Leg, Option<Trial>)> {
    let session = &client.session.entry;
    let way = outbound.approach.way(&session.peer, session.id);
    let us = way.introduces().then(|| client.local_address()).flatten();
    match destination {
        Destination::Service(endpoint) => {
            let connected = async {
                let socket = endpoint.connect(&outbound.lookups, Some(&way)).await?;
                outbound.greet(socket, destination, &way, us).await
            };
            wait(client, shutdown, connected).await.map(|leg| (leg, None))
        }
        Destination::Program(gate) => {
            let hold = hold.get_or_insert_with(|| gate.hold());
            let connected = outbound.pass(gate, destination, (&way, us), shutdown.clone(), hold);
            let connected = wait(client, shutdown, connected).await;
            connected.map(|(leg, trial)| (leg, Some(trial)))
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
) -> Option<T> {
    let wait = tokio::select! {
        biased;
        () = shutdown.at_least(Shutdown::Now) => Wait::Shutdown,
        () = poll_fn(|cx| client.poll_hold(cx)) => Wait::ClientEnded,
        connected = connected => match connected {
            Ok(connected) => Wait::Connected(connected),
            Err(why) => Wait::Unreachable(why),
        },
    };
    match wait {
        Wait::Connected(connected) => return Some(connected),
        Wait::Unreachable(why) if !shutdown.has_reached(Shutdown::Now) => {
            client.session.count_unreachable(&why);
            client.close(why.code(), &why.tell());
        }
        // Stopped along with us, it cannot be reached: we are what ends the session.
        Wait::Unreachable(_) | Wait::Shutdown => client.close(CloseCode::Away, SHUTTING_DOWN),
        Wait::ClientEnded => {}
    }
    None
}

async fn run(pump: &mut Pump<'_>, turns: &Turns, shutdown: &mut ShutdownWatch) -> End {
    let mut is_told = false;
    loop {
        tokio::select! {
            // Being told to stop comes first: a target that is stopped along with us must not make a 1011 of it.
            biased;
            () = shutdown.at_least(Shutdown::Now), if !is_told => {
                is_told = true;
                pump.shut_down();
            }
            // Dropped, it loses its place in the queue and nothing else.
            end = turns.carry(pump) => return end,
        }
    }
}
