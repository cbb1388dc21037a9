//! One connection from its accept to its end: TLS or not, requests, the 101, the session, its records in the log.
//!
//! The order of things is here; how each is done is in the modules it calls.

use std::pin::Pin;
use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use crate::admission::Admission;
use crate::arrival::{Arrival, Beginning, StoodConnection};
use crate::book::Book;
use crate::client::Client;
use crate::config::Config;
use crate::http::{self, Upgraded};
use crate::lobby::Guest;
use crate::net::Socket;
use crate::pause::PauseReports;
use crate::peer::Peer;
use crate::record::Recordings;
use crate::redact;
use crate::session::{self, Ongoing};
use crate::shutdown::ShutdownWatch;
use crate::stream::Stream;
use crate::tap::Tap;
use crate::tls::{self, Failure};
use crate::unadmitted::{self, NoSession};
use crate::ws::Encoding;

/// What all connections of a bridge share.
pub(crate) struct Shared {
    pub(crate) config: Arc<Config>,
    pub(crate) admission: Admission,
    pub(crate) book: Arc<Book>,
    pub(crate) sessions: session::Shared,
    /// The saved states of the connections without a session that are stopped for a hand-over.
    pub(crate) stood: PauseReports<StoodConnection>,
    pub(crate) recordings: Option<Arc<Recordings>>,
}

impl Shared {
    /// The client of a session. What is needed later of the handshake is noted in the session book.
    fn client(&self, Upgraded { ticket, mut stream, upgrade }: Upgraded) -> Client {
        stream.has_session();
        self.book.metrics.shook_hands(upgrade.version);
        let (codec, session) = (upgrade.codec(), ticket.session());
        session.entry.note_asked(upgrade.version, &redact::path(&upgrade.path));
        let tap = self.tap((session.entry.id, &session.entry.peer), codec.encoding());
        Client::new(stream, codec, tap, session)
    }

    /// The traffic letters and the recording of a session, if there are any.
    fn tap(&self, session: (u64, &Peer), encoding: Encoding) -> Option<Box<Tap>> {
        let recorder = self.recordings.as_ref().map(|all| all.begin(session, encoding));
        Tap::new(self.config.traffic.clone(), recorder)
    }
}

/// Serves a connection until it ends, and logs its session if it becomes one (B10). What is needed only until the
/// session begins is in a box that is freed then: a session's task lives long, and must be small. No `async fn`, which
/// would keep its arguments twice. True: the connection has [given way](Guest::has_given_way), to make room for others.
pub(crate) fn attend(
    io: Socket,
    (peer, guest): (Peer, Guest),
    from: Beginning,
    shared: Arc<Shared>,
    mut shutdown: ShutdownWatch,
) -> impl Future<Output = bool> {
    let is_from_another = from.is_from_another;
    let arrival = Arrival::new(&io, &peer, &from, Arc::clone(&shutdown.pause), guest);
    let (shared_with_it, told) = (Arc::clone(&shared), shutdown.clone());
    let received = Box::pin(receive(io, peer, from, Arc::clone(&arrival), shared_with_it, told));
    async move {
        shutdown.goes_on(is_from_another.then_some(0)).await;
        let client = match standing_still(received, &arrival, &shared.stood, &mut shutdown).await {
            Ok(upgraded) => shared.client(upgraded),
            Err(why) => {
                shared.book.metrics.no_session(&why);
                unadmitted::ended(&arrival.route(), &why);
                return arrival.guest.has_given_way();
            }
        };
        drop(arrival);
        go_on(Ongoing::begin(client), shared, shutdown).await;
        false
    }
}

