//! Many pings at once: each is answered, in order, as long as the client reads (B11).

use std::time::Duration;

use bridge::Readiness;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::time::sleep;

use crate::harness::*;

/// Pings with payloads of so many bytes, each with its number in front.
pub(crate) fn pings(count: u16, length: usize) -> Vec<u8> {
    (0..count).flat_map(|number| frame(0x80 | PING, &payload(number, length))).collect()
}

fn payload(number: u16, length: usize) -> Vec<u8> {
    let mut payload = number.to_be_bytes().to_vec();
    payload.resize(length, b'*');
    payload
}

pub(crate) async fn receive_pongs(client: &mut Client, count: u16, length: usize) {
    for number in 0..count {
        assert_eq!(client.receive().await, (PONG, payload(number, length)), "pong {number}");
    }
}

#[tokio::test]
async fn f36_b11_ten_pings_in_one_packet_are_ten_pongs_in_order() {
    for length in [2, 125] {
        let (_bridge, mut client, mut target) = session().await;
        client.write(&[pings(10, length), frame(0x82, b"and this")].concat()).await;
        receive_pongs(&mut client, 10, length).await;
        assert_eq!(read_exact(&mut target, 8).await, b"and this");
        client.close(1000).await;
        assert_eq!(client.receive_close().await.0, 1000);
    }
}

/// B11: there is room for the answers to all pings of one read, so that a client that reads its answers is never closed.
#[tokio::test]
async fn f36_b11_a_thousand_pings_at_once_are_a_thousand_pongs() {
    let (_bridge, client, _target) = session().await;
    let (reader, mut writer) = client.0.into_split();
    let sending = tokio::spawn(async move {
        writer.write_all(&pings(1000, 125)).await.unwrap();
        writer
    });
    let mut reader = reader;
    let mut pongs = vec![0; 1000 * 127];
    within(reader.read_exact(&mut pongs)).await.unwrap();
    let expected: Vec<u8> =
        (0..1000).flat_map(|number| [vec![0x8a, 125], payload(number, 125)].concat()).collect();
    assert!(pongs == expected);
    drop(sending.await.unwrap());
}

#[tokio::test]
async fn f36_b11_pings_of_a_held_client_are_answered_too() {
    let (_supervisor, target) = program(Readiness::Waiting, true, Duration::from_secs(30));
    let bridge = Bridge::start(config(target));
    let mut client = bridge.client().await;
    client.write(&pings(10, 125)).await;
    receive_pongs(&mut client, 10, 125).await;
}

/// B11: a client that sends pings and reads no answers is closed with 1008, after the answers that it was sent before.
#[tokio::test]
async fn f36_b11_a_flood_is_closed_with_1008() {
    let (_supervisor, held) = program(Readiness::Waiting, true, Duration::from_secs(30));
    let listener = listener().await;
    for bridge in [Bridge::to(&listener), Bridge::start(config(held))] {
        let mut client = bridge.client().await;
        let flood = pings(1000, 125);
        // The client sends until the connection takes nothing more.
        let (mut sent, mut refused) = (0, 0);
        while refused < 50 {
            if let Ok(length) = client.0.try_write(&flood[sent % flood.len()..]) {
                (sent, refused) = (sent + length, 0);
            } else {
                refused += 1;
                sleep(Duration::from_millis(1)).await;
            }
            assert!(sent < 130_000_000, "all pings are taken");
        }
        // A client that waits for its program has two seconds for all of it.
        let mut reader = BufReader::with_capacity(1 << 20, &mut client.0);
        let mut pongs = 0_u32;
        let close = loop {
            match within(next_frame(&mut reader)).await {
                (PONG, payload) => {
                    let number = u16::try_from(pongs % 1000).unwrap();
                    assert_eq!(payload[..2], number.to_be_bytes(), "pong {pongs}");
                    pongs += 1;
                }
                (opcode, payload) => break (opcode, payload),
            }
        };
        assert_eq!((close.0, &close.1[..2]), (CLOSE, &1008_u16.to_be_bytes()[..]));
        assert!(pongs > 1000, "{pongs}");
    }
}
