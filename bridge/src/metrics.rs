//! The counters of the bridge: connections, handshakes, look-ups, sessions, and why connections got no session. The set of
//! counters is fixed, so that it does not grow whatever clients send. They change where one of these begins or ends, never for a
//! frame: the bytes of open sessions are counted in the [book](crate::book). Knows numbers and their names; must not know who
//! reads them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::directory::NoDestination;
use crate::peer::TlsVersion;
use crate::proxies::ProxyHeaderError;
use crate::tls::Failure;
use crate::unadmitted::NoSession;
use crate::unreachable::Unreachable;

/// The counters by family and name, as they are handed over to the new binary.
pub(crate) type SavedCounts = BTreeMap<String, BTreeMap<String, u64>>;

/// A name, and how often what it names has happened.
pub type Counted = (&'static str, u64);

/// The bounds by which look-up times are counted, in seconds; a longer look-up counts only in the total.
pub const LOOKUP_SECONDS: [f64; 9] = [0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];

/// The names of these bounds in the state that is handed over.
const LOOKUP_NAMES: [&str; LOOKUP_SECONDS.len() + 1] =
    ["0.0005", "0.001", "0.005", "0.01", "0.05", "0.1", "0.5", "1", "5", "more"];

/// An enum with a fixed set of variants, each with a name and a number from 0.
macro_rules! names {
    ($(#[$about:meta])* $set:ident { $($(#[$meaning:meta])* $name:ident = $text:literal,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $set { $($(#[$meaning])* $name),+ }

        impl $set {
            const NAMES: &[&'static str] = &[$($text),+];
        }
    };
}

names! {
    /// Why a client got neither a session nor a file.
    Refused {
        /// Clients of this address may not connect.
        Address = "address",
        ClientLimit = "client_limit",
        SessionLimit = "session_limit",
        Draining = "draining",
        /// The client has sent none yet: a browser's first request has none.
        NoCredentials = "no_credentials",
        Credentials = "credentials",
        /// There were too many wrong credentials before; these were not checked.
        Guessing = "guessing",
        Origin = "origin",
        CertificateName = "certificate_name",
        Helper = "helper",
        NoToken = "no_token",
        UnknownToken = "unknown_token",
        InvalidToken = "invalid_token",
        TargetNotAllowed = "target_not_allowed",
        /// No answer from a source or helper on where the client's token leads, or whether the client is let in.
        Unanswered = "unanswered",
        /// No WebSocket handshake that can be answered.
        Handshake = "handshake",
        /// No HTTP.
        Head = "head",
        ProxyHeader = "proxy_header",
        /// The connection is not encrypted, and has to be.
        Unencrypted = "unencrypted",
        Timeout = "timeout",
        /// The connection had no session yet and was closed to make room for another, or to free memory.
        GaveWay = "gave_way",
    }
}

names! {
    /// Why there was no TLS with a client.
    TlsFailed {
        /// We have no certificate.
        Off = "no_certificate",
        Sslv2 = "sslv2",
        ClientCertificate = "client_certificate",
        NoClientCertificate = "no_client_certificate",
        Handshake = "handshake",
    }
}

names! {
    /// Why a session got no connection to its target.
    TargetFailed {
        Connect = "connect",
        Tls = "tls",
        NotListening = "not_listening",
        NotStarted = "not_started",
        ProgramEnded = "program_ended",
    }
}

names! {
    /// What became of a look-up.
    LookedUp {
        Found = "found",
        Unknown = "unknown",
        Failed = "failed",
    }
}

/// The close codes that mean the same everywhere (RFC 6455, section 7.4.1, and the IANA's registry).
const CODES: [Counted; 15] = [
    ("1000", 1000),
    ("1001", 1001),
    ("1002", 1002),
    ("1003", 1003),
    ("1005", 1005),
    ("1006", 1006),
    ("1007", 1007),
    ("1008", 1008),
    ("1009", 1009),
    ("1010", 1010),
    ("1011", 1011),
    ("1012", 1012),
    ("1013", 1013),
    ("1014", 1014),
    // Any other code that a client may send.
    ("other", 0),
];

/// The versions of the WebSocket protocol.
const VERSIONS: [&str; 5] = ["13", "8", "7", "hixie-76", "hixie-75"];

const TLS_VERSIONS: [&str; 2] = ["1.2", "1.3"];

/// A fixed number of counters.
#[derive(Debug)]
struct Tally<const N: usize>([AtomicU64; N]);

impl<const N: usize> Default for Tally<N> {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; N])
    }
}

