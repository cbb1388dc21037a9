//! Frames as clients send them (RFC 6455, section 5.2), byte by byte. Included by path where a crate's own
//! tests speak for a client.

/// The mask of all of them. Not zero: who forgets to unmask shall not get away with it.
pub(crate) const MASK: [u8; 4] = [0x11, 0x22, 0x33, 0x44];

/// A masked frame. `first` is its first byte: whether it is final, and its opcode.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(first, payload.len() as u64);
    let begin = frame.len();
    frame.extend(payload);
    // Not byte by byte, of which tests send many, in a build that optimizes nothing.
    let (words, rest) = frame[begin..].as_chunks_mut();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(MASK)).to_ne_bytes();
    }
    rest.iter_mut().zip(MASK).for_each(|(byte, mask)| *byte ^= mask);
    frame
}

/// Its header, in the shortest form; the payload may be less than is announced.
pub(crate) fn header(first: u8, length: u64) -> Vec<u8> {
    let mut header = vec![first];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..=125), _) => header.push(0x80 | short),
        (_, Ok(length)) => {
            header.push(0xfe);
            header.extend(length.to_be_bytes());
        }
        _ => {
            header.push(0xff);
            header.extend(length.to_be_bytes());
        }
    }
    header.extend(MASK);
    header
}
