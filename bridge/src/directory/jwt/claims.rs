//! What a genuine token says: where it leads, from when, and until when (RFC 7519, section 4.1).

use std::time::Duration;

use serde_json::Value;

use super::super::json;
use super::Invalid;
use crate::destination::Endpoint;

/// The target, if the claims count `now`, which is since the beginning of 1970. To the second before and
/// after: clocks are set right.
pub(super) fn read(text: &[u8], now: Duration) -> Result<Endpoint, Invalid> {
    let claims: Value = serde_json::from_slice(text).map_err(|_| "its claims are not JSON")?;
    if time(&claims, "nbf")?.is_some_and(|from| now.as_secs_f64() < from) {
        return Err("it does not count yet");
    }
    if time(&claims, "exp")?.is_some_and(|until| now.as_secs_f64() > until) {
        return Err("it has expired");
    }
    json::endpoint(&claims)
}

fn time(claims: &Value, name: &str) -> Result<Option<f64>, Invalid> {
    match claims.get(name) {
        None => Ok(None),
        Some(time) => time.as_f64().map(Some).ok_or("its times are not numbers"),
    }
}
