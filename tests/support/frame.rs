//! Frames as clients send them (RFC 6455, section 5.2), as bytes. The tests of the crate `bridge` include this file by
//! path.

/// The mask of all these frames. It is not zero, so that a test fails if the payload is not unmasked.
pub(crate) const MASK: [u8; 4] = [0x11, 0x22, 0x33, 0x44];

/// A masked frame. `first` is its first byte: the FIN bit and the opcode.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(first, payload.len() as u64);
    let begin = frame.len();
    frame.extend(payload);
    // Four bytes at a time: tests send many bytes, in a build without optimization.
    let (words, rest) = frame[begin..].as_chunks_mut();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(MASK)).to_ne_bytes();
    }
    rest.iter_mut().zip(MASK).for_each(|(byte, mask)| *byte ^= mask);
    frame
}

/// The header of a masked frame, in its shortest form. A test may send less payload than `length` announces.
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
