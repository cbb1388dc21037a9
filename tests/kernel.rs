//! Kernels that are older than this one, and machines and containers that refuse or hide what this one gives.

mod hidden;
mod hints;
mod older;
mod refused;
mod surroundings;

use std::time::{Duration, Instant};

use crate::support::{Websockify, wait_until};

/// Waits for two seconds in which websockify uses a hundredth of a processor at most. What it does at a
/// start is not counted, nor how busy the machine is.
fn wait_until_at_rest(websockify: &Websockify) {
    wait_until("two seconds at rest", || {
        let (began, before) = (Instant::now(), websockify.cpu_seconds());
        wait_until("their end", || began.elapsed() >= Duration::from_secs(2));
        websockify.cpu_seconds() - before <= 0.02 + f64::EPSILON
    });
}

/// Which part of a processor websockify uses until `until` holds, which is asked again and again for a second at least.
fn share_until(websockify: &Websockify, mut until: impl FnMut() -> bool) -> f64 {
    let (began, before) = (Instant::now(), websockify.cpu_seconds());
    wait_until("the end of a measurement", || until() && began.elapsed() >= Duration::from_secs(1));
    (websockify.cpu_seconds() - before) / began.elapsed().as_secs_f64()
}
