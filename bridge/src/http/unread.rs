//! The answers to those of whom no request is read: what they have sent begins none, or there is no memory for more of it
//! (L5). They are fixed, so that nobody of them has buffers of hyper's.

use tokio::io::AsyncWriteExt;

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

/// Refuses a TLS client whose hello is there, as there is no memory for its handshake. Returns why.
pub(crate) async fn refuse_encrypted(io: Socket, shutdown: &mut ShutdownWatch) -> NoSession {
    let mut stream = Stream::new(io);
    let _ = stream.write_all(&NO_MEMORY_FOR_TLS).await;
    linger(stream, shutdown).await;
    NoSession::NoMemory
}

/// Answers, and ends the connection in order. Returns why.
pub(crate) async fn turn_away(
    mut stream: Stream,
    why: NoSession,
    shutdown: &mut ShutdownWatch,
) -> NoSession {
    let answer = if matches!(why, NoSession::NoMemory) { NO_MEMORY } else { NO_REQUEST };
    // Whether the client hears it is not our concern. Nothing was sent before: there is room for it.
    let _ = stream.write_all(answer).await;
    linger(stream, shutdown).await;
    why
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l5_answers_without_a_request_are_well_formed() {
        for answer in [NO_REQUEST, NO_MEMORY] {
            let text = std::str::from_utf8(answer).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.ends_with(&format!("\r\nContent-Length: {}", body.len())), "{head}");
        }
    }
}
