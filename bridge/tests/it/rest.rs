//! O2: after a hand-over, TLS sessions go on in what is left of the old process, which has their keys (`Rest`).

use std::sync::Arc;
use std::time::Duration;

use bridge::tls::Tls;
use bridge::{Access, Config, Shutdown};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::SupportedProtocolVersion;
use tokio_rustls::rustls::version::{TLS12, TLS13};

use crate::certified::Certified;
use crate::harness::*;

/// TLS for a bridge, and a connector for clients that trust its certificate.
fn encrypted(version: &'static SupportedProtocolVersion) -> (Tls, TlsConnector) {
    let certified = Certified::new();
    let client = certified.client(version);
    (certified.bridge(), TlsConnector::from(Arc::new(client)))
}

/// The client's side of a session over TLS.
async fn session(bridge: &Bridge, connector: &TlsConnector) -> TlsStream<TcpStream> {
    let stream = bridge.connect().await;
    let name = "localhost".try_into().unwrap();
    let mut stream = within(connector.connect(name, stream)).await.unwrap();
    within(stream.write_all(HEAD.as_bytes())).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within(stream.read_u8()).await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "));
    stream
}

async fn exchange(client: &mut TlsStream<TcpStream>, target: &mut TcpStream, byte: u8) {
    let written = frame(0x80 | BINARY, &[byte; 1000]);
    within(client.write_all(&written)).await.unwrap();
    within(client.flush()).await.unwrap();
    assert_eq!(read_exact(target, 1000).await, [byte; 1000]);
    within(target.write_all(&[byte; 100])).await.unwrap();
    let mut frame = [0; 102];
    within(client.read_exact(&mut frame)).await.unwrap();
    assert_eq!(frame[..2], [0x82, 100]);
    assert_eq!(frame[2..], [byte; 100]);
}

#[tokio::test]
async fn o2_encrypted_sessions_go_on_in_the_rest_and_end_with_it() {
    for version in [&TLS13, &TLS12] {
        let (tls, connector) = encrypted(version);
        let target = listener().await;
        let address = address_of(&target);
        let (_certificates, tls) = watch::channel(tls);
        let access = Access { tls, ..Access::default() };
        let bridge = Bridge::start(Config { access, ..config(address) });
        let mut clients = Vec::new();
        for byte in 0..5 {
            let mut client = session(&bridge, &connector).await;
            let mut target = accept(&target).await;
            exchange(&mut client, &mut target, byte).await;
            clients.push((client, target));
        }
        // After a hand-over that is called off, the sessions go on where they were.
        drop(within(bridge.hand_over.freeze(Duration::from_secs(10))).await.unwrap());
        for (client, target) in &mut clients {
            exchange(client, target, 7).await;
        }
        let mut frozen = within(bridge.hand_over.freeze(Duration::from_secs(10))).await.unwrap();
        assert_eq!((frozen.state.sessions(), frozen.rest.sessions()), (0, 5));
        let rest = std::mem::take(&mut frozen.rest);
        std::mem::forget(frozen);
        let shutdown = watch::Sender::new(Shutdown::Drain);
        let serving = tokio::spawn(rest.serve(shutdown.clone()));
        for (client, target) in &mut clients {
            exchange(client, target, 9).await;
        }
        shutdown.send_replace(Shutdown::Now);
        for (client, _) in &mut clients {
            let mut end = Vec::new();
            within(client.read_to_end(&mut end)).await.unwrap();
            assert_eq!(end[2..4], 1001_u16.to_be_bytes());
        }
        drop(clients);
        within(serving).await.unwrap().unwrap();
    }
}
