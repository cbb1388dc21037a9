//! RFC 6455 framing for the server's side, streaming.
//!
//! A frame is decoded as its bytes arrive: its length is only a counter, so no header makes us
//! hold or allocate anything. tungstenite names the codes and writes the headers; the reading is
//! ours, because one read may hold a thousand frames.

use std::ops::Range;
use std::str;

use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use super::{ControlFrame, ControlPayload, Event, HEADROOM, Violation, base64};

/// The longest payload of a control frame (section 5.5).
const CONTROL_MAX: u64 = 125;

/// The longest frame header of a client: two bytes, a 64-bit length, the mask.
const HEADER_MAX: usize = 14;

/// Where in the client's byte stream we are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Decoder {
    /// The beginning of a frame header that came in pieces.
    partial: ArrayVec<u8, HEADER_MAX>,
    /// What the frame under way is.
    #[serde(with = "opcode")]
    opcode: OpCode,
    /// How much of its payload is still to come; 0 between frames.
    left: u64,
    /// Its mask, turned so that the next byte's key comes first.
    mask: [u8; 4],
    /// A message has begun and its final frame has not.
    in_message: bool,
    /// The payload of the control frame under way, if it has any.
    control: Option<ControlPayload>,
    /// The payload is base64: a quad may span the fragments of a message.
    base64: Option<base64::Decoder>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            partial: ArrayVec::new(),
            opcode: OpCode::Data(Data::Continue),
            left: 0,
            mask: [0; 4],
            in_message: false,
            control: None,
            base64: None,
        }
    }
}

impl Decoder {
    /// For messages that are base64.
    pub(crate) fn base64() -> Self {
        Self { base64: Some(base64::Decoder::default()), ..Self::default() }
    }

    /// Whether messages are base64, both ways.
    pub(crate) fn is_base64(&self) -> bool {
        self.base64.is_some()
    }

    /// Whether a decoder that was saved for a hand-over has possible values.
    pub(crate) fn is_valid(&self) -> bool {
        let begun = self.control.as_ref().map_or(0, |control| control.len()) as u64;
        let fits = match self.opcode {
            OpCode::Control(_) => begun.saturating_add(self.left) <= CONTROL_MAX,
            OpCode::Data(_) => true,
        };
        fits && self.base64.as_ref().is_none_or(base64::Decoder::is_valid)
            && matches!(Header::parse(&self.partial), Ok(None))
    }

    /// See [`Codec::is_between_frames`](super::Codec::is_between_frames).
    pub(crate) fn is_between_frames(&self) -> bool {
        self.left == 0
    }

    /// See [`Codec::decode`](super::Codec::decode).
    pub(crate) fn decode(
        &mut self,
        buffer: &mut [u8],
        unread: &mut Range<usize>,
    ) -> Result<Option<Event>, Violation> {
        while unread.start < unread.end {
            if self.left == 0 {
                let Some(header) = self.read_header(buffer, unread)? else { return Ok(None) };
                self.begin(&header)?;
            }
            let mut piece = self.take_payload(buffer, unread);
            if let (OpCode::Data(_), Some(base64)) = (self.opcode, &mut self.base64) {
                let is_end = self.left == 0 && !self.in_message;
                piece = base64.decode(buffer, piece, is_end)?;
            }
            match self.opcode {
                OpCode::Data(_) if piece.is_empty() => {}
                OpCode::Data(_) => return Ok(Some(Event::Data(piece))),
                OpCode::Control(kind) => {
                    let payload = self.control.get_or_insert_default();
                    payload.extend(buffer[piece].iter().copied());
                    if self.left == 0 {
                        return self.control_event(kind).map(Some);
                    }
                }
            }
        }
        Ok(None)
    }

    /// Reads a header, or keeps what there is of it and returns `None`.
    fn read_header(
        &mut self,
        buffer: &[u8],
        unread: &mut Range<usize>,
    ) -> Result<Option<Header>, Violation> {
        if self.partial.is_empty()
            && let Some((header, length)) = Header::parse(&buffer[unread.clone()])?
        {
            unread.start += length;
            return Ok(Some(header));
        }
        for byte in &buffer[unread.clone()] {
            unread.start += 1;
            self.partial.push(*byte);
            let parsed = Header::parse(&self.partial);
            if !matches!(parsed, Ok(None)) {
                // Also after a violation: what is kept is always the beginning of a header.
                self.partial.clear();
            }
            if let Some((header, _)) = parsed? {
                return Ok(Some(header));
            }
        }
        Ok(None)
    }

