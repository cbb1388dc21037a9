//! The parser of PROXY headers of either version, which takes the bytes as they come. It takes no byte behind the
//! header, and keeps no more of the header than it understands, however long the header says that it is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use arrayvec::ArrayVec;

/// What a header of version 1 begins with (section 2.1).
const LINE: &[u8] = b"PROXY ";

/// The longest header of version 1 in bytes, with its CRLF (section 2.1).
const LINE_MAX: usize = 107;

/// What a header of version 2 begins with (section 2.2).
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The length in bytes of the part of version 2 that is always there: signature, version and command, family, length.
const FIXED: usize = 16;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Header {
    /// The connection is this client's.
    Client(SocketAddr),
    /// The proxy does not know the client, or the connection is not TCP over IPv4 or IPv6.
    Unknown,
    /// The connection is the proxy's own: it checks whether we are alive.
    Local,
}

/// The result of reading some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// All bytes were taken, and more must follow.
    More,
    /// This many bytes were taken, and the header is complete.
    Done(usize, Header),
}

/// Why bytes are no PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("what it sends does not begin with a PROXY header")]
    Absent,
    #[error("its PROXY header is longer than {LINE_MAX} bytes")]
    TooLong,
    #[error("the line of its PROXY header is not as it must be")]
    Line,
    #[error("its PROXY header has a version or command that there is not")]
    Command,
    #[error("its PROXY header has a family or protocol that there is not")]
    Family,
    #[error("its PROXY header is too short for its addresses")]
    TooShort,
}

/// A header of which some bytes have come.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// Its beginning.
    kept: ArrayVec<u8, LINE_MAX>,
    /// How many bytes of it have come.
    length: usize,
}

impl Reader {
    /// Takes bytes up to the end of the header.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Result<Progress, Malformed> {
        for (at, byte) in bytes.iter().enumerate() {
            if let Some(header) = self.take(*byte)? {
                return Ok(Progress::Done(at + 1, header));
            }
        }
        Ok(Progress::More)
    }

    fn take(&mut self, byte: u8) -> Result<Option<Header>, Malformed> {
        let _ = self.kept.try_push(byte);
        self.length += 1;
        match self.kept.first() {
            Some(b'P') => self.line(byte),
            _ => self.binary(),
        }
    }

    fn line(&self, last: u8) -> Result<Option<Header>, Malformed> {
        if !is_begun(&self.kept, LINE) {
            return Err(Malformed::Absent);
        }
        match last {
            b'\n' => read_line(&self.kept).map(Some).ok_or(Malformed::Line),
            _ if self.length >= LINE_MAX => Err(Malformed::TooLong),
            _ => Ok(None),
        }
    }

    fn binary(&self) -> Result<Option<Header>, Malformed> {
        if !is_begun(&self.kept, SIGNATURE) {
            return Err(Malformed::Absent);
        }
        let Some((fixed, addresses)) = self.kept.split_at_checked(FIXED) else { return Ok(None) };
        let announced = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
        let command = Command::of(fixed[12])?;
        let family = match command {
            Command::Local => Family::Other,
            Command::Proxy => Family::of(fixed[13])?,
        };
        if announced < family.length() {
            return Err(Malformed::TooShort);
        }
        if self.length < FIXED + announced {
            return Ok(None);
        }
        Ok(Some(match command {
            Command::Local => Header::Local,
            Command::Proxy => family.client(addresses),
        }))
    }
}

fn is_begun(kept: &[u8], beginning: &[u8]) -> bool {
    let compared = kept.len().min(beginning.len());
    kept[..compared] == beginning[..compared]
}

/// A whole line: `PROXY TCP4 192.0.2.7 203.0.113.1 56324 443`, or `PROXY UNKNOWN` and whatever follows.
fn read_line(line: &[u8]) -> Option<Header> {
    let text = std::str::from_utf8(line.strip_suffix(b"\r\n")?.strip_prefix(LINE)?);
    let Ok(text) = text else {
        // What follows `UNKNOWN` means nothing, and need not be text.
        return line.starts_with(b"PROXY UNKNOWN ").then_some(Header::Unknown);
    };
    let mut words = text.split(' ');
    let family = words.next()?;
    if family == "UNKNOWN" {
        return Some(Header::Unknown);
    }
    let mut address = || match family {
        "TCP4" => words.next()?.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        "TCP6" => words.next()?.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => None,
    };
    let (client, _ours) = (address()?, address()?);
    let (port, _our_port) = (port(words.next()?)?, port(words.next()?)?);
    words.next().is_none().then(|| Header::Client(SocketAddr::new(client, port)))
}