/// Runs `received` to its end. Meanwhile the connection stands still when it is told to, for a hand-over, and ends when
/// it is to give way.
async fn standing_still<T>(
    mut received: Pin<Box<impl Future<Output = Result<T, NoSession>>>>,
    arrival: &Arrival,
    stood: &PauseReports<StoodConnection>,
    shutdown: &mut ShutdownWatch,
) -> Result<T, NoSession> {
    loop {
        tokio::select! {
            biased;
            () = shutdown.still() => {
                let stands = arrival.stand(stood);
                shutdown.goes_on(stands).await;
            }
            // Polled before `gives_way`: a request that came before the connection was told to give way counts.
            received = &mut received => return received,
            () = arrival.guest.gives_way() => return Err(NoSession::GaveWay),
        }
    }
}

/// Runs a session from where it is to its end.
#[expect(clippy::manual_async_fn, reason = "it would keep its arguments twice")]
pub(crate) fn go_on(
    mut ongoing: Box<Ongoing>,
    shared: Arc<Shared>,
    mut shutdown: ShutdownWatch,
) -> impl Future<Output = ()> {
    async move {
        session::bridge(&mut ongoing, &shared.sessions, &mut shutdown).await;
        let Ongoing { client, account, .. } = &mut *ongoing;
        let (code, reason) = client.ending();
        account.ended(&client.session.entry, code, reason);
        client.session.entry.note_end(code);
        if let Some(tap) = client.tap.take() {
            Box::pin(tap.finish()).await;
        }
    }
}

/// Reads a connection until its handshake is admitted, or says why it becomes no session. No `async fn`, as above.
fn receive(
    io: Socket,
    peer: Peer,
    from: Beginning,
    arrival: Arc<Arrival>,
    shared: Arc<Shared>,
    mut shutdown: ShutdownWatch,
) -> impl Future<Output = Result<Upgraded, NoSession>> {
    let (since, is_kept_alive) = (from.since, from.is_kept_alive);
    let most = if is_kept_alive { http::IDLE } else { shared.config.head_timeout };
    let opening = begin(io, peer, from, Arc::clone(&arrival), Arc::clone(&shared));
    // In a box of its own: a client that sends nothing, or not enough, needs no room for what comes next (L5).
    let opening = Box::pin(timeout_at(since + most, opening));
    async move {
        let opening = tokio::select! {
            () = shutdown.turned_away() => return Err(NoSession::NoMore),
            opening = opening => opening.map_err(|_| NoSession::TimedOut)?,
        };
        let began = if is_kept_alive { Instant::now() } else { since };
        Box::pin(received(opening?, began, &arrival, shared, shutdown)).await
    }
}

/// Goes on when a connection's first message is there: with the TLS handshake, if it begins one, and with the requests.
async fn received(
    opening: tls::Accepted<Opening>,
    began: Instant,
    arrival: &Arc<Arrival>,
    shared: Arc<Shared>,
    mut shutdown: ShutdownWatch,
) -> Result<Upgraded, NoSession> {
    let accepted = match opening {
        Ok(Opening::Plain(stream, peer)) => Ok((stream, peer)),
        Ok(Opening::None(io, why)) => {
            arrival.busy();
            return Err(Box::pin(http::turn_away(Stream::new(io), why, &mut shutdown)).await);
        }
        Ok(Opening::Hello(acceptor, io, peer)) => {
            // Both are asked: a long hello in the kernel may have counted for as much already, and then `keeps` asks
            // for no memory.
            if !(arrival.guest.keeps(http::first::ENCRYPTED) && arrival.guest.has_memory()) {
                arrival.guest.keeps(0);
                return Err(Box::pin(http::refuse_encrypted(io, &mut shutdown)).await);
            }
            // The handshake's state is freed with its result.
            let shaken = Box::pin(tls::shake_hands(acceptor, io, peer, arrival));
            tokio::select! {
                () = shutdown.turned_away() => return Err(NoSession::NoMore),
                shaken = timeout_at(began + shared.config.head_timeout, shaken) => {
                    shaken.map_err(|_| NoSession::TimedOut)?
                }
            }
        }
        Err(why) => Err(why),
    };
    let (stream, peer) = match accepted {
        Ok(accepted) => accepted,
        Err((why, io)) => {
            if let Some(io) = io {
                http::linger(Stream::new(io), &[], &mut shutdown).await;
            }
            return Err(why.into());
        }
    };
    if let Some(version) = peer.tls {
        shared.book.metrics.encrypted(version);
    }
    let peer = Arc::new(peer);
    let Shared { config, admission, .. } = &*shared;
    match http::receive(stream, &peer, config, admission, began, arrival, &mut shutdown).await {
        Err(NoSession::Io(error)) => {
            Err(Failure::from_read(&error).map_or(NoSession::Io(error), NoSession::NotAccepted))
        }
        received => received,
    }
}

