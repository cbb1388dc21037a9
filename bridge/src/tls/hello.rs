//! The end of a client's first TLS message: whether the message is whole. TLS state is made for a whole ClientHello only (L5).
//! Knows records and where a handshake message ends (RFC 8446, sections 4 and 5.1); must not know what stands in the message,
//! nor what is wrong with it, which rustls says.

/// The longest ClientHello that is accepted, bytes. Those of browsers have two kilobytes.
pub(super) const LONGEST: usize = 16 * 1024;

/// The type of a record that has handshake messages.
const HANDSHAKE: u8 = 0x16;

/// The type of a handshake message that is a ClientHello.
const CLIENT_HELLO: u8 = 1;

/// The length of a record's header, and of a handshake message's header, bytes.
const RECORD: usize = 5;
const MESSAGE: usize = 4;

/// What the first bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hello {
    /// The beginning of a ClientHello.
    Begun,
    /// A whole ClientHello, and perhaps more bytes.
    Whole,
    /// A ClientHello that is longer than [`LONGEST`].
    TooLong,
    /// No ClientHello.
    Other,
}

/// Says what these first bytes of a connection are.
pub(crate) fn hello(mut bytes: &[u8]) -> Hello {
    let (mut header, mut known, mut length) = ([0; MESSAGE], 0, 0);
    loop {
        let Some(&[kind, _, _, high, low]) = bytes.first_chunk::<RECORD>() else {
            let is_other = bytes.first().is_some_and(|kind| *kind != HANDSHAKE);
            return if is_other { Hello::Other } else { Hello::Begun };
        };
        let said = usize::from(u16::from_be_bytes([high, low]));
        if kind != HANDSHAKE || said == 0 {
            return Hello::Other;
        }
        let there = &bytes[RECORD..][..said.min(bytes.len() - RECORD)];
        for byte in there.iter().take(MESSAGE - known) {
            header[known] = *byte;
            known += 1;
        }
        length += there.len();
        if known > 0 && header[0] != CLIENT_HELLO {
            return Hello::Other;
        }
        if known == MESSAGE {
            let [_, first, second, third] = header;
            let whole = MESSAGE + u32::from_be_bytes([0, first, second, third]) as usize;
            if whole > LONGEST {
                return Hello::TooLong;
            }
            // rustls reads whole records: the one that has the message's end must be whole, too.
            if length >= whole && there.len() == said {
                return Hello::Whole;
            }
        }
        if there.len() < said {
            return Hello::Begun;
        }
        bytes = &bytes[RECORD + said..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzzing::Numbers;

    /// A handshake message of this length, not counting its header, in records of so many bytes.
    fn message(kind: u8, length: usize, record: usize) -> Vec<u8> {
        let said = u32::try_from(length).unwrap().to_be_bytes();
        let message = [&[kind, said[1], said[2], said[3]], &vec![7; length][..]].concat();
        let of = |piece: &[u8]| {
            let said = u16::try_from(piece.len()).unwrap().to_be_bytes();
            [&[HANDSHAKE, 3, 1, said[0], said[1]], piece].concat()
        };
        message.chunks(record).flat_map(of).collect()
    }

    #[test]
    fn l5_a_hello_is_whole_with_its_last_byte_however_it_is_cut_into_records() {
        for record in [1, 2, 3, 4, 5, 100, 600] {
            let bytes = message(CLIENT_HELLO, 500, record);
            for length in 0..bytes.len() {
                assert_eq!(hello(&bytes[..length]), Hello::Begun, "{record} {length}");
            }
            assert_eq!(hello(&bytes), Hello::Whole);
            assert_eq!(hello(&[&bytes[..], b"more"].concat()), Hello::Whole);
        }
    }

    #[test]
    fn l5_a_hello_has_16_kib_at_most() {
        assert_eq!(hello(&message(CLIENT_HELLO, LONGEST - MESSAGE, 16_000)), Hello::Whole);
        let long = message(CLIENT_HELLO, LONGEST - MESSAGE + 1, 16_000);
        assert_eq!(hello(&long[..9]), Hello::TooLong);
        assert_eq!(hello(&long[..8]), Hello::Begun);
    }

    #[test]
    fn l5_what_is_no_hello_is_known_early() {
        for bytes in [&b"GET / HTTP/1.1"[..], &[0x15, 3, 1, 0, 2], &[HANDSHAKE, 3, 1, 0, 0]] {
            assert_eq!(hello(bytes), Hello::Other, "{bytes:?}");
        }
        assert_eq!(hello(&message(2, 10, 100)[..6]), Hello::Other);
    }

    /// L3, L5: no bytes cause a panic, and an answer other than [`Hello::Begun`] stays the same when more bytes come.
    #[test]
    fn l3_no_bytes_make_a_hello_panic_or_change_its_mind() {
        let mut numbers = Numbers(3);
        for _ in 0..5_000 {
            let record = 1 + numbers.below(60);
            let mut bytes = message(CLIENT_HELLO, numbers.below(200), record);
            for _ in 0..numbers.below(3) {
                let at = numbers.below(bytes.len());
                bytes[at] = u8::try_from(numbers.below(256)).unwrap();
            }
            let mut before = Hello::Begun;
            for length in 0..=bytes.len() {
                let now = hello(&bytes[..length]);
                assert!(before == Hello::Begun || now == before, "{before:?} {now:?} {bytes:?}");
                before = now;
            }
        }
    }
}