    /// Checks that the frame may come now (section 5.4) and begins it.
    fn begin(&mut self, header: &Header) -> Result<(), Violation> {
        match header.opcode {
            OpCode::Data(Data::Continue) if !self.in_message => {
                return Err(Violation::LoneContinuation);
            }
            OpCode::Data(Data::Text | Data::Binary) if self.in_message => {
                return Err(Violation::InterruptedMessage);
            }
            OpCode::Data(_) => self.in_message = !header.is_final,
            OpCode::Control(_) => {}
        }
        self.opcode = header.opcode;
        self.left = header.length;
        self.mask = header.mask;
        Ok(())
    }

    /// Takes and unmasks what there is of the frame's payload.
    fn take_payload(&mut self, buffer: &mut [u8], unread: &mut Range<usize>) -> Range<usize> {
        let here = usize::try_from(self.left).unwrap_or(usize::MAX).min(unread.len());
        let piece = unread.start..unread.start + here;
        unmask(&mut buffer[piece.clone()], self.mask);
        self.mask.rotate_left(here % 4);
        self.left -= here as u64;
        unread.start = piece.end;
        piece
    }

    fn control_event(&mut self, kind: Control) -> Result<Event, Violation> {
        let payload = self.control.take().unwrap_or_default();
        match kind {
            Control::Ping => Ok(Event::Ping(payload)),
            Control::Close => close_frame(&payload).map(Event::Close),
            Control::Pong | Control::Reserved(_) => Ok(Event::Pong),
        }
    }
}

/// An op code as the number that it is on the wire.
mod opcode {
    use serde::{Deserialize, Deserializer, Serializer};
    use tokio_tungstenite::tungstenite::protocol::frame::coding::OpCode;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    pub(super) fn serialize<S: Serializer>(code: &OpCode, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_u8(u8::from(*code))
    }

    /// An op code has four bits (RFC 6455, section 5.2).
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<OpCode, D::Error> {
        let code = u8::deserialize(from)?;
        if code > 0xf {
            return Err(serde::de::Error::custom("no op code"));
        }
        Ok(OpCode::from(code))
    }
}

/// Puts the header of a final binary frame in front of `buffer[payload]` and returns the frame.
pub(crate) fn encode(buffer: &mut [u8], payload: Range<usize>) -> Range<usize> {
    put_header(buffer, payload, Data::Binary)
}

/// Makes a final text frame of `buffer[payload]`, a base64 string of its own, and returns it.
pub(crate) fn encode_base64(buffer: &mut [u8], payload: Range<usize>) -> Range<usize> {
    let text = base64::encode(buffer, payload, HEADROOM);
    put_header(buffer, text, Data::Text)
}

fn put_header(buffer: &mut [u8], payload: Range<usize>, kind: Data) -> Range<usize> {
    let header = FrameHeader { opcode: OpCode::Data(kind), ..FrameHeader::default() };
    let length = payload.len() as u64;
    let start = payload.start - header.len(length);
    let mut room = &mut buffer[start..payload.start];
    header.format(length, &mut room).expect("the room is as long as the header");
    start..payload.end
}

/// See [`Codec::pong`](super::Codec::pong).
pub(crate) fn pong(payload: &[u8]) -> ControlFrame {
    control(Control::Pong, payload)
}

/// See [`Codec::ping`](super::Codec::ping).
pub(crate) fn ping() -> ControlFrame {
    control(Control::Ping, &[])
}

/// See [`Codec::close`](super::Codec::close).
pub(crate) fn close(frame: Option<&CloseFrame>) -> ControlFrame {
    let mut payload = ControlPayload::default();
    if let Some(frame) = frame {
        payload.extend(u16::from(frame.code).to_be_bytes());
        let reason = frame.reason.as_str();
        let mut end = reason.len().min(payload.remaining_capacity());
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        payload.extend(reason[..end].bytes());
    }
    control(Control::Close, &payload)
}

fn control(kind: Control, payload: &[u8]) -> ControlFrame {
    let header = FrameHeader { opcode: OpCode::Control(kind), ..FrameHeader::default() };
    let mut frame = ControlFrame::default();
    header.format(payload.len() as u64, &mut *frame).expect("an ArrayVec of 127 has room for it");
    frame.extend(payload.iter().copied());
    frame
}

