//! Kernels that are older than this one, and containers that refuse or hide what this one gives.

mod hidden;
mod hints;
mod refused;

use std::time::{Duration, Instant};

use crate::support::{Websockify, wait_until};

/// Which part of a processor websockify uses until `until` holds, and for a second at least.
fn share_until(websockify: &Websockify, mut until: impl FnMut() -> bool) -> f64 {
    let (began, before) = (Instant::now(), websockify.cpu_seconds());
    wait_until("the end of a measurement", || began.elapsed() >= Duration::from_secs(1) && until());
    (websockify.cpu_seconds() - before) / began.elapsed().as_secs_f64()
}