impl<const N: usize> Tally<N> {
    fn add(&self, at: usize) {
        self.0[at].fetch_add(1, Ordering::Relaxed);
    }

    fn numbers(&self) -> [u64; N] {
        std::array::from_fn(|at| self.0[at].load(Ordering::Relaxed))
    }

    fn called(
        &self,
        family: &'static str,
        names: impl Iterator<Item = &'static str>,
    ) -> Vec<(&'static str, &'static str, &AtomicU64)> {
        names.zip(&self.0).map(|(name, number)| (family, name, number)).collect()
    }

    fn named(&self, names: impl IntoIterator<Item = &'static str>) -> Vec<Counted> {
        names.into_iter().zip(self.numbers()).collect()
    }
}

/// The counters of one bridge.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    accepted: AtomicU64,
    closed: AtomicU64,
    refused: Tally<{ Refused::NAMES.len() }>,
    handshakes: Tally<{ VERSIONS.len() }>,
    tls: Tally<{ TLS_VERSIONS.len() }>,
    tls_failed: Tally<{ TlsFailed::NAMES.len() }>,
    target_failed: Tally<{ TargetFailed::NAMES.len() }>,
    ended: Tally<{ CODES.len() }>,
    lookups: Tally<{ LookedUp::NAMES.len() }>,
    /// Look-ups by the bound that their time keeps; the last counts those beyond all bounds.
    lookup_times: Tally<{ LOOKUP_SECONDS.len() + 1 }>,
    /// The time of all look-ups together, in nanoseconds.
    lookup_time: AtomicU64,
}

/// What a bridge has counted since it began.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counts {
    /// Connections of clients.
    pub connections: u64,
    /// Those of them that are open.
    pub open_connections: u64,
    /// Sessions that have begun.
    pub sessions: u64,
    /// Those of them that are open.
    pub open_sessions: u64,
    /// Payload bytes from clients.
    pub received: u64,
    /// Payload bytes for clients.
    pub sent: u64,
    /// Sessions that have ended, by their close code.
    pub ended: Vec<Counted>,
    /// Requests and connections that were refused, by the reason.
    pub refused: Vec<Counted>,
    /// WebSocket handshakes that have become sessions, by the protocol's version.
    pub handshakes: Vec<Counted>,
    /// TLS handshakes of clients, by the version.
    pub tls: Vec<Counted>,
    /// Clients that got no TLS, by the reason.
    pub tls_failed: Vec<Counted>,
    /// Sessions that got no connection to their target, by the reason.
    pub target_failed: Vec<Counted>,
    /// Look-ups of tokens, by what became of them.
    pub lookups: Vec<Counted>,
    /// How many look-ups took at most as long as the bound in [`LOOKUP_SECONDS`] at the same index.
    pub lookup_times: [u64; LOOKUP_SECONDS.len()],
    /// How many look-ups there were.
    pub lookups_in_all: u64,
    /// How many seconds all look-ups took together.
    pub lookup_seconds: f64,
}

