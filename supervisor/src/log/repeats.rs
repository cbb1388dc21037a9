//! Records that repeat, warnings and errors and whatever a client without credentials can cause: the
//! first of a kind are logged, the others counted, so that neither a fault that goes on nor such a client
//! fills the log. Other records pass.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bridge::UNADMITTED;
use tokio::sync::Notify;
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, info, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// How many of a kind are logged within [`WINDOW`].
const BURST: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);
/// Marks the records of this file itself, which always pass.
const TARGET: &str = "repeats";

/// A layer that lets records pass, or counts them. Clones share one count.
#[derive(Debug, Clone, Default)]
pub(super) struct RateLimiter {
    shared: Arc<Shared>,
    unadmitted: Unadmitted,
}

/// What becomes of the records that clients without a session cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Unadmitted {
    /// They are counted as warnings are.
    #[default]
    Counted,
    /// Each is logged (`-v`), as somebody looks for a certain one.
    Each,
}

#[derive(Debug, Default)]
struct Shared {
    /// All records of one place in the code are one kind.
    kinds: Mutex<HashMap<Identifier, Kind>>,
    /// Notified when a record was counted.
    counted: Notify,
}

#[derive(Debug)]
struct Kind {
    since: Instant,
    passed: u32,
    counted: u32,
    level: Level,
    /// The last message that was not logged.
    message: String,
}

impl RateLimiter {
    pub(super) fn new(unadmitted: Unadmitted) -> Self {
        Self { unadmitted, ..Self::default() }
    }

    /// Logs, for ever, how many records were counted, each time a [`WINDOW`] after the first of them.
    pub(super) async fn report(&self) -> Infallible {
        loop {
            self.shared.counted.notified().await;
            tokio::time::sleep(WINDOW).await;
            self.report_now();
        }
    }

    /// Logs how many records were counted since this was logged last.
    pub(super) fn report_now(&self) {
        for Kind { counted, level, message, .. } in self.take() {
            if level <= Level::WARN {
                warn!(target: TARGET, "{counted} more like this were not logged: {message}");
            } else {
                info!(target: TARGET, "{counted} more like this were not logged: {message}");
            }
        }
    }

    fn take(&self) -> Vec<Kind> {
        let mut kinds = self.shared.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        kinds.drain().map(|(_, kind)| kind).filter(|kind| kind.counted > 0).collect()
    }

    fn may_repeat(&self, metadata: &Metadata<'_>) -> bool {
        match metadata.target() {
            TARGET => false,
            UNADMITTED if self.unadmitted == Unadmitted::Each => false,
            UNADMITTED => true,
            _ => *metadata.level() <= Level::WARN,
        }
    }

    fn passes(&self, event: &Event<'_>, now: Instant) -> bool {
        let mut kinds = self.shared.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let metadata = event.metadata();
        let level = *metadata.level();
        let fresh = || Kind { since: now, passed: 0, counted: 0, level, message: String::new() };
        let kind = kinds.entry(metadata.callsite()).or_insert_with(fresh);
        if kind.counted == 0 && now.duration_since(kind.since) > WINDOW {
            *kind = fresh();
        }
        if kind.passed < BURST {
            kind.passed += 1;
            return true;
        }
        kind.counted += 1;
        kind.message.clear();
        event.record(&mut Message(&mut kind.message));
        self.shared.counted.notify_one();
        false
    }
}

impl<S: Subscriber> Layer<S> for RateLimiter {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        !self.may_repeat(event.metadata()) || self.passes(event, Instant::now())
    }
}

struct Message<'a>(&'a mut String);

impl Visit for Message<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            *self.0 = format!("{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing::error;
    use tracing_subscriber::prelude::*;

    use super::*;

    /// Collects messages.
    #[derive(Clone, Default)]
    struct Heard(Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber> Layer<S> for Heard {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let mut text = String::new();
            event.record(&mut Message(&mut text));
            self.0.lock().expect("no panic").push(text);
        }
    }

    #[test]
    fn errors_that_repeat_are_counted_and_others_pass() {
        let (repeats, heard) = (RateLimiter::default(), Heard::default());
        let registry = tracing_subscriber::registry().with(repeats.clone()).with(heard.clone());
        tracing::subscriber::with_default(registry, || {
            for number in 1..=25 {
                error!("failure {number}");
                info!("session {number}");
            }
            warn!("another kind");
            repeats.report_now();
            repeats.report_now();
        });
        let heard = heard.0.lock().expect("no panic").clone();
        let with = |start| heard.iter().filter(|text| text.starts_with(start)).count();
        assert_eq!((with("failure"), with("session"), with("another")), (10, 25, 1));
        let counts: Vec<_> = heard.iter().filter(|text| text.contains("not logged")).collect();
        assert_eq!(counts, ["15 more like this were not logged: failure 25"]);
    }

    #[test]
    fn f9_f23_what_unadmitted_clients_cause_is_counted_unless_each_is_asked_for() {
        for (unadmitted, logged) in [(Unadmitted::Counted, 10), (Unadmitted::Each, 25)] {
            let (repeats, heard) = (RateLimiter::new(unadmitted), Heard::default());
            let registry = tracing_subscriber::registry().with(repeats.clone()).with(heard.clone());
            tracing::subscriber::with_default(registry, || {
                for number in 1..=25 {
                    info!(target: UNADMITTED, "refused {number}");
                }
                repeats.report_now();
            });
            let heard = heard.0.lock().expect("no panic").clone();
            let refused = heard.iter().filter(|text| text.starts_with("refused")).count();
            assert_eq!(refused, logged, "{unadmitted:?}");
            let counts: Vec<_> = heard.iter().filter(|text| text.contains("not logged")).collect();
            let count = "15 more like this were not logged: refused 25";
            assert_eq!(counts, if logged == 10 { vec![count] } else { vec![] });
        }
    }
}