fn close_frame(payload: &[u8]) -> Result<Option<CloseFrame>, Violation> {
    let (code, reason) = match payload {
        [] => return Ok(None),
        [_] => return Err(Violation::TruncatedCloseCode),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
    };
    // 1014, Bad Gateway, is registered with IANA, and tungstenite does not know it.
    if !CloseCode::from(code).is_allowed() && code != 1014 {
        return Err(Violation::InvalidCloseCode(code));
    }
    let reason = str::from_utf8(reason).map_err(|_| Violation::CloseReasonNotUtf8)?;
    Ok(Some(CloseFrame { code: code.into(), reason: reason.into() }))
}

/// What a frame header says.
struct Header {
    is_final: bool,
    opcode: OpCode,
    length: u64,
    mask: [u8; 4],
}

impl Header {
    /// Parses a header at the start of `bytes` and returns it with its own length. `None`: there
    /// is more of it to come. A violation is returned as soon as it is seen.
    fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, Violation> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        let is_final = first & 0x80 != 0;
        let opcode = OpCode::from(first & 0x0f);
        let short = second & 0x7f;
        if first & 0x70 != 0 {
            return Err(Violation::ReservedBits);
        }
        match opcode {
            OpCode::Data(Data::Reserved(code)) | OpCode::Control(Control::Reserved(code)) => {
                return Err(Violation::UnknownOpcode(code));
            }
            OpCode::Control(_) if !is_final => return Err(Violation::FragmentedControl),
            OpCode::Control(_) if short > 125 => return Err(Violation::LongControl),
            _ => {}
        }
        if second & 0x80 == 0 {
            return Err(Violation::Unmasked);
        }
        let Some((length, rest)) = parse_length(short, rest)? else { return Ok(None) };
        let Some((mask, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let header = Self { is_final, opcode, length, mask: *mask };
        Ok(Some((header, bytes.len() - rest.len())))
    }
}

/// Parses the payload length: seven bits, or the two or eight bytes that follow them.
fn parse_length(short: u8, rest: &[u8]) -> Result<Option<(u64, &[u8])>, Violation> {
    let (length, rest, shortest) = match short {
        126 => match rest.split_first_chunk() {
            Some((bytes, rest)) => (u64::from(u16::from_be_bytes(*bytes)), rest, 126),
            None => return Ok(None),
        },
        127 => match rest.split_first_chunk() {
            Some((bytes, rest)) => (u64::from_be_bytes(*bytes), rest, 0x1_0000),
            None => return Ok(None),
        },
        _ => (u64::from(short), rest, 0),
    };
    if length >> 63 != 0 {
        return Err(Violation::LengthOutOfRange);
    }
    if length < shortest {
        return Err(Violation::LengthNotMinimal);
    }
    Ok(Some((length, rest)))
}

/// Removes the mask (section 5.3), eight bytes at a time: the compiler uses vector instructions for that.
fn unmask(bytes: &mut [u8], [a, b, c, d]: [u8; 4]) {
    let key = [a, b, c, d, a, b, c, d];
    let (words, tail) = bytes.as_chunks_mut();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ u64::from_ne_bytes(key)).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip(key) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::super::HEADROOM;
    use super::*;
    use crate::fuzzing::Numbers;

    const MASK: [u8; 4] = [0xa1, 0x02, 0xf3, 0x44];

