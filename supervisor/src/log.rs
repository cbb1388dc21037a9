//! Where log records go, and what they look like there: the journal with fields, a file with one
//! line a record, standard error for people.

mod file;
mod repeats;

use std::convert::Infallible;
use std::fmt;
use std::io::{self, IsTerminal};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use anyhow::{Context, Result};
use tracing::field::Field;
use tracing::level_filters::LevelFilter;
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::fmt::layer;
use tracing_subscriber::prelude::*;

pub(crate) use file::LogFile;
use repeats::Repeats;

/// Where systemd-journald takes records in its native protocol.
const JOURNAL_SOCKET: &str = "/run/systemd/journal/socket";
/// The name of our records in the journal, and the prefix of their fields.
const IDENTIFIER: &str = "websockify";
const FIELD_PREFIX: &str = "WEBSOCKIFY";

/// Fields that the message has in words, where it matters to a person.
const IN_WORDS: &[&str] = &[
    "session",
    "client",
    "port",
    "version",
    "path",
    "target",
    "tls",
    "name",
    "sent",
    "received",
    "duration_ms",
    "code",
    "reason",
    "program",
    "pid",
    "status",
];

/// What the command line says about the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wish {
    /// `--log-file`.
    File(PathBuf),
    /// `--journald`.
    Journal,
    /// Whatever fits.
    Any,
}

/// Where the log goes.
#[derive(Debug, Clone)]
pub(crate) enum Destination {
    Stderr,
    Journal,
    File(LogFile),
    /// A daemon without journal and file.
    Nowhere,
}

/// The log, open until this is dropped.
pub(crate) struct Log {
    pub(crate) destination: Destination,
    repeats: Repeats,
    /// Dropped last: it writes what is pending.
    _writer: Option<file::Writer>,
}

impl Destination {
    /// Chooses; to be called while standard error is still the caller's.
    pub(crate) fn choose(wish: &Wish, daemon: bool) -> Result<Self> {
        let fallback = if daemon { Self::Nowhere } else { Self::Stderr };
        let has_journal = has_journal();
        match wish {
            Wish::File(path) => Ok(Self::File(LogFile::open(path)?)),
            Wish::Journal | Wish::Any if has_journal && (daemon || *wish == Wish::Journal) => {
                Ok(Self::Journal)
            }
            Wish::Any if has_journal && stderr_is_journal() => Ok(Self::Journal),
            Wish::Any if daemon => {
                crate::say("no log is kept: there is no journald, and no --log-file given");
                Ok(fallback)
            }
            Wish::Journal => {
                let instead = if daemon { "no log is kept" } else { "logging to standard error" };
                crate::say(&format!("cannot reach journald at {JOURNAL_SOCKET}; {instead}"));
                Ok(fallback)
            }
            Wish::Any => Ok(fallback),
        }
    }

    /// Installs the log; from here on `tracing` is heard. After the last fork: it starts a thread.
    pub(crate) fn start(self, verbose: bool) -> Result<Log> {
        let level = if verbose { LevelFilter::DEBUG } else { LevelFilter::INFO };
        let repeats = Repeats::default();
        let registry = tracing_subscriber::registry().with(level).with(repeats.clone());
        let mut writer = None;
        match &self {
            Self::Nowhere => {}
            Self::Stderr if io::stderr().is_terminal() => {
                let lines = layer().with_writer(io::stderr).with_target(false).without_time();
                registry.with(lines.fmt_fields(debug_fn(show))).init();
            }
            Self::Stderr => {
                registry
                    .with(layer().with_writer(io::stderr).with_target(false).with_ansi(false))
                    .init();
            }
            Self::Journal => registry.with(journal()?).init(),
            Self::File(file) => {
                let (lines, thread) = file.write_lines().context("cannot start a thread")?;
                writer = Some(thread);
                let lines = move || lines.clone();
                registry
                    .with(layer().with_writer(lines).with_target(false).with_ansi(false))
                    .init();
            }
        }
        Ok(Log { destination: self, repeats, _writer: writer })
    }
}

impl Log {
    /// For ever: counts what repeats too often to be logged each time.
    pub(crate) async fn count_repeats(&self) -> Infallible {
        self.repeats.report().await
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.repeats.report_now();
    }
}

/// Whether journald takes records. A socket may be there that nobody listens to any more.
fn has_journal() -> bool {
    UnixDatagram::unbound().is_ok_and(|socket| socket.connect(JOURNAL_SOCKET).is_ok())
}

/// A field at a terminal. What it says may come from a client, and must not move the cursor.
fn show(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let text = match field.name() {
        "message" => format!("{value:?}"),
        name if IN_WORDS.contains(&name) => return Ok(()),
        name => format!(" {name}={value:?}"),
    };
    for letter in text.chars() {
        if letter.is_control() {
            write!(writer, "{}", letter.escape_default())?;
        } else {
            writer.write_char(letter)?;
        }
    }
    Ok(())
}

fn journal() -> Result<tracing_journald::Layer> {
    let layer = tracing_journald::layer().context("cannot reach journald")?;
    Ok(layer
        .with_syslog_identifier(IDENTIFIER.into())
        .with_field_prefix(Some(FIELD_PREFIX.into()))
        .with_priority_mappings(PriorityMappings {
            info: Priority::Informational,
            debug: Priority::Debug,
            ..PriorityMappings::new()
        }))
}

/// Whether standard error is the stream that systemd connected to the journal (systemd.exec(5),
/// JOURNAL_STREAM).
fn stderr_is_journal() -> bool {
    let Some(stream) = std::env::var_os("JOURNAL_STREAM") else { return false };
    let Ok(metadata) = std::fs::metadata("/proc/self/fd/2") else { return false };
    stream.to_str() == Some(&format!("{}:{}", metadata.dev(), metadata.ino()))
}
