//! A Redis server that knows the tokens: each is a key, with its target for a value (K6).
//!
//! - `server` is where the server is and what each connection needs, as the option has it,
//! - `connection` exchanges messages with the server, which `protocol` reads and writes.

mod connection;
pub(crate) mod protocol;
mod server;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::failure::SourceError;
use super::target;
use crate::destination::Endpoint;
use crate::net::Lookups;
use crate::redact;
use connection::{Connection, Failure};
use protocol::Reply;
pub use server::RedisServer;

/// How many tokens are asked for at a time, each over a connection of its own.
const AT_ONCE: usize = 16;

/// How long an answer over the kept connection may take: a firewall on the way may have forgotten the connection, and drop
/// everything silently.
const KEPT_ANSWERS: Duration = Duration::from_secs(3);

/// A server that is asked for each token.
#[derive(Debug)]
pub(super) struct Redis {
    server: RedisServer,
    lookups: Lookups,
    permits: Semaphore,
    /// An idle connection, for the next look-up.
    kept: Mutex<Option<Connection>>,
}

impl Redis {
    pub(super) fn new(server: RedisServer) -> Self {
        let permits = Semaphore::new(AT_ONCE);
        Self { server, lookups: Lookups::new(), permits, kept: Mutex::default() }
    }

    pub(super) async fn look_up(&self, token: &str) -> Result<Option<Endpoint>, SourceError> {
        let _permit = self.permits.acquire().await.map_err(|_| SourceError::Failed)?;
        // The server may repeat what it was sent (K8).
        let secrets = || [Some(token), self.server.password.as_deref()].into_iter().flatten();
        let failed = |why: String| {
            SourceError::Server(self.server.to_string(), redact::without(&why, secrets()))
        };
        match self
            .get(&self.server.key(token))
            .await
            .map_err(|failure| failed(failure.to_string()))?
        {
            Reply::Nil => Ok(None),
            Reply::Value(value) => read(&value)
                .map(Some)
                .map_err(|why| failed(format!("its value cannot be read: {why}"))),
            // There is a key of this name, but its value is no string, and so no target.
            Reply::Error(text) if text.starts_with("WRONGTYPE ") => Ok(None),
            Reply::Error(text) => Err(failed(format!("it answers {text:?}"))),
            Reply::Status => Err(failed("it answers with no value".into())),
        }
    }

    /// A key's value, over the kept connection if that is still good. A connection is taken out of `kept` while it is used: a
    /// look-up that is given up leaves none there in the middle of an answer.
    async fn get(&self, key: &str) -> Result<Reply, Failure> {
        let kept = self.kept().take().filter(|kept| !kept.has_unexpected_input());
        if let Some(mut connection) = kept
            && let Ok(Ok(reply)) = timeout(KEPT_ANSWERS, connection.get(key)).await
        {
            self.keep(connection);
            return Ok(reply);
        }
        let mut connection = Connection::open(&self.server, &self.lookups).await?;
        let reply = connection.get(key).await?;
        self.keep(connection);
        Ok(reply)
    }

    fn keep(&self, connection: Connection) {
        self.kept().get_or_insert(connection);
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Option<Connection>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The target that a value is: `host:port`, or that as the `host` of a JSON object.
pub(crate) fn read(value: &[u8]) -> Result<Endpoint, &'static str> {
    let text = std::str::from_utf8(value).map_err(|_| "it is not text in UTF-8")?.trim();
    if !text.starts_with('{') {
        return target::endpoint(text);
    }
    let object: Value = serde_json::from_str(text).map_err(|_| "it is not JSON")?;
    target::endpoint(object.get("host").and_then(Value::as_str).ok_or("it has no host")?)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::destination::Address;

    /// Else one token's target would be the next one's.
    #[tokio::test]
    async fn k6_an_answer_that_nobody_has_asked_for_is_no_tokens() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let redis = RedisServer::parse(&listener.local_addr().unwrap().to_string()).unwrap();
        let redis = Redis::new(redis);
        let port = async |token| match redis.look_up(token).await.unwrap() {
            Some(Endpoint::Tcp(Address { port, .. })) => Some(port),
            _ => None,
        };
        let asked = async |client: &mut TcpStream| {
            assert!(client.read(&mut [0; 1024]).await.unwrap() > 0);
        };
        let first = async {
            let (mut client, _) = listener.accept().await.unwrap();
            asked(&mut client).await;
            client.write_all(b"$3\r\nh:1\r\n").await.unwrap();
            client
        };
        let (found, mut client) = tokio::join!(port("one"), first);
        assert_eq!(found, Some(1));
        client.write_all(b"$3\r\nh:2\r\n").await.unwrap();
        let second = async {
            let (mut client, _) = listener.accept().await.unwrap();
            asked(&mut client).await;
            client.write_all(b"$3\r\nh:3\r\n").await.unwrap();
            client
        };
        let (found, mut client) = tokio::join!(port("two"), second);
        assert_eq!(found, Some(3));
        // A connection on which nothing more has come is kept.
        let third = async {
            asked(&mut client).await;
            client.write_all(b"$3\r\nh:4\r\n").await.unwrap();
        };
        assert_eq!(tokio::join!(port("three"), third).0, Some(4));
    }

    /// Without quotes around it, too.
    #[tokio::test]
    async fn k6_k8_what_a_server_repeats_of_a_token_or_a_password_is_cut() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let text = format!("{address}:0:opensesame");
        let redis = Redis::new(RedisServer::parse(&text).unwrap());
        let serving = async {
            let mut clients = Vec::new();
            for (ok, answer) in [
                ("", "-ERR no password opensesame\r\n".to_owned()),
                ("+OK\r\n", "-ERR no desk abcdefgh here\r\n".to_owned()),
                ("+OK\r\n", format!("-ERR {} abcdefgh\r\n", "x".repeat(110))),
            ] {
                let (mut client, _) = listener.accept().await.unwrap();
                for line in [ok, &answer].into_iter().filter(|line| !line.is_empty()) {
                    assert!(client.read(&mut [0; 1024]).await.unwrap() > 0);
                    client.write_all(line.as_bytes()).await.unwrap();
                }
                client.shutdown().await.unwrap();
                clients.push(client);
            }
            clients
        };
        let asking = async {
            for expected in ["password open…", "no desk abcd… here", "x abcd…"] {
                let failure = redis.look_up("abcdefgh").await.unwrap_err().to_string();
                assert!(failure.contains(expected), "{failure}");
            }
        };
        tokio::join!(serving, asking);
    }

    #[test]
    fn k6_a_value_is_a_target_or_has_one() {
        let tcp = Endpoint::Tcp(Address { host: "h".into(), port: 5900 });
        for value in
            ["h:5900", " h:5900\n", r#"{"host": "h:5900"}"#, r#" {"host":"h:5900","x":1} "#]
        {
            assert_eq!(read(value.as_bytes()), Ok(tcp.clone()), "{value}");
        }
        for value in ["unix_socket:/a", r#"{"host":"unix_socket:/a"}"#] {
            assert_eq!(read(value.as_bytes()), Ok(Endpoint::Unix("/a".into())), "{value}");
        }
        for value in [
            "",
            "h",
            "h:x",
            "{",
            "{\"host\": \"h:5900\"   ",
            r#"{"host":"h"}"#,
            r#"{"host":1}"#,
            r#"{"port":1}"#,
            r#"["h:5900"]"#,
        ] {
            assert!(read(value.as_bytes()).is_err(), "{value}");
        }
        assert!(read(b"\xff:1").is_err());
    }
}
