//! Records for a syslog server: a datagram each, to its local socket or by UDP, in the format of RFC 5424 or of
//! RFC 3164. A thread of its own sends them: a server that is away, or slow, loses records and holds up
//! nobody. Knows the formats, and not what is logged.

use std::fmt;
use std::io;
use std::net::{ToSocketAddrs, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber, warn};
use tracing_subscriber::layer::{Context, Layer};

use super::{Escaped, IN_WORDS};
use crate::writer::{self, Queue, Writer};

/// Our name in the records.
const NAME: &str = "websockify";
/// A longer record is cut: servers take no more by default, and many networks no more in one datagram.
const LONGEST: usize = 8 * 1024;

/// A syslog server, by the place where it takes records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Server {
    /// Such as `/dev/log`.
    Local(PathBuf),
    Udp {
        host: String,
        port: u16,
    },
}

/// How a record is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Rfc5424,
    /// `--legacy-syslog`.
    Rfc3164,
}

/// The facility that our records name (RFC 5424, section 6.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Facility {
    User = 1,
    Daemon = 3,
}

/// A server, and how records are written for it.
#[derive(Debug, Clone)]
pub(crate) struct Syslog {
    server: Server,
    format: Format,
    facility: Facility,
}

/// A layer that sends events to a syslog server.
#[derive(Debug)]
pub(super) struct Records(Queue<Record>);

/// An event as it is queued.
#[derive(Debug)]
struct Record {
    severity: u8,
    at: SystemTime,
    text: String,
}

impl Syslog {
    pub(super) fn new(server: Server, format: Format, facility: Facility) -> Self {
        Self { server, format, facility }
    }

    /// Why the server cannot be reached, if that is known at once. The thread finds out whether a host has an address:
    /// a name server may be slow.
    pub(super) fn warning(&self) -> Option<String> {
        match self.server {
            Server::Local(_) => Link::open(&self.server).err().map(|error| self.away(&error)),
            Server::Udp { .. } => None,
        }
    }

    fn away(&self, error: &io::Error) -> String {
        let why = bridge::error_text(error);
        format!("cannot reach syslog at {}: {why}; what it misses is lost", self.server)
    }