/// A port number, without leading zeros and without a sign.
fn port(text: &str) -> Option<u16> {
    let is_canonical = text == "0" || text.starts_with(|digit: char| matches!(digit, '1'..='9'));
    is_canonical.then(|| text.parse().ok())?
}

#[derive(Clone, Copy)]
enum Command {
    Local,
    Proxy,
}

impl Command {
    fn of(byte: u8) -> Result<Self, Malformed> {
        match byte {
            0x20 => Ok(Self::Local),
            0x21 => Ok(Self::Proxy),
            _ => Err(Malformed::Command),
        }
    }
}

/// An address family of version 2, with TCP; all else is `Other`.
#[derive(Clone, Copy)]
enum Family {
    V4,
    V6,
    Other,
}

impl Family {
    fn of(byte: u8) -> Result<Self, Malformed> {
        match (byte >> 4, byte & 15) {
            (1, 1) => Ok(Self::V4),
            (2, 1) => Ok(Self::V6),
            (0..=3, 0..=2) => Ok(Self::Other),
            _ => Err(Malformed::Family),
        }
    }

    /// How long its two addresses and two ports are, in bytes.
    fn length(self) -> usize {
        match self {
            Self::V4 => 12,
            Self::V6 => 36,
            Self::Other => 0,
        }
    }

