//! L3: a panic in one session ends that session only.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry;

use bridge::{Outcome, Shutdown};

use crate::harness::*;

/// Panics in the task of a session whose path is `/panic`, when its start is recorded. Keeps the
/// messages of the others.
#[derive(Clone, Default)]
struct Saboteur(Arc<Mutex<Vec<String>>>);

impl<S: Subscriber> Layer<S> for Saboteur {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        event.record(&mut self.clone());
    }
}

impl Visit for Saboteur {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let value = format!("{value:?}");
        match field.name() {
            "path" => assert!(value != "\"/panic\"", "on purpose"),
            "message" => self.0.lock().unwrap().push(value),
            _ => {}
        }
    }
}

#[tokio::test]
async fn l3_a_panic_in_one_session_ends_that_session_only() {
    let saboteur = Saboteur::default();
    // The runtime of this test uses this thread alone, so no record of another test gets here.
    let _guard = tracing::subscriber::set_default(registry().with(saboteur.clone()));
    let listener = listener().await;
    let bridge = Bridge::to(&listener);
    let mut before = bridge.client().await;
    let mut target = accept(&listener).await;

    let mut unlucky = bridge.connect().await;
    within(unlucky.write_all(HEAD.replace("GET /", "GET /panic").as_bytes())).await.unwrap();
    assert!(read_head(&mut unlucky).await.starts_with("HTTP/1.1 101 "));
    assert_eq!(within(unlucky.read(&mut [0; 1])).await.unwrap(), 0, "closed");
    within(async {
        let said = "connection ended by a panic";
        while !saboteur.0.lock().unwrap().iter().any(|message| message == said) {
            tokio::task::yield_now().await;
        }
    })
    .await;

    before.send(BINARY, b"still here").await;
    assert_eq!(read_exact(&mut target, 10).await, b"still here");
    let mut after = bridge.client().await;
    let mut target = accept(&listener).await;
    after.send(BINARY, b"and here").await;
    assert_eq!(read_exact(&mut target, 8).await, b"and here");
    bridge.shutdown.send(Shutdown::Now).unwrap();
    drop((before, after));
    assert_eq!(bridge.outcome().await, Outcome::Shutdown);
}
