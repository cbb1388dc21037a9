//! Where log records go, and what they look like there: the journal with fields, a file with one
//! line a record, standard error for people.

mod escaped;
mod file;
mod journal;
pub(crate) mod letters;
mod lines;
mod repeats;

use std::convert::Infallible;
use std::fmt;
use std::io::{self, IsTerminal};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use tracing::field::Field;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::format::{self, debug_fn};
use tracing_subscriber::fmt::layer;
use tracing_subscriber::prelude::*;

use crate::writer::{self, Writer};
pub(crate) use escaped::Escaped;
pub(crate) use file::LogFile;
use journal::Journal;
use lines::Lines;
use repeats::{Repeats, Unadmitted};

/// What fails where a log cannot be started.
const NO_THREAD: &str = "cannot start a thread";

/// Fields that the message says in words. They are for the journal, where one filters on them; elsewhere
/// only what is not among these is shown beside the message.
const IN_WORDS: &[&str] = &[
    "session",
    "client",
    "port",
    "version",
    "method",
    "path",
    "target",
    "tls",
    "name",
    "sent",
    "received",
    "duration_ms",
    "code",
    "reason",
    "origin",
    "offered",
    "program",
    "pid",
    "status",
];

/// What the command line says about the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Requested {
    /// `--log-file`.
    File(PathBuf),
    /// `--journald`.
    Journal,
    /// Whatever fits.
    Any,
}

/// Where the log goes.
#[derive(Debug, Clone)]
pub(crate) enum Sink {
    Stderr,
    Journal,
    File(LogFile),
    /// A daemon without journal and file.
    Nowhere,
}

/// The log, open until this is dropped.
pub(crate) struct Log {
    pub(crate) sink: Sink,
    repeats: Repeats,
    /// Dropped last: it writes what is pending.
    writer: Option<Writer>,
}

impl Sink {
    /// Chooses; to be called while standard error is still the caller's.
    pub(crate) fn choose(requested: &Requested, daemon: bool) -> Result<Self> {
        match requested {
            Requested::File(path) => return Ok(Self::File(LogFile::open(path)?)),
            Requested::Any if !daemon && !stderr_is_journal() => return Ok(Self::Stderr),
            Requested::Journal | Requested::Any if Journal::is_there() => return Ok(Self::Journal),
            Requested::Journal | Requested::Any => {}
        }
        Ok(if daemon { Self::Nowhere } else { Self::Stderr })
    }

    /// What the caller must hear, where it is not what was requested.
    pub(crate) fn warning(&self, requested: &Requested) -> Option<String> {
        let unreachable =
            |instead| format!("cannot reach journald at {}; {instead}", journal::SOCKET);
        match (self, requested) {
            (Self::Nowhere, Requested::Any) => {
                Some("no log is kept: there is no journald, and no --log-file given".into())
            }
            (Self::Nowhere, _) => Some(unreachable("no log is kept")),
            (Self::Stderr, Requested::Journal) => Some(unreachable("logging to standard error")),
            _ => None,
        }
    }

    /// Installs the log; from here on `tracing` is heard. After the last fork: it starts a thread.
    pub(crate) fn start(self, verbose: bool) -> Result<Log> {
        let level = if verbose { LevelFilter::DEBUG } else { LevelFilter::INFO };
        let repeats = Repeats::new(if verbose { Unadmitted::Each } else { Unadmitted::Counted });
        let registry = tracing_subscriber::registry().with(level).with(repeats.clone());
        let (lines, writer) = match &self {
            Self::Nowhere => return Ok(Log { sink: self, repeats, writer: None }),
            Self::Journal => {
                let (journal, writer) = Journal::open(level).context(NO_THREAD)?;
                registry.with(journal).init();
                return Ok(Log { sink: self, repeats, writer: Some(writer) });
            }
            Self::Stderr => {
                let mut lines = Lines::of("standard error");
                writer::start("log", move |line: Vec<u8>, dropped| {
                    lines.write(io::stderr(), &line, dropped);
                })
            }
            Self::File(file) => file.write_lines(),
        }
        .context(NO_THREAD)?;
        let lines = layer().with_writer(move || lines.clone()).with_target(false);
        let lines = lines.fmt_fields(debug_fn(show));
        if matches!(self, Self::Stderr) && io::stderr().is_terminal() {
            registry.with(lines.without_time()).init();
        } else {
            registry.with(lines.with_ansi(false)).init();
        }
        Ok(Log { sink: self, repeats, writer: Some(writer) })
    }
}

impl Log {
    /// Writes what is pending: somebody is about to look.
    pub(crate) fn flush(&self) {
        self.writer.iter().for_each(Writer::flush);
    }

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

/// A field outside the journal.
fn show(writer: &mut format::Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let text = match field.name() {
        "message" => format!("{value:?}"),
        name if IN_WORDS.contains(&name) => return Ok(()),
        name => format!(" {name}={value:?}"),
    };
    write!(writer, "{}", Escaped(&text))
}

/// Whether standard error is the stream that systemd connected to the journal (systemd.exec(5),
/// JOURNAL_STREAM).
pub(crate) fn stderr_is_journal() -> bool {
    let Some(stream) = std::env::var_os("JOURNAL_STREAM") else { return false };
    let Ok(metadata) = std::fs::metadata("/proc/self/fd/2") else { return false };
    stream.to_str() == Some(&format!("{}:{}", metadata.dev(), metadata.ino()))
}
