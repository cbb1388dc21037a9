//! Answers of a Redis server, its values, and the option that says where it is.

use crate::destination::Endpoint;
use crate::directory::RedisServer;
use crate::directory::redis::protocol::{Reply, VALUE_MAX, command, reply};
use crate::directory::redis::read;

/// The bytes are answers one after the other, a value, and a source.
pub fn redis(bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok(Some((answer, length))) = reply(rest) {
        assert!(0 < length && length <= rest.len());
        // The answer is the same without what follows, and none while something is missing.
        assert_eq!(reply(&rest[..length]), Ok(Some((answer.clone(), length))));
        assert_eq!(reply(&rest[..length - 1]), Ok(None));
        if let Reply::Value(value) = answer {
            assert!(value.len() <= VALUE_MAX);
            // The words of a command are written as values are.
            assert!(command(&[&value]).ends_with(&rest[..length]) || rest[1] == b'0');
        }
        rest = &rest[length..];
    }
    if let Ok(endpoint) = read(bytes) {
        let written = match &endpoint {
            Endpoint::Tcp(address) => address.to_string(),
            Endpoint::Unix(path) => format!("unix_socket:{}", path.display()),
            Endpoint::Resolved(..) | Endpoint::Opened(_) => panic!("not of a value"),
        };
        // A value that begins so is an object, and no host begins so.
        if !written.starts_with('{') {
            assert_eq!(read(written.as_bytes()), Ok(endpoint), "{written:?}");
        }
    }
    if let Some(text) = std::str::from_utf8(bytes).ok().filter(|text| !text.contains('"'))
        && let Ok(server) = RedisServer::parse(text)
    {
        let quoted = text.split(':').map(|field| match field {
            "" => String::new(),
            field => format!("\"{field}\""),
        });
        let quoted = quoted.collect::<Vec<_>>().join(":");
        assert_eq!(RedisServer::parse(&quoted), Ok(server), "{quoted}");
    }
}
