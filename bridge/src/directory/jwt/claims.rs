//! The claims of a genuine token: where it leads, from when, and until when (RFC 7519, section 4.1). Knows JSON, and the time as
//! it is told; must not know keys, nor whether the token is genuine.

use std::time::Duration;

use serde_json::Value;

use super::super::json;
use super::Invalid;
use crate::destination::Endpoint;

/// The claims that we use.
#[derive(Debug, PartialEq)]
pub(crate) struct Claims {
    /// Where it leads.
    pub(crate) endpoint: Endpoint,
    /// How long the token is still valid; none: for ever.
    pub(crate) left: Option<Duration>,
}

/// The claims, if they are valid at `now`, which is the time since the beginning of 1970. There is no tolerance for clocks that
/// differ, as in upstream.
pub(super) fn read(text: &[u8], now: Duration) -> Result<Claims, Invalid> {
    let claims: Value = serde_json::from_slice(text).map_err(|_| "its claims are not JSON")?;
    if time(&claims, "nbf")?.is_some_and(|from| now.as_secs_f64() < from) {
        return Err("it does not count yet");
    }
    let left = time(&claims, "exp")?.map(|until| until - now.as_secs_f64());
    if left.is_some_and(|seconds| seconds < 0.0) {
        return Err("it has expired");
    }
    // A time that is longer than a `Duration` can be counts as for ever.
    let left = left.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    Ok(Claims { endpoint: json::endpoint(&claims)?, left })
}

fn time(claims: &Value, name: &str) -> Result<Option<f64>, Invalid> {
    match claims.get(name) {
        None => Ok(None),
        Some(time) => time.as_f64().map(Some).ok_or("its times are not numbers"),
    }
}
