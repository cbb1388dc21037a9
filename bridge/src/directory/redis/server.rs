//! A Redis server as upstream's option has it: `host[:port[:db[:password[:namespace]]]]`. Knows text only.

use std::fmt;

use super::super::target;
use crate::destination::{Address, Endpoint};

const PORT: &str = "6379";

/// Where a server is, and what each connection and each key needs.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisServer {
    pub(super) address: Address,
    pub(super) database: u32,
    pub(super) password: Option<String>,
    /// What stands before each token in a key: the namespace and a colon, or nothing.
    namespace: String,
}

impl RedisServer {
    /// Reads the option. A part may be in quotes, if it has colons; an empty one is the default.
    ///
    /// # Errors
    ///
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let mut fields = fields(text).into_iter();
        let mut field = || fields.next().unwrap_or_default();
        let (host, port, database) = (field(), field(), field());
        let (password, namespace) = (field(), field());
        if fields.next().is_some() {
            return Err("it has more than five parts");
        }
        let port = if port.is_empty() { PORT } else { port.trim() };
        let Endpoint::Tcp(address) = target::tcp(host, port)? else { return Err("it has no host") };
        let database = if database.is_empty() { "0" } else { database.trim() };
        let is_number = database.bytes().all(|byte| byte.is_ascii_digit());
        let database =
            database.parse().ok().filter(|_| is_number).ok_or("its database is no number")?;
        Ok(Self {
            address,
            database,
            password: Some(password).filter(|it| !it.is_empty()).map(str::to_owned),
            namespace: if namespace.is_empty() { String::new() } else { format!("{namespace}:") },
        })
    }

    /// The key of a token on the server.
    pub(super) fn key(&self, token: &str) -> String {
        format!("{}{token}", self.namespace)
    }
}

/// The parts between colons. Quotes count where they are around all of a part that is not empty.
fn fields(text: &str) -> Vec<&str> {
    let mut fields = Vec::new();
    let mut rest = Some(text);
    while let Some(text) = rest {
        let quoted = text.strip_prefix('"').and_then(|inner| inner.split_once('"'));
        let quoted = quoted.filter(|(field, after)| {
            !field.is_empty() && (after.is_empty() || after.starts_with(':'))
        });
        let (field, after) = match quoted {
            Some((field, after)) => (field, after.strip_prefix(':')),
            None => match text.split_once(':') {
                Some((field, after)) => (field, Some(after)),
                None => (text, None),
            },
        };
        fields.push(field);
        rest = after;
    }
    fields
}

/// Without the password and the namespace, which nobody else need know.
impl fmt::Display for RedisServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "redis://{}", self.address)
    }
}

impl fmt::Debug for RedisServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisServer({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each was compared with the Python websockify 0.13.
    #[test]
    fn k6_the_parts_of_a_server() {
        for (text, host, port, database, password, namespace) in [
            ("h", "h", 6379, 0, None, ""),
            ("h:1", "h", 1, 0, None, ""),
            ("h:", "h", 6379, 0, None, ""),
            ("h::", "h", 6379, 0, None, ""),
            ("h:1:2", "h", 1, 2, None, ""),
            ("h::2", "h", 6379, 2, None, ""),
            ("h:::p", "h", 6379, 0, Some("p"), ""),
            ("h::::ns", "h", 6379, 0, None, "ns:"),
            ("h:1:2:p:ns", "h", 1, 2, Some("p"), "ns:"),
            ("h:1::p:", "h", 1, 0, Some("p"), ""),
            ("h::::\"a:b\"", "h", 6379, 0, None, "a:b:"),
            ("h:::\"p:w\":n", "h", 6379, 0, Some("p:w"), "n:"),
            ("h:::\"a:b\":\"c:d\"", "h", 6379, 0, Some("a:b"), "c:d:"),
            ("h:::\" p \"", "h", 6379, 0, Some(" p "), ""),
            ("h:1:\"2\"", "h", 1, 2, None, ""),
            ("h: 1", "h", 1, 0, None, ""),
            ("h:::\"p", "h", 6379, 0, Some("\"p"), ""),
            ("h:::p\"q\"", "h", 6379, 0, Some("p\"q\""), ""),
            ("h:::\"p\"q:n", "h", 6379, 0, Some("\"p\"q"), "n:"),
            ("h:::\"\"", "h", 6379, 0, Some("\"\""), ""),
            ("\"h\"", "h", 6379, 0, None, ""),
            ("\"::1\":6379", "::1", 6379, 0, None, ""),
            ("\"[::1]\"", "::1", 6379, 0, None, ""),
            (":6379", "localhost", 6379, 0, None, ""),
            ("::1", "localhost", 6379, 1, None, ""),
        ] {
            let found = RedisServer::parse(text).expect(text);
            assert_eq!((&*found.address.host, found.address.port), (host, port), "{text}");
            let rest = (found.database, found.password.as_deref(), &*found.namespace);
            assert_eq!(rest, (database, password, namespace), "{text}");
        }
        for text in [
            "h:1:2:p:ns:x",
            "h:1:2:p:ns:",
            "h:x",
            "h:0",
            "h:65536",
            "h:1:x",
            "h:1:-1",
            "h:1:+1",
            "a\"b:c",
            "\"a:b",
            "h:\"\":1",
            "a b",
            "[::1]:1",
        ] {
            assert!(RedisServer::parse(text).is_err(), "{text}");
        }
    }

    /// The cases of the Python websockify's own tests.
    #[test]
    fn k6_quotes_are_read_as_the_python_websockify_reads_them() {
        for (text, parts) in [
            ("", &[""][..]),
            (":", &["", ""]),
            ("::", &["", "", ""]),
            ("\"", &["\""]),
            ("\"\"", &["\"\""]),
            ("\"\"\"", &["\"\"\""]),
            ("\"a\"", &["a"]),
            ("\"a\":", &["a", ""]),
            ("\"a\"::", &["a", "", ""]),
            ("\"a:b\"", &["a:b"]),
            ("\"a:b:\"c\"", &["\"a", "b", "c"]),
            ("\"a\":\"b\"", &["a", "b"]),
            ("\"a\":b\"", &["a", "b\""]),
            ("a:1:2:b\"c:\"d-e:f\"", &["a", "1", "2", "b\"c", "d-e:f"]),
        ] {
            assert_eq!(fields(text), parts, "{text}");
        }
    }

    #[test]
    fn k6_k8_no_password_is_shown_and_a_namespace_is_part_of_the_key() {
        let server = RedisServer::parse("h:1:2:secret:desks").unwrap();
        assert_eq!(format!("{server} {server:?}"), "redis://h:1 RedisServer(redis://h:1)");
        assert_eq!(server.key("a:b"), "desks:a:b");
        assert_eq!(RedisServer::parse("h").unwrap().key("a"), "a");
    }
}