impl Metrics {
    pub(crate) fn accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection has ended that was accepted.
    pub(crate) fn closed(&self) {
        self.closed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn refused(&self, why: Refused) {
        self.refused.add(why as usize);
    }

    /// Counts why a connection has ended without a session. A request that was refused was counted when it was refused.
    pub(crate) fn no_session(&self, why: &NoSession) {
        let why = match why {
            NoSession::Stranger => Refused::Address,
            NoSession::FarTooMany => Refused::ClientLimit,
            NoSession::ProxyHeaderError(ProxyHeaderError::Malformed(_)) => Refused::ProxyHeader,
            NoSession::TimedOut => Refused::Timeout,
            NoSession::GaveWay => Refused::GaveWay,
            NoSession::NoRequest => Refused::Head,
            NoSession::NoMemory => Refused::SessionLimit,
            NoSession::Http(error) if error.is_parse() => Refused::Head,
            NoSession::NotAccepted(failure) => return self.not_accepted(failure),
            // The client has left, or the bridge is ending.
            NoSession::Left
            | NoSession::NoMore
            | NoSession::Http(_)
            | NoSession::ProxyHeaderError(_)
            | NoSession::Io(_) => return,
        };
        self.refused(why);
    }

    fn not_accepted(&self, failure: &Failure) {
        let failed = match failure {
            Failure::Closed | Failure::Unreadable(_) => return,
            Failure::Plain => return self.refused(Refused::Unencrypted),
            Failure::Stranger => return self.refused(Refused::Address),
            Failure::Off(_) => TlsFailed::Off,
            Failure::Sslv2 => TlsFailed::Sslv2,
            Failure::ClientCertificate(_) => TlsFailed::ClientCertificate,
            Failure::NoClientCertificate => TlsFailed::NoClientCertificate,
            Failure::Handshake(_) => TlsFailed::Handshake,
        };
        self.tls_failed.add(failed as usize);
    }

    /// A client's TLS handshake is done.
    pub(crate) fn encrypted(&self, version: TlsVersion) {
        self.tls.add(usize::from(version == TlsVersion::V1_3));
    }

    /// A WebSocket handshake in this version has become a session.
    pub(crate) fn shook_hands(&self, version: &str) {
        let known = VERSIONS.iter().position(|known| *known == version);
        debug_assert!(known.is_some(), "version {version} has no name here");
        if let Some(at) = known {
            self.handshakes.add(at);
        }
    }

    /// A session has ended with this code.
    pub(crate) fn ended(&self, code: u16) {
        let known = CODES.iter().position(|(_, known)| *known == u64::from(code));
        self.ended.add(known.unwrap_or(CODES.len() - 1));
    }

    /// A session gets no connection to its target.
    pub(crate) fn unreachable(&self, why: &Unreachable) {
        let failed = match why {
            Unreachable::Connect(..) => TargetFailed::Connect,
            Unreachable::Encrypt(..) => TargetFailed::Tls,
            Unreachable::NotListening(_) => TargetFailed::NotListening,
            Unreachable::NotStarted => TargetFailed::NotStarted,
            Unreachable::Gone => TargetFailed::ProgramEnded,
            Unreachable::Draining | Unreachable::ShuttingDown => return,
        };
        self.target_failed.add(failed as usize);
    }

    /// A token was looked up with this result, in this time.
    pub(crate) fn looked_up<T>(&self, found: &Result<T, NoDestination>, time: Duration) {
        let became = match found {
            // Nothing was looked up.
            Err(NoDestination::NoToken) => return,
            Ok(_) | Err(NoDestination::NotAllowed(_)) => LookedUp::Found,
            Err(NoDestination::UnknownToken | NoDestination::InvalidToken(_)) => LookedUp::Unknown,
            Err(
                NoDestination::Source(_) | NoDestination::Unresolved(..) | NoDestination::Late(_),
            ) => LookedUp::Failed,
        };
        let seconds = time.as_secs_f64();
        let at = LOOKUP_SECONDS.iter().position(|bound| seconds <= *bound);
        self.lookup_times.add(at.unwrap_or(LOOKUP_SECONDS.len()));
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.lookup_time.fetch_add(nanoseconds, Ordering::Relaxed);
        self.lookups.add(became as usize);
    }

    /// All counters, with their families and names.
    fn numbers(&self) -> Vec<(&'static str, &'static str, &AtomicU64)> {
        let one = |family, number| vec![(family, "", number)];
        let codes = || CODES.iter().map(|(name, _)| *name);
        let times = LOOKUP_NAMES.into_iter();
        [
            one("accepted", &self.accepted),
            one("closed", &self.closed),
            one("lookup_time", &self.lookup_time),
            self.refused.called("refused", Refused::NAMES.iter().copied()),
            self.handshakes.called("handshakes", VERSIONS.into_iter()),
            self.tls.called("tls", TLS_VERSIONS.into_iter()),
            self.tls_failed.called("tls_failed", TlsFailed::NAMES.iter().copied()),
            self.target_failed.called("target_failed", TargetFailed::NAMES.iter().copied()),
            self.ended.called("ended", codes()),
            self.lookups.called("lookups", LookedUp::NAMES.iter().copied()),
            self.lookup_times.called("lookup_times", times),
        ]
        .concat()
    }

    /// The counters for the new binary, which counts on from them (O2).
    pub(crate) fn saved(&self) -> SavedCounts {
        let mut saved = SavedCounts::new();
        for (family, name, number) in self.numbers() {
            let number = number.load(Ordering::Relaxed);
            saved.entry(family.to_owned()).or_default().insert(name.to_owned(), number);
        }
        saved
    }

    /// Counts on from the counters of the old binary, found by their names. `open` of the accepted connections are open now.
    pub(crate) fn resume(&self, saved: &SavedCounts, open: u64) {
        for (family, name, number) in self.numbers() {
            let known = saved.get(family).and_then(|family| family.get(name));
            number.store(known.copied().unwrap_or(0), Ordering::Relaxed);
        }
        let accepted = self.accepted.load(Ordering::Relaxed);
        self.closed.store(accepted.saturating_sub(open), Ordering::Relaxed);
    }

    /// All counts but those of the sessions, which the book has.
    pub(crate) fn counts(&self) -> Counts {
        let names = |names: &'static [&'static str]| names.iter().copied();
        // `closed` is read first, so that never more connections have ended than begun.
        let closed = self.closed.load(Ordering::Relaxed);
        let connections = self.accepted.load(Ordering::Relaxed);
        let times = self.lookup_times.numbers();
        let mut so_far = 0;
        let nanoseconds = Duration::from_nanos(self.lookup_time.load(Ordering::Relaxed));
        Counts {
            connections,
            open_connections: connections.saturating_sub(closed),
            ended: self.ended.named(CODES.iter().map(|(name, _)| *name)),
            refused: self.refused.named(names(Refused::NAMES)),
            handshakes: self.handshakes.named(VERSIONS),
            tls: self.tls.named(TLS_VERSIONS),
            tls_failed: self.tls_failed.named(names(TlsFailed::NAMES)),
            target_failed: self.target_failed.named(names(TargetFailed::NAMES)),
            lookups: self.lookups.named(names(LookedUp::NAMES)),
            lookup_times: std::array::from_fn(|at| {
                so_far += times[at];
                so_far
            }),
            lookups_in_all: times.iter().sum(),
            lookup_seconds: nanoseconds.as_secs_f64(),
            ..Counts::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(counts: &[Counted], name: &str) -> u64 {
        counts.iter().find(|(known, _)| *known == name).unwrap().1
    }

    #[test]
    fn o3_each_reason_has_a_number_of_its_own_and_a_client_can_make_no_more() {
        let metrics = Metrics::default();
        metrics.refused(Refused::Address);
        metrics.refused(Refused::Timeout);
        metrics.no_session(&NoSession::Stranger);
        metrics.no_session(&NoSession::NotAccepted(Failure::Plain));
        metrics.no_session(&NoSession::NotAccepted(Failure::Sslv2));
        metrics.no_session(&NoSession::Left);
        for code in [1000, 1000, 1006, 3000, 4999, 0] {
            metrics.ended(code);
        }
        for version in VERSIONS {
            metrics.shook_hands(version);
        }
        let counts = metrics.counts();
        let refused = |name| counted(&counts.refused, name);
        assert_eq!([refused("address"), refused("timeout"), refused("unencrypted")], [2, 1, 1]);
        assert_eq!(counts.refused.iter().map(|(_, count)| count).sum::<u64>(), 4);
        assert_eq!(counted(&counts.tls_failed, "sslv2"), 1);
        let ended = |name| counted(&counts.ended, name);
        assert_eq!([ended("1000"), ended("1006"), ended("other")], [2, 1, 3]);
        assert!(counts.handshakes.iter().all(|(_, count)| *count == 1));
    }

    #[test]
    fn o3_a_look_up_counts_for_all_bounds_that_it_keeps() {
        let metrics = Metrics::default();
        let found = |result: Result<(), _>, milliseconds| {
            metrics.looked_up(&result, Duration::from_millis(milliseconds));
        };
        found(Ok(()), 1);
        found(Err(NoDestination::UnknownToken), 40);
        found(Err(NoDestination::Late(String::new())), 10_000);
        found(Err(NoDestination::NoToken), 10_000);
        let counts = metrics.counts();
        assert_eq!(counts.lookup_times, [0, 1, 1, 1, 2, 2, 2, 2, 2]);
        assert_eq!(counts.lookups_in_all, 3);
        assert_eq!(counts.lookups, [("found", 1), ("unknown", 1), ("failed", 1)]);
        assert!((counts.lookup_seconds - 10.041).abs() < 1e-9);
    }
}