    /// The client that `addresses` names; they are long enough for the family.
    fn client(self, addresses: &[u8]) -> Header {
        let port = |at: usize| u16::from_be_bytes([addresses[at], addresses[at + 1]]);
        let address = match self {
            Self::V4 => addresses.first_chunk().map(|bytes: &[u8; 4]| IpAddr::from(*bytes)),
            Self::V6 => addresses.first_chunk().map(|bytes: &[u8; 16]| IpAddr::from(*bytes)),
            Self::Other => None,
        };
        let Some(address) = address else { return Header::Unknown };
        let both = if address.is_ipv4() { 8 } else { 32 };
        Header::Client(SocketAddr::new(address, port(both)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Progress, Malformed> {
        let whole = Reader::default().read(bytes);
        let mut reader = Reader::default();
        let mut single = Ok(Progress::More);
        for (at, byte) in bytes.iter().enumerate() {
            single = reader.read(&[*byte]);
            match single {
                Ok(Progress::More) => {}
                Ok(Progress::Done(_, header)) => {
                    single = Ok(Progress::Done(at + 1, header));
                    break;
                }
                Err(_) => break,
            }
        }
        assert_eq!(single, whole, "byte by byte");
        whole
    }

    fn client(text: &str) -> Header {
        Header::Client(text.parse().unwrap())
    }

    #[test]
    fn a3_a_line_names_the_client() {
        for (line, header) in [
            ("PROXY TCP4 192.0.2.7 203.0.113.1 56324 443\r\n", client("192.0.2.7:56324")),
            (
                "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
                client("255.255.255.255:65535"),
            ),
            ("PROXY TCP6 2001:db8::7 ::1 1 0\r\n", client("[2001:db8::7]:1")),
            ("PROXY UNKNOWN\r\n", Header::Unknown),
            ("PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", Header::Unknown),
        ] {
            assert_eq!(read(line.as_bytes()), Ok(Progress::Done(line.len(), header)), "{line}");
            let behind = format!("{line}GET / HTTP/1.1\r\n\r\n");
            assert_eq!(read(behind.as_bytes()), Ok(Progress::Done(line.len(), header)));
            for length in 0..line.len() {
                assert_eq!(read(&line.as_bytes()[..length]), Ok(Progress::More), "{length}");
            }
        }
        let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(91));
        assert_eq!(longest.len(), LINE_MAX);
        let done = Ok(Progress::Done(LINE_MAX, Header::Unknown));
        assert_eq!(read(longest.as_bytes()), done);
        assert_eq!(read(b"PROXY UNKNOWN \xff\r\n"), Ok(Progress::Done(17, Header::Unknown)));
    }

    #[test]
    fn a3_what_is_no_line() {
        for (line, why) in [
            ("GET / HTTP/1.1\r\n", Malformed::Absent),
            ("POST / HTTP/1.1\r\n", Malformed::Absent),
            ("PROXY\tTCP4 192.0.2.7 203.0.113.1 1 2\r\n", Malformed::Absent),
            ("proxy TCP4 192.0.2.7 203.0.113.1 1 2\r\n", Malformed::Absent),
            ("PROXY \r\n", Malformed::Line),
            ("PROXY UNKNOWNS\r\n", Malformed::Line),
            ("PROXY TCP4 192.0.2.7 203.0.113.1 1 2\n", Malformed::Line),
            ("PROXY TCP4 192.0.2.7 203.0.113.1 1\r\n", Malformed::Line),
            ("PROXY TCP4 192.0.2.7 203.0.113.1 1 2 3\r\n", Malformed::Line),
            ("PROXY TCP4 192.0.2.7 203.0.113.1 1 2 \r\n", Malformed::Line),
            ("PROXY TCP4  192.0.2.7 203.0.113.1 1 2\r\n", Malformed::Line),
            ("PROXY TCP4 192.0.2.07 203.0.113.1 1 2\r\n", Malformed::Line),
            ("PROXY TCP4 192.0.2.7 203.0.113.1 01 2\r\n", Malformed::Line),
            ("PROXY TCP4 192.0.2.7 203.0.113.1 +1 2\r\n", Malformed::Line),
            ("PROXY TCP4 192.0.2.7 203.0.113.1 65536 2\r\n", Malformed::Line),
            ("PROXY TCP4 ::1 ::1 1 2\r\n", Malformed::Line),
            ("PROXY TCP6 192.0.2.7 203.0.113.1 1 2\r\n", Malformed::Line),
            ("PROXY UDP4 192.0.2.7 203.0.113.1 1 2\r\n", Malformed::Line),
            ("PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", Malformed::Line),
        ] {
            assert_eq!(read(line.as_bytes()), Err(why), "{line:?}");
        }
        let long = format!("PROXY UNKNOWN {}", "x".repeat(LINE_MAX));
        assert_eq!(read(long.as_bytes()), Err(Malformed::TooLong));
    }

    /// A header of version 2.
    fn binary(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[command, family], &length, addresses].concat()
    }

    #[test]
    fn a3_a_binary_header_names_the_client() {
        let v4 = [192, 0, 2, 7, 203, 0, 113, 1, 0xdc, 0x04, 1, 187];
        let mut v6 = [0; 36];
        (v6[0], v6[1], v6[15], v6[33]) = (0x20, 0x01, 7, 9);
        let with_more = [&v4[..], &[4, 0, 250], &[0; 250]].concat();
        for (command, family, addresses, header) in [
            (0x21, 0x11, &v4[..], client("192.0.2.7:56324")),
            (0x21, 0x11, &with_more, client("192.0.2.7:56324")),
            (0x21, 0x21, &v6, client("[2001::7]:9")),
            (0x21, 0x00, &[], Header::Unknown),
            (0x21, 0x12, &v4, Header::Unknown),
            (0x21, 0x31, &[b'/'; 216], Header::Unknown),
            (0x20, 0x00, &[], Header::Local),
            (0x20, 0x11, &v4, Header::Local),
            // The command LOCAL has the family ignored.
            (0x20, 0xff, &[7; 16_000], Header::Local),
        ] {
            let bytes = binary(command, family, addresses);
            let done = Ok(Progress::Done(bytes.len(), header));
            assert_eq!(read(&bytes), done, "{command:x} {family:x}");
            assert_eq!(read(&[&bytes[..], b"\x16\x03"].concat()), done);
            assert_eq!(read(&bytes[..bytes.len() - 1]), Ok(Progress::More));
        }
    }

    #[test]
    fn a3_what_is_no_binary_header() {
        let v4 = [0; 12];
        for (bytes, why) in [
            (b"\r\n\r\n\0\r\nQUIX".to_vec(), Malformed::Absent),
            (b"\r\nGET".to_vec(), Malformed::Absent),
            (b"\x16\x03\x01".to_vec(), Malformed::Absent),
            (binary(0x11, 0x11, &v4), Malformed::Command),
            (binary(0x22, 0x11, &v4), Malformed::Command),
            (binary(0x31, 0x11, &v4), Malformed::Command),
            (binary(0x21, 0x41, &v4), Malformed::Family),
            (binary(0x21, 0x13, &v4), Malformed::Family),
            (binary(0x21, 0x11, &v4[1..]), Malformed::TooShort),
            (binary(0x21, 0x21, &[0; 35]), Malformed::TooShort),
        ] {
            assert_eq!(read(&bytes), Err(why), "{bytes:?}");
        }
    }
}
