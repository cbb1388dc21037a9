//! A target as JSON has it: an object with `host` and `port`, as in answers of servers and in claims.
//! Knows text only.

use serde_json::Value;

use super::target;
use crate::destination::Endpoint;

/// The `host` by which upstream says that `port` is the path of a Unix socket.
const UNIX: &str = "unix_socket";

/// The target that an object means, or why it means none. Other members are ignored.
pub(super) fn endpoint(object: &Value) -> Result<Endpoint, &'static str> {
    let host = match object.get("host") {
        Some(Value::String(host)) => host,
        Some(_) => return Err("its host is not a string"),
        None => return Err("it has no host"),
    };
    let port = match object.get("port") {
        Some(Value::String(port)) => port.clone(),
        Some(Value::Number(port)) => port.to_string(),
        Some(_) => return Err("its port is neither a number nor a string"),
        None => return Err("it has no port"),
    };
    if host == UNIX { target::unix(&port) } else { target::tcp(host, &port) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::destination::Address;

    #[test]
    fn k4_a_target_in_json() {
        let tcp = |host: &str| Ok(Endpoint::Tcp(Address { host: host.into(), port: 5900 }));
        for (value, expected) in [
            (json!({"host": "h", "port": 5900}), tcp("h")),
            (json!({"host": "h", "port": "5900", "more": [1]}), tcp("h")),
            (json!({"host": "::1", "port": 5900}), tcp("::1")),
            (json!({"host": "[::1]", "port": 5900}), tcp("::1")),
            (json!({"host": "", "port": 5900}), tcp("localhost")),
            (json!({"host": "unix_socket", "port": "/run/a"}), Ok(Endpoint::Unix("/run/a".into()))),
        ] {
            assert_eq!(endpoint(&value), expected, "{value}");
        }
        for value in [
            json!({"host": "h"}),
            json!({"port": 1}),
            json!({"host": 1, "port": 1}),
            json!({"host": "h", "port": 1.5}),
            json!({"host": "h", "port": -1}),
            json!({"host": "h", "port": 0}),
            json!({"host": "h", "port": 65536}),
            json!({"host": "h", "port": null}),
            json!({"host": "a b", "port": 1}),
            json!({"host": "unix_socket", "port": ""}),
            json!(["h", 1]),
            json!("h:1"),
            json!(null),
        ] {
            assert!(endpoint(&value).is_err(), "{value}");
        }
    }
}
