//! L5, T1: a client that sends early data, as another server has allowed it to (RFC 8446, section 4.2.10). The bridge takes none,
//! and the client has to send it again. rustls drops some 8 KiB of it; what comes beyond that it treats as damaged records.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use bridge::{Access, Config};
use tokio::sync::watch;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, ServerConfig, ServerConnection, Stream,
};

use crate::certified::Certified;
use crate::harness::*;

/// How many bytes of early data the other server allows.
const ALLOWED: u32 = 16 * 1024;

fn begin(client: &Arc<ClientConfig>) -> ClientConnection {
    ClientConnection::new(Arc::clone(client), "localhost".try_into().unwrap()).unwrap()
}

/// The client connects to the other server, and has its tickets then.
fn visit(client: &Arc<ClientConfig>, server: Arc<ServerConfig>) {
    let (mut client, mut server) = (begin(client), ServerConnection::new(server).unwrap());
    while client.wants_write() || server.wants_write() {
        let mut said = Vec::new();
        client.write_tls(&mut said).unwrap();
        server.read_tls(&mut &said[..]).unwrap();
        server.process_new_packets().unwrap();
        let mut said = Vec::new();
        server.write_tls(&mut said).unwrap();
        client.read_tls(&mut &said[..]).unwrap();
        client.process_new_packets().unwrap();
    }
}

/// The client sends so many bytes of early data to the bridge, and is served all the same.
fn is_served(client: &Arc<ClientConfig>, address: SocketAddr, length: usize) {
    let mut io = TcpStream::connect(address).unwrap();
    io.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut tls = begin(client);
    tls.early_data().expect("the ticket allows it").write_all(&vec![b'x'; length]).unwrap();
    tls.complete_io(&mut io).unwrap();
    assert!(!tls.is_early_data_accepted());
    let mut stream = Stream::new(&mut tls, &mut io);
    stream.write_all(HEAD.as_bytes()).unwrap();
    let mut head = [0; 13];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 101 ", "{length}");
}

#[tokio::test(flavor = "multi_thread")]
async fn l5_t1_who_sends_early_what_nobody_reads_is_served() {
    let certified = Certified::new();
    let mut client = certified.client(&TLS13);
    client.enable_early_data = true;
    let mut other = certified.server(&TLS13);
    other.max_early_data_size = ALLOWED;
    let (client, other) = (Arc::new(client), Arc::new(other));
    let target = listener().await;
    let (_certificates, tls) = watch::channel(certified.bridge());
    let access = Access { tls, ..Access::default() };
    let bridge = Bridge::start(Config { access, ..config(address_of(&target)) });
    let address = bridge.addr;
    let serving = tokio::task::spawn_blocking(move || {
        for length in [1, 1_000, 2_100, 4_096, 8_000] {
            visit(&client, Arc::clone(&other));
            is_served(&client, address, length);
        }
    });
    within(serving).await.unwrap();
}