    /// A frame as a client sends it.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let opcode = OpCode::from(first & 0x0f);
        let is_final = first & 0x80 != 0;
        let header = FrameHeader { is_final, opcode, mask: Some(MASK), ..FrameHeader::default() };
        let mut frame = Vec::new();
        header.format(payload.len() as u64, &mut frame).unwrap();
        frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
        frame
    }

    /// Feeds `input` in chunks of the given lengths, over and over. Neighbouring data is joined,
    /// which is all that splitting may change.
    fn decode(input: &[u8], lengths: &[usize]) -> (Vec<Event>, Vec<u8>, Option<Violation>) {
        let mut decoder = Decoder::default();
        let (mut events, mut data, mut input) = (Vec::new(), Vec::new(), input.to_vec());
        for length in lengths.iter().cycle() {
            let mut chunk: Vec<u8> = input.drain(..input.len().min(*length)).collect();
            let mut unread = 0..chunk.len();
            loop {
                match decoder.decode(&mut chunk, &mut unread) {
                    Ok(Some(Event::Data(piece))) => data.extend(&chunk[piece]),
                    Ok(Some(event)) => events.push(event),
                    Ok(None) => break,
                    Err(violation) => return (events, data, Some(violation)),
                }
            }
            assert_eq!(unread.start, unread.end, "all is consumed");
            if input.is_empty() {
                break;
            }
        }
        (events, data, None)
    }

    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|index| u8::try_from(index % 251).unwrap()).collect()
    }

    /// Lengths that look random and are the same each time.
    fn splits(seed: u64) -> Vec<usize> {
        let mut numbers = Numbers(seed);
        (0..97).map(|_| 1 + numbers.below(16)).collect()
    }

    #[test]
    fn b3_frames_of_every_size_come_out_whole_however_they_are_split() {
        for size in [0, 1, 7, 8, 125, 126, 127, 65_535, 65_536, 70_000] {
            let input = [frame(0x82, &pattern(size)), frame(0x81, b"next")].concat();
            let expected = [pattern(size), b"next".to_vec()].concat();
            for lengths in [vec![usize::MAX], vec![1], vec![2, 3], splits(1), splits(2), splits(3)]
            {
                let (events, data, violation) = decode(&input, &lengths);
                assert!(data == expected, "{size} bytes in chunks of {lengths:?}");
                assert_eq!((events, violation), (vec![], None));
            }
        }
    }

    #[test]
    fn b5_a_fragmented_message_with_control_frames_between() {
        let input = [
            frame(0x02, b"one "),
            frame(0x89, b"ping"),
            frame(0x00, b""),
            frame(0x00, b"two "),
            frame(0x8a, b"pong"),
            frame(0x80, b"three"),
            frame(0x81, b"\xff\xfe"),
            frame(0x89, &[7; 125]),
            frame(0x88, b"\x03\xe8bye"),
        ]
        .concat();
        let bye = CloseFrame { code: CloseCode::Normal, reason: "bye".into() };
        let expected = vec![
            Event::Ping(Box::new(b"ping".iter().copied().collect())),
            Event::Pong,
            Event::Ping(Box::new([7; 125].into())),
            Event::Close(Some(bye)),
        ];
        for length in 1..40 {
            let (events, data, violation) = decode(&input, &[length]);
            assert_eq!(data, b"one two three\xff\xfe", "text is bytes, unvalidated");
            assert_eq!((&events, violation), (&expected, None));
        }
    }

    #[test]
    fn b3_a_header_that_announces_2_to_the_40_bytes_is_only_a_counter() {
        let mut decoder = Decoder::default();
        let mut header = [&[0x82, 0xff][..], &(1_u64 << 40).to_be_bytes(), &[0; 4]].concat();
        let mut unread = 0..header.len();
        assert_eq!(decoder.decode(&mut header, &mut unread), Ok(None));
        for _ in 0..3 {
            let mut unread = 0..5;
            let data = decoder.decode(&mut [1, 2, 3, 4, 5], &mut unread);
            assert_eq!(data, Ok(Some(Event::Data(0..5))));
        }
        assert_eq!(decoder.left, (1 << 40) - 15);
    }

    #[test]
    fn b5_every_violation_has_its_code() {
        use Violation::*;
        let close = |payload: &[u8]| frame(0x88, payload);
        let long = |length: &[u8]| [&[0x82], length, &[0; 4]].concat();
        for (input, violation, code) in [
            (vec![0x82, 0x01, b'x'], Unmasked, 1002),
            (vec![0x89, 0x00], Unmasked, 1002),
            (vec![0xc2, 0x81], ReservedBits, 1002),
            (vec![0xa2, 0x81], ReservedBits, 1002),
            (vec![0x92, 0x81], ReservedBits, 1002),
            (frame(0x83, b"x"), UnknownOpcode(3), 1002),
            (frame(0x87, b"x"), UnknownOpcode(7), 1002),
            (frame(0x8b, b"x"), UnknownOpcode(11), 1002),
            (frame(0x8f, b"x"), UnknownOpcode(15), 1002),
            (frame(0x09, b"x"), FragmentedControl, 1002),
            (frame(0x08, b"x"), FragmentedControl, 1002),
            (frame(0x89, &[0; 126]), LongControl, 1002),
            (vec![0x88, 0xff], LongControl, 1002),
            (frame(0x80, b"x"), LoneContinuation, 1002),
            (frame(0x00, b""), LoneContinuation, 1002),
            ([frame(0x82, b"x"), frame(0x80, b"x")].concat(), LoneContinuation, 1002),
            ([frame(0x02, b"x"), frame(0x82, b"x")].concat(), InterruptedMessage, 1002),
            ([frame(0x01, b""), frame(0x01, b"")].concat(), InterruptedMessage, 1002),
            (long(&[0xff, 0x80, 0, 0, 0, 0, 0, 0, 0]), LengthOutOfRange, 1002),
            (long(&[0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff]), LengthNotMinimal, 1002),
            (long(&[0xfe, 0, 125]), LengthNotMinimal, 1002),
            (close(b"\x03"), TruncatedCloseCode, 1002),
            (close(&999_u16.to_be_bytes()), InvalidCloseCode(999), 1002),
            (close(&1004_u16.to_be_bytes()), InvalidCloseCode(1004), 1002),
            (close(&1005_u16.to_be_bytes()), InvalidCloseCode(1005), 1002),
            (close(&1006_u16.to_be_bytes()), InvalidCloseCode(1006), 1002),
            (close(&1015_u16.to_be_bytes()), InvalidCloseCode(1015), 1002),
            (close(&2999_u16.to_be_bytes()), InvalidCloseCode(2999), 1002),
            (close(&5000_u16.to_be_bytes()), InvalidCloseCode(5000), 1002),
            (close(b"\x03\xe8\xff"), CloseReasonNotUtf8, 1007),
        ] {
            let good = frame(0x82, b"good");
            for lengths in [vec![usize::MAX], vec![1]] {
                let (_, data, found) = decode(&[&good, &input[..]].concat(), &lengths);
                assert_eq!(found, Some(violation), "{input:?}");
                assert!(data.starts_with(b"good"), "what came before it is kept");
            }
            assert_eq!(u16::from(violation.close_code()), code);
        }
    }

    #[test]
    fn b5_close_codes_that_a_client_may_send() {
        for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 4999_u16] {
            let (events, _, _) = decode(&frame(0x88, &code.to_be_bytes()), &[1]);
            let frame = CloseFrame { code: code.into(), reason: "".into() };
            assert_eq!(events, [Event::Close(Some(frame))]);
        }
        assert_eq!(decode(&frame(0x88, b""), &[1]).0, [Event::Close(None)]);
    }

    #[test]
    fn b3_the_header_is_put_in_front_of_the_payload() {
        for (size, header) in [
            (0, &[0x82, 0][..]),
            (1, &[0x82, 1]),
            (125, &[0x82, 125]),
            (126, &[0x82, 126, 0, 126]),
            (65_535, &[0x82, 126, 0xff, 0xff]),
            (65_536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut buffer = [vec![0xee; HEADROOM], pattern(size), vec![0xee]].concat();
            let frame = encode(&mut buffer, HEADROOM..HEADROOM + size);
            assert!(buffer[frame.clone()] == [header, &pattern(size)].concat(), "{size} bytes");
            assert!(buffer[..frame.start].iter().all(|byte| *byte == 0xee), "no byte before it");
        }
    }

    #[test]
    fn b4_control_frames_of_ours() {
        assert_eq!(pong(&[1; 125])[..], [&[0x8a, 125][..], &[1; 125]].concat());
        assert_eq!(close(None)[..], [0x88, 0]);
        let reason = "cannot connect to höst";
        let frame = CloseFrame { code: CloseCode::Error, reason: reason.into() };
        let sent = close(Some(&frame));
        assert_eq!(sent[..4], [0x88, 2 + 23, 0x03, 0xf3]);
        assert_eq!(&sent[4..], reason.as_bytes());
    }

    #[test]
    fn b6_a_long_reason_is_cut_between_characters() {
        let reason = "ä".repeat(100);
        let frame = CloseFrame { code: CloseCode::Error, reason: reason.into() };
        let sent = close(Some(&frame));
        assert_eq!(sent[1], 2 + 122);
        assert_eq!(str::from_utf8(&sent[4..]), Ok("ä".repeat(61).as_str()));
    }
}
