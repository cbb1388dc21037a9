//! Records in the journal. `tracing-journald` writes them to a socket that blocks while journald is slow, or hangs; so
//! records are copied, and the layer of `tracing-journald` works on a thread of its own. Knows how journald names
//! things, and not what is logged.

use std::fmt;
use std::io;
use std::os::unix::net::UnixDatagram;

use tracing::field::{Field, Value, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Dispatch, Event, Metadata, Subscriber, warn};
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::prelude::*;

use crate::writer::{self, Queue, Writer};

/// Where systemd-journald takes records in its native protocol.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";
/// The name of our records in the journal, and the prefix of their fields.
const IDENTIFIER: &str = "websockify";
const FIELD_PREFIX: &str = "WEBSOCKIFY";

/// A layer that sends events to the journal. It knows of no spans; there are none.
#[derive(Debug)]
pub(super) struct Journal {
    records: Queue<Record>,
}

impl Journal {
    /// Whether journald takes records. A socket may be there that nobody listens to any more.
    pub(super) fn is_there() -> bool {
        UnixDatagram::unbound().is_ok_and(|socket| socket.connect(SOCKET).is_ok())
    }

    /// Begins to send what is of this level; what is pending is sent when the [`Writer`] is dropped.
    pub(super) fn open(level: LevelFilter) -> io::Result<(Self, Writer)> {
        let mut journal = None;
        let (records, writer) = writer::start("journal", move |record: Record, dropped| {
            // Made on this thread: making it sends a first datagram, and journald may hang already. If journald is not
            // there now, the next record tries again.
            journal = journal.take().or_else(|| native(level).ok());
            let Some(journal) = &journal else { return };
            if dropped > 0 {
                tracing::dispatcher::with_default(journal, || {
                    warn!("{dropped} records dropped: journald is slow");
                });
            }
            record.send(journal);
        })?;
        Ok((Self { records }, writer))
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let record = Record::of(event);
        let size = record.size();
        self.records.put(record, size);
    }
}

/// The layer of `tracing-journald`.
fn native(level: LevelFilter) -> io::Result<Dispatch> {
    let layer = tracing_journald::layer()?
        .with_syslog_identifier(IDENTIFIER.into())
        .with_field_prefix(Some(FIELD_PREFIX.into()))
        .with_priority_mappings(PriorityMappings {
            info: Priority::Informational,
            debug: Priority::Debug,
            ..PriorityMappings::new()
        });
    // With the level of the whole log: otherwise records that no log takes would no longer be skipped at their source.
    Ok(tracing_subscriber::registry().with(level).with(layer).into())
}

/// A copy of an event, which can be queued.
#[derive(Debug)]
struct Record {
    metadata: &'static Metadata<'static>,
    /// One for each of the metadata's fields, as text, which is what journald gets.
    values: Vec<Option<String>>,
}

impl Record {
    fn of(event: &Event<'_>) -> Self {
        let metadata = event.metadata();
        let mut record = Self { metadata, values: vec![None; metadata.fields().len()] };
        event.record(&mut record);
        record
    }

    fn size(&self) -> usize {
        let values = self.values.iter();
        values.map(|value| size_of_val(value) + value.as_ref().map_or(0, String::len)).sum()
    }

    fn send(&self, journal: &Dispatch) {
        let values: Vec<_> =
            self.values.iter().map(|value| value.as_ref().map(|text| text as &dyn Value)).collect();
        let values = self.metadata.fields().value_set_all(&values);
        journal.event(&Event::new(self.metadata, &values));
    }
}

impl Visit for Record {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.values[field.index()] = Some(value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.values[field.index()] = Some(format!("{value:?}"));
    }
}