/// What a connection begins with, when that is there.
enum Opening {
    /// A request, or what else is unencrypted.
    Plain(Stream, Peer),
    /// A TLS client's hello.
    Hello(tls::Acceptor, Socket, Peer),
    /// Nothing that is served: the connection is to be answered and closed.
    None(Socket, NoSession),
}

/// The first step: reads the PROXY header of a trusted proxy, and waits for the first message. A silent connection
/// needs nothing but this.
async fn begin(
    mut io: Socket,
    mut peer: Peer,
    from: Beginning,
    arrival: Arc<Arrival>,
    shared: Arc<Shared>,
) -> Result<tls::Accepted<Opening>, NoSession> {
    let (door, access) = (&shared.admission.door, &shared.config.access);
    if !from.is_introduced && !from.is_plain() && door.is_to_introduce(&peer) {
        let mut route = peer.route();
        // Boxed: mostly it is over at once, and its room is free again.
        let introduced = Box::pin(door.introduced(&mut io, peer, &mut route)).await;
        arrival.comes_from(route);
        peer = introduced?;
        arrival.introduced(&peer, door.speaks_for_many(&peer));
    }
    if from.is_kept_alive {
        // The time of its next head begins only with that head (T6). If this is the connection's end, the reader finds that, too.
        io.peek_until(|_, _| Some(())).await?;
        arrival.wakes(Instant::now());
    }
    if from.is_plain() {
        return Ok(Ok(Opening::Plain(Stream::resume(io.into(), &from.head), peer)));
    }
    drop(from);
    let mut head = http::first::Judge::new(&arrival.guest);
    let judge = |seen: &[u8], is_last| head.judge(seen, is_last);
    Ok(match tls::first(io, peer, access, &arrival, judge).await {
        Ok(tls::First::Plain(io, peer, judged)) => {
            let io = io.into_inner();
            Ok(match judged.unwrap_or(Ok(())) {
                Ok(()) => Opening::Plain(Stream::new(io), peer),
                Err(why) => Opening::None(io, why),
            })
        }
        Ok(tls::First::Hello(acceptor, io, peer)) => Ok(Opening::Hello(acceptor, io, peer)),
        Err(why) => Err(why),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destination::Address;
    use crate::net::Lookups;
    use crate::pause::Pause;
    use crate::shutdown::Shutdown;
    use std::time::Duration;
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::watch;
    use tokio::time::{interval, sleep};

    fn shared(head_timeout: Duration) -> Arc<Shared> {
        let config = Arc::new(Config {
            directory: Address { host: String::new(), port: 0 }.into(),
            max_connections: 1,
            memory: 1 << 30,
            head_timeout,
            web: None,
            lists_directories: true,
            subprotocols: vec![],
            run_once: false,
            timeout: None,
            idle_timeout: None,
            is_busy_elsewhere: watch::channel(false).1,
            open_sessions: watch::Sender::default(),
            upkeep: crate::config::Upkeep::default(),
            access: crate::config::Access::default(),
            record: None,
            target_tls: None,
            client_address: crate::client_address::ClientAddress::default(),
            traffic: None,
            observer: None,
        });
        let (book, lookups) = (Book::new(1, false), Lookups::new());
        Arc::new(Shared {
            admission: Admission::new(&config, lookups.clone(), Arc::clone(&book)),
            book,
            sessions: session::Shared {
                outbound: session::Outbound {
                    lookups,
                    tls: None,
                    approach: crate::client_address::TargetConnector::new(
                        config.client_address.clone(),
                    ),
                },
                turns: crate::turns::Turns::new(),
                stood: PauseReports::default(),
            },
            stood: PauseReports::default(),
            recordings: None,
            config,
        })
    }

    /// A client, and our end of its connection.
    async fn connection() -> (TcpStream, Socket) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, listener.accept().await.unwrap().0.into())
    }

    fn someone(io: &TcpStream, shared: &Shared) -> (Peer, Guest) {
        let peer = Peer::new(io.local_addr().unwrap().into());
        let lobby = crate::lobby::Lobby::new(Arc::clone(&shared.book.budget));
        let guest = lobby.enter(Some(peer.address.client()));
        (peer, guest)
    }

    #[tokio::test]
    async fn p6_a_connections_task_is_small() {
        let shared = shared(Duration::ZERO);
        let (client, io) = connection().await;
        let (peer, guest) = someone(&client, &shared);
        let (_sender, shutdown) = watch::channel(Shutdown::Run);
        let shutdown = ShutdownWatch::new(shutdown, Arc::default());
        let size = size_of_val(&attend(io, (peer, guest), Beginning::new(), shared, shutdown));
        assert!(size <= 528, "{size} bytes");
    }

    /// T6: a kept-alive connection that the new binary has begun anew is idle for 60 s at most, and has 10 s for its
    /// head from then on.
    #[tokio::test(start_paused = true)]
    async fn t6_a_kept_alive_connection_begun_anew_has_ten_seconds_for_its_head() {
        // The paused clock jumps ahead when no task is ready. This timer keeps the jumps short, so that the clock does
        // not get far ahead of what happens at a socket.
        tokio::spawn(async {
            let mut often = interval(Duration::from_millis(50));
            loop {
                often.tick().await;
            }
        });
        for (first_byte, seconds) in [(None, 60), (Some(1), 11), (Some(30), 40), (Some(55), 65)] {
            let shared = shared(Duration::from_secs(10));
            let (mut client, io) = connection().await;
            let (peer, guest) = someone(&client, &shared);
            let from = Beginning { is_kept_alive: true, ..Beginning::new() };
            let pause = Arc::new(Pause::default());
            let arrival = Arrival::new(&io, &peer, &from, Arc::clone(&pause), guest);
            let (_sender, shutdown) = watch::channel(Shutdown::Run);
            let shutdown = ShutdownWatch::new(shutdown, Arc::default());
            let began = Instant::now();
            let received = receive(io, peer, from, Arc::clone(&arrival), shared, shutdown);
            let speaks = async {
                if let Some(first_byte) = first_byte {
                    sleep(Duration::from_secs(first_byte)).await;
                    client.write_all(b"G").await.unwrap();
                }
            };
            let (received, ()) = tokio::join!(received, speaks);
            assert!(matches!(received, Err(NoSession::TimedOut)), "{first_byte:?}");
            let took = began.elapsed().as_secs_f64();
            assert!((took - f64::from(seconds)).abs() < 0.5, "{first_byte:?}: {took} s");
            // After another hand-over it has what is left of that time.
            let said = PauseReports::default();
            pause.be_still();
            arrival.stand(&said);
            let [StoodConnection { saved, head }] = &*said.take() else { panic!("one") };
            let since = Instant::from(saved.since.instant()) - began;
            let expected = Duration::from_secs(first_byte.unwrap_or(0));
            assert!(since.abs_diff(expected) < Duration::from_millis(500), "{since:?}");
            assert_eq!(head.is_empty(), first_byte.is_none());
        }
    }
}
