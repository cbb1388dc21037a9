//! The rows of the file that says which clients the bridge's connections are from: one row for each address that
//! the bridge connects from. Both sides include this file: the bridge writes rows, `rebind.so` reads them. Pure:
//! bytes and values in, values out.
//!
//! The bridge connects from 127.S.x.y and one port, which it holds so that no other user can bind it; x.y is the
//! number of the row.

use core::net::{Ipv4Addr, SocketAddrV4};

/// How many rows there are.
pub(crate) const ROWS: usize = 1 << 16;
/// How long a row is, in bytes; no row crosses the end of a page.
pub(crate) const LENGTH: usize = 4 * WORDS;
/// How long a row is in words of four bytes, which are in the machine's byte order.
pub(crate) const WORDS: usize = 8;

/// The address that a socket for IPv6 alone is bound to while there are rows. IPv6 has one loopback address only, from
/// which the bridge's connections could not be told apart. So such a socket is made one for both families, and bound to
/// this address, which no other socket has.
pub(crate) const V6_ONLY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);

/// Where the bridge connects from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sources {
    /// The second byte of its addresses.
    pub(crate) second: u8,
    /// Its port.
    pub(crate) port: u16,
}

impl Sources {
    /// The address that the connection of this row comes from.
    pub(crate) fn address(self, row: u16) -> SocketAddrV4 {
        let [third, fourth] = row.to_be_bytes();
        SocketAddrV4::new(Ipv4Addr::new(127, self.second, third, fourth), self.port)
    }

    /// The row of a connection from this address; `None` if it is not the bridge's. The IP address alone does not
    /// tell, as any user can bind it; the port has to match, too.
    pub(crate) fn row(self, address: SocketAddrV4) -> Option<u16> {
        let [first, second, third, fourth] = address.ip().octets();
        let is_ours = first == 127 && second == self.second && address.port() == self.port;
        is_ours.then_some(u16::from_be_bytes([third, fourth]))
    }
}

/// The client of a connection, in the form of either address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// To a socket of `AF_INET6`: the client's address, or its IPv4 address mapped.
    pub(crate) v6: [u8; 16],
    /// The scope of `v6`; 0 for most.
    pub(crate) scope: u32,
    /// To a socket of `AF_INET`.
    pub(crate) v4: [u8; 4],
    pub(crate) port: u16,
}

impl Row {
    /// The words of this row in the file, as the row with this number.
    pub(crate) fn encode(self, row: u16) -> [u32; WORDS] {
        let mut words = [0; WORDS];
        for (word, bytes) in words.iter_mut().skip(1).zip(self.v6.chunks_exact(4)) {
            *word = word_of(bytes);
        }
        words[5] = word_of(&self.v4);
        words[6] = self.scope;
        words[7] = self.port.into();
        words[0] = check(&words, row);
        words
    }

    /// Reads the row with this number; `None` if no connection has it, or if it is being written.
    pub(crate) fn decode(words: &[u32; WORDS], row: u16) -> Option<Row> {
        if words[0] != check(words, row) {
            return None;
        }
        let mut v6 = [0; 16];
        for (bytes, word) in v6.chunks_exact_mut(4).zip(words.iter().skip(1)) {
            for (byte, of_word) in bytes.iter_mut().zip(word.to_ne_bytes()) {
                *byte = of_word;
            }
        }
        let port = u16::try_from(words[7]).ok()?;
        Some(Row { v6, scope: words[6], v4: words[5].to_ne_bytes(), port })
    }
}

fn word_of(bytes: &[u8]) -> u32 {
    let mut word = [0; 4];
    for (to, from) in word.iter_mut().zip(bytes) {
        *to = *from;
    }
    u32::from_ne_bytes(word)
}

/// A checksum (FNV-1a, over words). It tells a whole row from one that is half written, and from an unused one, which
/// is all zeros.
fn check(words: &[u32; WORDS], row: u16) -> u32 {
    let mut hash = 0x811c_9dc5 ^ u32::from(row);
    for word in words.iter().skip(1) {
        hash = (hash ^ word).wrapping_mul(0x0100_0193);
        hash ^= hash >> 15;
    }
    hash | 1
}
