//! PROXY headers: however they are split, they mean what a reader says that has all bytes at once; and if one names a client, a
//! header that is written for that client is read as the same.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Numbers;
use crate::proxy_header::{Header, Malformed, Progress, Reader};

/// What a header of version 2 begins with.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The first byte says how the others are split, which are a header and what follows it.
pub fn proxy_header(bytes: &[u8]) {
    let Some((seed, bytes)) = bytes.split_first() else { return };
    let whole = Reader::default().read(bytes);
    assert_eq!(split(*seed, bytes), whole);
    assert_eq!(whole.ok(), read_at_once(bytes), "{bytes:?}");
    let Ok(Progress::Done(length, header)) = whole else { return };
    assert!(length <= bytes.len());
    // Nothing that follows counts, and nothing less is enough.
    assert_eq!(Reader::default().read(&bytes[..length]), whole);
    assert_eq!(Reader::default().read(&bytes[..length - 1]), Ok(Progress::More));
    if let Header::Client(client) = header {
        for written in [line(client), binary(client)] {
            let again = Reader::default().read(&written);
            assert_eq!(again, Ok(Progress::Done(written.len(), header)), "{written:?}");
        }
    }
}

/// What the specification says of these bytes. `None`: no header begins so.
fn read_at_once(bytes: &[u8]) -> Option<Progress> {
    if b"PROXY ".starts_with(bytes) || SIGNATURE.starts_with(bytes) {
        return Some(Progress::More);
    }
    if bytes.starts_with(b"PROXY ") {
        return match bytes.iter().take(107).position(|byte| *byte == b'\n') {
            Some(end) => Some(Progress::Done(end + 1, line_at_once(&bytes[..=end])?)),
            None => (bytes.len() < 107).then_some(Progress::More),
        };
    }
    binary_at_once(bytes.strip_prefix(SIGNATURE)?)
}

/// Section 2.1. What follows `UNKNOWN` may be anything.
fn line_at_once(line: &[u8]) -> Option<Header> {
    let words: Vec<_> = line.strip_suffix(b"\r\n")?.split(|byte| *byte == b' ').collect();
    let (family, addresses) = match &*words {
        [_, b"UNKNOWN", ..] => return Some(Header::Unknown),
        [_, family, addresses @ ..] => (family, addresses),
        _ => return None,
    };
    let addresses: Vec<_> = addresses.iter().map(|word| str::from_utf8(word).ok()).collect();
    let [Some(client), Some(server), Some(client_port), Some(server_port)] = *addresses else {
        return None;
    };
    let address = |word: &str| match *family {
        b"TCP4" => word.parse().map(Ipv4Addr::into).ok(),
        b"TCP6" => word.parse().map(Ipv6Addr::into).ok(),
        _ => None,
    };
    let port = |word: &str| word.parse::<u16>().ok().filter(|port| port.to_string() == word);
    let (client, _, _): (IpAddr, IpAddr, u16) =
        (address(client)?, address(server)?, port(server_port)?);
    Some(Header::Client(SocketAddr::new(client, port(client_port)?)))
}

/// Section 2.2, behind the signature.
fn binary_at_once(bytes: &[u8]) -> Option<Progress> {
    let [command, family, high, low, addresses @ ..] = bytes else { return Some(Progress::More) };
    let length = 256 * usize::from(*high) + usize::from(*low);
    let needed = match (command, family) {
        (0x20, _) => 0,
        (0x21, 0x11) => 12,
        (0x21, 0x21) => 36,
        (0x21, 0x00..=0x02 | 0x10 | 0x12 | 0x20 | 0x22 | 0x30..=0x32) => 0,
        _ => return None,
    };
    if length < needed {
        return None;
    }
    let Some(addresses) = addresses.get(..length) else { return Some(Progress::More) };
    let header = match (command, needed, addresses) {
        (0x20, ..) => Header::Local,
        (_, 12, [a, b, c, d, _, _, _, _, high, low, ..]) => {
            Header::Client(SocketAddr::from(([*a, *b, *c, *d], u16::from_be_bytes([*high, *low]))))
        }
        (_, 36, addresses) => {
            let words =
                addresses[..36].chunks(2).map(|word| u16::from(word[0]) << 8 | u16::from(word[1]));
            let words: [u16; 18] = words.collect::<Vec<_>>().try_into().expect("18 pairs");
            let client: &[u16; 8] = words.first_chunk().expect("of 18");
            Header::Client(SocketAddr::from((*client, words[16])))
        }
        _ => Header::Unknown,
    };
    Some(Progress::Done(SIGNATURE.len() + 4 + length, header))
}

fn split(seed: u8, mut bytes: &[u8]) -> Result<Progress, Malformed> {
    let (mut reader, mut lengths, mut read) = (Reader::default(), Numbers(seed.into()), 0);
    while !bytes.is_empty() {
        let (piece, rest) = bytes.split_at((1 + lengths.below(9)).min(bytes.len()));
        bytes = rest;
        if let Progress::Done(length, header) = reader.read(piece)? {
            return Ok(Progress::Done(read + length, header));
        }
        read += piece.len();
    }
    Ok(Progress::More)
}

fn line(client: SocketAddr) -> Vec<u8> {
    let (address, port) = (client.ip(), client.port());
    let family = if address.is_ipv4() { "TCP4" } else { "TCP6" };
    format!("PROXY {family} {address} {address} {port} 80\r\n").into_bytes()
}

fn binary(client: SocketAddr) -> Vec<u8> {
    let (family, address) = match client.ip() {
        IpAddr::V4(address) => (0x11, address.octets().to_vec()),
        IpAddr::V6(address) => (0x21, address.octets().to_vec()),
    };
    let port = client.port().to_be_bytes();
    let addresses = [&address[..], &address, &port, &[0, 80]].concat();
    let length = u16::try_from(addresses.len()).expect("36 at most").to_be_bytes();
    [SIGNATURE, &[0x21, family], &length, &addresses].concat()
}
