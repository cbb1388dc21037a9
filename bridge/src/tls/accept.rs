//! The first steps of a new connection, until it is a [`Stream`] with its [`Peer`]. The first byte tells plain from TLS, and
//! no TLS state is made before the client's first message is whole (L5). Knows connections and TLS handshakes; must not
//! know where certificates come from, nor what is sent over the stream, but for one refusal.

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
use crate::net::{PEEK_MAX, Socket, Unread};
use crate::peer::{Peer, TlsVersion};
use crate::stream::Stream;

/// The type of a TLS record that begins a handshake (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 0x16;

/// The first byte of an SSLv2 hello that is shorter than 256 bytes: this byte of the record's length has only its high bit set.
const SSLV2: u8 = 0x80;

/// A fatal `handshake_failure`, as a record (RFC 8446, section 6): we have no certificate.
const NO_CERTIFICATE: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 40];

/// A fatal `record_overflow`: the client's first message is too long.
const TOO_LONG: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 22];

/// A fatal `protocol_version`. A client that sends an SSLv2 hello for compatibility understands it.
const NO_SSLV2: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 70];

/// The answer to plain clients where only TLS is served. Nothing of the request is read, so the answer is the
/// same for all of them.
const NO_PLAIN: &[u8] = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\
    Content-Type: text/plain; charset=utf-8\r\nContent-Length: 47\r\n\r\n\
    encrypted connections only: use https: or wss:\n";

/// What an accepted connection has become, or why it is refused. If its client has been told so, the connection is still
/// to be closed in order, and stands beside the reason.
pub(crate) type Accepted<T> = Result<T, (Failure, Option<Socket>)>;

/// What a connection begins with.
pub(crate) enum First<T> {
    /// Unencrypted bytes, and what `judge` said of them. `None`: the kernel has too little room to wait for as much as
    /// `judge` needs, so they are passed on unjudged.
    Plain(Unread, Peer, Option<T>),
    /// A TLS handshake: its first message is there, and the rest is still to be done.
    Hello(Acceptor, Socket, Peer),
}

/// What the first byte says of a connection.
enum Begun<T> {
    /// There is none: the client has ended the connection.
    Nothing,
    Hello,
    Sslv2,
    /// Unencrypted bytes, and what `judge` said of them; `None` if they are not judged.
    Plain(Option<T>),
}

/// Waits until it is clear what a peer's connection begins with, and reads nothing of it. The first byte tells TLS from plain.
/// `judge` says when enough of something unencrypted has come: it is given all bytes that have come, and whether they are
/// the last.
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
            // Judged, or passed on unjudged: what `judge` waits for might never have room in the kernel.
            judged => Some(Begun::Plain(judged)),
        },
    });
    let (failure, answer) = match begun.await.map_err(unreadable)? {
        Begun::Nothing => return Err((Failure::Closed, None)),
        // A stranger that connects directly was closed before. This one came through a trusted proxy, and is not worth the
        // cost of a handshake.
        Begun::Hello if peer.standing == Standing::Stranger => {
            return Err((Failure::Stranger, None));
        }
        Begun::Hello => {
            // Without a certificate there is no handshake, so the rest of its first message is not waited for.
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
    // An error is ignored: the connection is closed anyway.
    let _ = io.write_all(answer).await;
    Err((failure, Some(io)))
}

/// The failure of a connection that cannot be read. The connection is not returned with it, as its client cannot be told.
fn unreadable<T>(error: io::Error) -> (Failure, Option<T>) {
    (Failure::Unreadable(error), None)
}

/// Waits until a client's first message is whole, or cannot become whole. Returns whether it is too long.
async fn is_too_long(io: &Socket, guest: &Guest) -> io::Result<bool> {
    if io.has_little_room() {
        // The message might never have room in the kernel, and so never be whole.
        return Ok(false);
    }
    io.peek_until(|seen, is_last| match hello(seen) {
        // Where there is no memory for the message, there is none for a handshake either, and the caller refuses it.
        Hello::Begun if is_last || !guest.leaves_unread(seen.len()) => Some(false),
        Hello::Begun => (seen.len() == PEEK_MAX).then_some(true),
        Hello::TooLong => Some(true),
        Hello::Whole | Hello::Other => Some(false),
    })
    .await
}

/// Does the TLS handshake with a client whose first message is there, and makes a stream of the connection.
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
        // rustls has sent the client an alert, where there is one for the error.
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
