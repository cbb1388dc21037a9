//! PROXY headers: however they are split, they end in the same place; and if one names a client, a header that is written for
//! that client is read as the same.

use std::net::{IpAddr, SocketAddr};

use super::Numbers;
use crate::proxy_header::{Header, Malformed, Progress, Reader};

/// The first byte says how the others are split, which are a header and what follows it.
pub fn proxy_header(bytes: &[u8]) {
    let Some((seed, bytes)) = bytes.split_first() else { return };
    let whole = Reader::default().read(bytes);
    assert_eq!(split(*seed, bytes), whole);
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
    [&b"\r\n\r\n\0\r\nQUIT\n\x21"[..], &[family], &length, &addresses].concat()
}
