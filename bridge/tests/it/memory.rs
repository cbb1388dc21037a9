//! What a session keeps for peers that take nothing counts in the memory budget, whatever it is: L5. Where all is used, new
//! clients are refused, and sessions go on in small pieces.

use bridge::{Config, Readiness};
use tokio::io::AsyncWriteExt;

use crate::harness::*;
use crate::pings::{pings, receive_pongs};

/// Less than what the clients of one test leave untaken.
const MEMORY: usize = 75_000;

/// So many that all of it is used, though each has less where memory is scarce.
const CLIENTS: usize = 8;

/// Clients that have sent these bytes, and take nothing of what they are sent.
async fn clients(bridge: &Bridge, bytes: &[u8]) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(bridge.client_by(narrow_socket(NARROW)).await);
    }
    for client in &mut clients {
        client.write(bytes).await;
    }
    clients
}

/// L5, B11: answers to pings count, wherever they wait. Where memory is scarce, no more pings are read than are answered, and
/// nobody is closed for it.
#[tokio::test]
async fn l5_b11_pongs_that_nobody_reads_count() {
    let listener = listener().await;
    let bridge = Bridge::start(Config { memory: MEMORY, ..config(address_of(&listener)) });
    let clients = clients(&bridge, &pings(5000, 125)).await;
    bridge.answers("503").await;
    for mut client in clients {
        receive_pongs(&mut client, 5000, 125).await;
    }
    bridge.answers("101").await;
}

/// L5: so does what a client sends that has no target yet, and what it is sent.
#[tokio::test]
async fn l5_b11_what_waits_for_held_clients_counts() {
    let one = async |bytes: Vec<u8>| {
        // They are held for ten seconds.
        let (_supervisor, target) = program(Readiness::Waiting, true, DEADLINE / 2);
        let bridge = Bridge::start(Config { memory: MEMORY, ..config(target) });
        let _clients = clients(&bridge, &bytes).await;
        bridge.answers("503").await;
        bridge.answers("101").await;
    };
    tokio::join!(one(frame(0x82, &pattern(10_000))), one(pings(5000, 125)));
}

/// L5: so does what the kernel alone has, as the target has sent no more than the kernel takes.
#[tokio::test]
async fn l5_what_the_kernel_has_for_a_session_counts() {
    let listener = listener().await;
    let bridge = Bridge::start(Config { memory: MEMORY, ..config(address_of(&listener)) });
    let mut client = bridge.client_by(narrow_socket(NARROW)).await;
    let mut target = accept(&listener).await;
    let bytes = pattern(1_000_000);
    within(target.write_all(&bytes)).await.unwrap();
    bridge.answers("503").await;
    assert!(client.receive_data(bytes.len()).await == bytes);
    bridge.answers("101").await;
}

/// L5: the bytes that wait now count, not those that waited when the client began to be slow.
#[tokio::test]
async fn l5_what_a_slow_reader_has_taken_counts_no_more() {
    let listener = listener().await;
    let bridge = Bridge::start(Config { memory: MEMORY, ..config(address_of(&listener)) });
    let mut client = bridge.client_by(narrow_socket(4096)).await;
    let mut target = accept(&listener).await;
    within(target.write_all(&pattern(300_000))).await.unwrap();
    bridge.answers("503").await;
    read_exact(&mut client.0, 275_000).await;
    bridge.answers("101").await;
    assert!(unsent_at(bridge.addr, client.0.local_addr().unwrap()) > 10_000, "some still wait");
}
