//! From a new connection to a [`Stream`] and its [`Peer`]: the first byte tells plain from TLS, and there is no state of
//! TLS before the client's first message is whole (L5). Knows connections and
//! handshakes; must not know where certificates come from, nor what is said over the stream, but for one refusal.

use std::io;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{ProtocolVersion, ServerConnection};

use super::certificate::common_name;
use super::failure::Failure;
use super::hello::{Hello, hello};
use super::records::Records;
use super::{Acceptor, Tls};
use crate::arrival::Arrival;
use crate::clients::Standing;
use crate::config::{Access, Plain};
use crate::lobby::Guest;
use crate::net::{SEEN_MAX, Socket, Unread};
use crate::peer::{Peer, TlsVersion};
use crate::stream::Stream;

/// The type of a TLS record that begins a handshake (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 0x16;

/// The high bit of an SSLv2 record's length, where its hello is shorter than 256 bytes.
const SSLV2: u8 = 0x80;

/// A fatal `handshake_failure`, as a record (RFC 8446, section 6): we have no certificate.
const NO_CERTIFICATE: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 40];

/// A fatal `record_overflow`: of what a client begins with, there is too much.
const TOO_LONG: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 22];

/// A fatal `protocol_version`. A client that says an SSLv2 hello for compatibility understands it.
const NO_SSLV2: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 70];

/// For plain clients where none are served. Nothing of the request is read, so it is the same for
/// all of them.
const NO_PLAIN: &[u8] = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\
    Content-Type: text/plain; charset=utf-8\r\nContent-Length: 47\r\n\r\n\
    encrypted connections only: use https: or wss:\n";

/// What an accepted connection has become, or why not, and the connection if it is still to be closed in
/// order: its client has been told.
pub(crate) type Accepted<T> = Result<T, (Failure, Option<Socket>)>;

/// What a connection begins with.
pub(crate) enum First<T> {
    /// Something unencrypted, and what was said of it; none, if it had to be let through.
    Plain(Unread, Peer, Option<T>),
    /// The whole first message of a TLS handshake, to be gone on with.
    Hello(Acceptor, Socket, Peer),
}

/// What the first byte begins.
enum Begun<T> {
    /// The client has ended instead.
    Nothing,
    Hello,
    Sslv2,
    /// Something unencrypted, that nobody is to judge, or what was said of it.
    Plain(Option<T>),
}

/// Waits for what a peer's connection begins with: the first byte tells which it is, `judge` when something unencrypted is there as
/// far as it has to be, from all that there is of it and whether that is the last. Nothing is read of it.
pub(crate) async fn first<T>(
    io: Socket,
    peer: Peer,
    access: &Access,
    arrival: &Arrival,
    mut judge: impl FnMut(&[u8], bool) -> Option<T>,
) -> Accepted<First<T>> {
    let io = Unread::new(io);
    let mut has_room = None;
    let begun = io.peek_until(|seen, is_last| match seen.first() {
        None => Some(Begun::Nothing),
        Some(&HANDSHAKE) => Some(Begun::Hello),
        Some(&SSLV2) => Some(Begun::Sslv2),
        Some(_) if access.plain == Plain::Refused => Some(Begun::Plain(None)),
        Some(_) => match judge(seen, is_last) {
            None if *has_room.get_or_insert_with(|| !io.has_little_room()) => None,
            // It might never be there.
            judged => Some(Begun::Plain(judged)),
        },
    });
    let (failure, answer) = match begun.await.map_err(unreadable)? {
        Begun::Nothing => return Err((Failure::Closed, None)),
        // Whom no proxy speaks for is not here any more; a handshake is more than this one is worth.
        Begun::Hello if peer.standing == Standing::Stranger => {
            return Err((Failure::Stranger, None));
        }
        Begun::Hello => {
            // Where there is no certificate nothing is waited for.
            let is_off = matches!(*access.tls.borrow(), Tls::Off(_));
            let is_too_long =
                !is_off && is_too_long(&io, &arrival.guest).await.map_err(unreadable)?;
            arrival.encrypted();
            access.asked.notify_one();
            let tls = access.tls.borrow().clone();
            match tls {
                Tls::On(_) if is_too_long => {
                    let why = "the client's first message is longer than 16 KiB";
                    (Failure::Handshake(why.into()), &TOO_LONG[..])
                }
                Tls::On(acceptor) => return Ok(First::Hello(acceptor, io.into_inner(), peer)),
                Tls::Off(reason) => (Failure::Off(reason), &NO_CERTIFICATE[..]),
            }
        }
        Begun::Sslv2 => (Failure::Sslv2, &NO_SSLV2[..]),
        Begun::Plain(judged) => match access.plain {
            Plain::Served => return Ok(First::Plain(io, peer, judged)),
            Plain::Refused => (Failure::Plain, NO_PLAIN),
        },
    };
    arrival.busy();
    let mut io = io.into_inner();
    // Whether the client hears it is not our concern any more.
    let _ = io.write_all(answer).await;
    Err((failure, Some(io)))
}

/// There is nobody to be told.
fn unreadable<T>(error: io::Error) -> (Failure, Option<T>) {
    (Failure::Unreadable(error), None)
}

/// Waits until a client's first message is whole, or something else is clear; whether it is too long.
async fn is_too_long(io: &Socket, guest: &Guest) -> io::Result<bool> {
    if io.has_little_room() {
        // It might never be whole.
        return Ok(false);
    }
    io.peek_until(|seen, is_last| match hello(seen) {
        // Where there is no memory for it, there is none for a handshake, either.
        Hello::Begun if is_last || !guest.leaves_unread(seen.len()) => Some(false),
        Hello::Begun => (seen.len() == SEEN_MAX).then_some(true),
        Hello::TooLong => Some(true),
        Hello::Whole | Hello::Other => Some(false),
    })
    .await
}

/// Makes a stream of a connection whose client has said hello.
pub(crate) async fn shake_hands(
    Acceptor { config }: Acceptor,
    io: Socket,
    peer: Peer,
    arrival: &Arc<Arrival>,
) -> Accepted<(Stream, Peer)> {
    let io = Records::counted(io, Arc::clone(arrival));
    match TlsAcceptor::from(config).accept(io).into_fallible().await {
        Ok(mut stream) => {
            let (io, tls) = stream.get_mut();
            io.is_shaken();
            let peer = Peer { tls: version(tls), certificate: name(tls), ..peer };
            Ok((Stream::encrypted(stream), peer))
        }
        // rustls has sent the alert, where it knows one.
        Err((error, io)) => Err((Failure::from_handshake(&error), Some(io.into_inner()))),
    }
}

fn version(tls: &ServerConnection) -> Option<TlsVersion> {
    match tls.protocol_version()? {
        ProtocolVersion::TLSv1_3 => Some(TlsVersion::V1_3),
        _ => Some(TlsVersion::V1_2),
    }
}

/// The common name of the client's certificate, which rustls has verified.
fn name(tls: &ServerConnection) -> Option<Box<str>> {
    common_name(tls.peer_certificates()?.first()?).map(String::into_boxed_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t1_the_refusal_of_plain_clients_is_well_formed() {
        let text = std::str::from_utf8(NO_PLAIN).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("\r\nContent-Length: {}", body.len())), "{head}");
    }
}
