//! The fixed answers to clients whose request is not read: what they have sent begins none, or there is no memory for more of it
//! (L5). Being fixed, they need none of hyper's buffers.

use super::linger;
use crate::net::Socket;
use crate::shutdown::ShutdownWatch;
use crate::stream::Stream;
use crate::unadmitted::NoSession;

const NO_REQUEST: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

const NO_MEMORY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 10\r\n\
    Content-Type: text/plain; charset=utf-8\r\nContent-Length: 33\r\n\r\n\
    too much is under way: try again\n";

/// A fatal `internal_error`, as a record of TLS (RFC 8446, section 6).
const NO_MEMORY_FOR_TLS: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 80];

/// Refuses a TLS client whose hello has come, as there is no memory for its handshake. Returns why.
pub(crate) async fn refuse_encrypted(io: Socket, shutdown: &mut ShutdownWatch) -> NoSession {
    linger(Stream::new(io), &NO_MEMORY_FOR_TLS, shutdown).await;
    NoSession::NoMemory
}

/// Sends the answer, and closes the connection in order. Returns why.
pub(crate) async fn turn_away(
    stream: Stream,
    why: NoSession,
    shutdown: &mut ShutdownWatch,
) -> NoSession {
    let answer = if matches!(why, NoSession::NoMemory) { NO_MEMORY } else { NO_REQUEST };
    linger(stream, answer, shutdown).await;
    why
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::watch;
    use tokio::time::timeout;

    use super::*;
    use crate::shutdown::Shutdown;

    /// T6: also where the client has taken nothing of what it was sent before.
    #[tokio::test]
    async fn t6_who_takes_no_refusal_is_not_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let _theirs = listener.accept().await.unwrap();
        while timeout(Duration::from_millis(200), ours.writable()).await.is_ok() {
            let _ = ours.try_write(&[0; 1 << 14]);
        }
        let (_told, told) = watch::channel(Shutdown::Run);
        let mut shutdown = ShutdownWatch::new(told, Arc::default());
        let away = turn_away(Stream::new(ours.into()), NoSession::NoMemory, &mut shutdown);
        let why = timeout(Duration::from_secs(20), away).await.expect("in time");
        assert!(matches!(why, NoSession::NoMemory));
    }

    #[test]
    fn l5_answers_without_a_request_are_well_formed() {
        for answer in [NO_REQUEST, NO_MEMORY] {
            let text = std::str::from_utf8(answer).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.ends_with(&format!("\r\nContent-Length: {}", body.len())), "{head}");
        }
    }
}