    /// Begins to send; what is pending is sent when the [`Writer`] is dropped.
    pub(super) fn open(&self) -> io::Result<(Records, Writer)> {
        let mut sender = Sender {
            head: Head { syslog: self.clone(), host: host_name(), pid: std::process::id() },
            link: None,
            lost: 0,
            is_said: self.warning().is_some(),
        };
        let (records, writer) =
            writer::start("syslog", move |record, dropped| sender.send(&record, dropped))?;
        Ok((Records(records), writer))
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(path) => path.display().fmt(f),
            Self::Udp { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// A socket that is connected to the server.
#[derive(Debug)]
enum Link {
    Local(UnixDatagram),
    Udp(UdpSocket),
}

impl Link {
    fn open(server: &Server) -> io::Result<Self> {
        match server {
            Server::Local(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                Ok(Self::Local(socket))
            }
            Server::Udp { host, port } => {
                let mut failed = io::ErrorKind::NotFound.into();
                for address in (host.as_str(), *port).to_socket_addrs()? {
                    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                    let connected = UdpSocket::bind(any)
                        .and_then(|socket| socket.connect(address).map(|()| socket));
                    match connected {
                        Ok(socket) => return Ok(Self::Udp(socket)),
                        Err(error) => failed = error,
                    }
                }
                Err(failed)
            }
        }
    }

    fn send(&self, datagram: &[u8]) -> io::Result<()> {
        match self {
            Self::Local(socket) => socket.send(datagram),
            Self::Udp(socket) => socket.send(datagram),
        }
        .map(drop)
    }
}

/// Sends records, and counts those that are lost.
struct Sender {
    head: Head,
    link: Option<Link>,
    lost: u64,
    /// Whether the log has been told that the server cannot be reached.
    is_said: bool,
}

impl Sender {
    fn send(&mut self, record: &Record, dropped: u64) {
        self.lost += dropped;
        if self.lost > 0 {
            let text = format!("{} records lost: syslog was away or slow", self.lost);
            let told = Record { severity: severity(Level::WARN), at: record.at, text };
            if self.deliver(&told) {
                self.lost = 0;
            }
        }
        if !self.deliver(record) {
            self.lost += 1;
        }
    }

    /// Sends a record. A server that was started anew has another socket: so a failed send is tried once more, with a
    /// new connection.
    fn deliver(&mut self, record: &Record) -> bool {
        let datagram = self.head.datagram(record);
        for _ in 0..2 {
            let syslog = &self.head.syslog;
            let link = self.link.take().map_or_else(|| Link::open(&syslog.server), Ok);
            match link {
                Ok(link) if link.send(datagram.as_bytes()).is_ok() => {
                    self.link = Some(link);
                    return true;
                }
                Ok(_) => {}
                Err(error) => {
                    // This warning is a record too, and comes to this thread as well.
                    if !std::mem::replace(&mut self.is_said, true) {
                        warn!("{}", syslog.away(&error));
                    }
                    return false;
                }
            }
        }
        false
    }
}

/// What is written before the text of each record.
struct Head {
    syslog: Syslog,
    host: String,
    pid: u32,
}

impl Head {
    fn datagram(&self, record: &Record) -> String {
        let Self { syslog: Syslog { server, format, facility }, host, pid } = self;
        let priority = *facility as u8 * 8 + record.severity;
        let head = match (format, server) {
            (Format::Rfc5424, _) => {
                format!("<{priority}>1 {} {host} {NAME} {pid} - - ", universal_time(record.at))
            }
            // As syslog(3) writes it to a local socket: without a host.
            (Format::Rfc3164, Server::Local(_)) => {
                format!("<{priority}>{} {NAME}[{pid}]: ", local_time(record.at))
            }
            (Format::Rfc3164, Server::Udp { .. }) => {
                format!("<{priority}>{} {host} {NAME}[{pid}]: ", local_time(record.at))
            }
        };
        let text = &record.text;
        let mut end = text.len().min(LONGEST - head.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        head + &text[..end]
    }
}

/// RFC 5424, section 6.2.3: `1994-11-06T08:49:37.000000Z`.
pub(crate) fn universal_time(at: SystemTime) -> String {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let parts = parts(since, Zone::Universal);
    let libc::tm { tm_mday, tm_hour, tm_min, tm_sec, .. } = parts;
    let (year, month, micros) = (parts.tm_year + 1900, parts.tm_mon + 1, since.subsec_micros());
    format!("{year}-{month:02}-{tm_mday:02}T{tm_hour:02}:{tm_min:02}:{tm_sec:02}.{micros:06}Z")
}

/// RFC 3164, section 4.1.2: `Nov  6 08:49:37`, this machine's time.
fn local_time(at: SystemTime) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let parts = parts(since, Zone::Local);
    let month = usize::try_from(parts.tm_mon).unwrap_or_default();
    let month = MONTHS[month.min(MONTHS.len() - 1)];
    let libc::tm { tm_mday, tm_hour, tm_min, tm_sec, .. } = parts;
    format!("{month} {tm_mday:2} {tm_hour:02}:{tm_min:02}:{tm_sec:02}")
}

/// The time zone in which a time is shown.
#[derive(Debug, Clone, Copy)]
enum Zone {
    Universal,
    Local,
}

/// A time since 1970 as a date and a time of day.
#[allow(unsafe_code)]
fn parts(since: Duration, zone: Zone) -> libc::tm {
    let convert = match zone {
        Zone::Universal => libc::gmtime_r,
        Zone::Local => libc::localtime_r,
    };
    let seconds = libc::time_t::try_from(since.as_secs()).unwrap_or_default();
    // SAFETY: a `tm` consists of integers and a pointer that may be null, so all zeroes are a valid value.
    let mut parts: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are valid during the call, and the function writes to `parts` alone.
    unsafe { convert(&raw const seconds, &raw mut parts) };
    parts
}

/// RFC 5424, section 6.2.4: without blanks, `-` if there is none.
fn host_name() -> String {
    // Not from /proc, where a service may see processes alone.
    let uname = rustix::system::uname();
    let name = uname.nodename().to_string_lossy();
    let name: String = name.chars().filter(char::is_ascii_graphic).take(255).collect();
    if name.is_empty() { "-".into() } else { name }
}

/// RFC 5424, section 6.2.1.
fn severity(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

impl<S: Subscriber> Layer<S> for Records {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = String::new();
        event.record(&mut Words(&mut text));
        let severity = severity(*event.metadata().level());
        let size = text.len();
        self.0.put(Record { severity, at: SystemTime::now(), text }, size);
    }
}

/// Collects the message, and behind it the fields that it does not have in words.
struct Words<'a>(&'a mut String);

impl Visit for Words<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let name = field.name();
        if name == "message" {
            self.0.insert_str(0, &Escaped(&format!("{value:?}")).to_string());
        } else if !IN_WORDS.contains(&name) {
            self.0.push_str(&Escaped(&format!(" {name}={value:?}")).to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn head(format: Format, server: Server) -> Head {
        let syslog = Syslog::new(server, format, Facility::Daemon);
        Head { syslog, host: "host".into(), pid: 7 }
    }

    fn record(text: &str) -> Record {
        Record { severity: severity(Level::WARN), at: SystemTime::UNIX_EPOCH, text: text.into() }
    }

    #[test]
    fn u7_a_record_in_each_format() {
        let local = || Server::Local("/dev/log".into());
        let new = head(Format::Rfc5424, local()).datagram(&record("text"));
        assert_eq!(new, "<28>1 1970-01-01T00:00:00.000000Z host websockify 7 - - text");
        // Wherever this machine is, the first of January or the last of December.
        let old = head(Format::Rfc3164, local()).datagram(&record("text"));
        let is_date = old.starts_with("<28>Jan  1 ") || old.starts_with("<28>Dec 31 ");
        assert!(is_date && old.ends_with(" websockify[7]: text"), "{old}");
        let udp = Server::Udp { host: "a".into(), port: 514 };
        let old = head(Format::Rfc3164, udp).datagram(&record("text"));
        assert!(old.ends_with(" host websockify[7]: text"), "{old}");
    }

    /// The thread may send them much later.
    #[test]
    fn u7_records_carry_the_time_at_which_they_were_made() {
        let at = SystemTime::UNIX_EPOCH + Duration::new(951_827_696, 7_000_999);
        assert_eq!(universal_time(at), "2000-02-29T12:34:56.007000Z");
    }

    #[test]
    fn u7_a_long_record_is_cut_between_characters() {
        let long = "é".repeat(LONGEST);
        let head = head(Format::Rfc5424, Server::Local("/dev/log".into()));
        let datagram = head.datagram(&record(&long));
        assert!((LONGEST - 1..=LONGEST).contains(&datagram.len()));
    }

    #[test]
    fn u7_a_server_that_is_away_loses_records_and_is_told_how_many() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        let head = head(Format::Rfc5424, Server::Local(path.clone()));
        let mut sender = Sender { head, link: None, lost: 0, is_said: true };
        sender.send(&record("one"), 0);
        sender.send(&record("two"), 3);
        // The server is started anew, and has another socket each time.
        for told in [&[" 5 records lost", " three"][..], &[" three"]] {
            let server = UnixDatagram::bind(&path).expect("a socket");
            server.set_read_timeout(Some(Duration::from_secs(10))).expect("a deadline");
            sender.send(&record("three"), 0);
            for part in told {
                let mut room = [0; 200];
                let length = server.recv(&mut room).expect("a record");
                let said = String::from_utf8_lossy(&room[..length]);
                assert!(said.contains(part), "{said}");
            }
            // A child that another test is just starting has a copy of the socket, and keeps it open for a moment.
            server.shutdown(std::net::Shutdown::Both).expect("no more is taken");
            fs::remove_file(&path).expect("removed");
        }
        assert_eq!(sender.lost, 0);
    }
}
