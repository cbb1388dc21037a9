//! Waiting for a point in time that may never come.

use std::future::pending;
use std::time::Instant;

/// Returns at this time; `None`: never.
pub(crate) async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => pending().await,
    }
}
