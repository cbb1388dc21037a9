//! Where log records go, and what they look like there: the journal with fields, a file with one line for each record,
//! a syslog server, standard error for people. A file and a syslog server get the records in addition to the others,
//! not instead of them (D3).

mod escaped;
mod file;
mod journal;
pub(crate) mod letters;
mod lines;
mod repeats;
mod syslog;

use std::convert::Infallible;
use std::fmt;
use std::io::{self, IsTerminal};
use std::os::unix::fs::MetadataExt;
use std::os::unix::io::AsFd;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tracing::Subscriber;
use tracing::field::Field;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::fmt as fmt_layer;
use tracing_subscriber::fmt::format::{self, debug_fn};
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry::LookupSpan;

use crate::writer::{self, Queue, Writer};
pub(crate) use escaped::Escaped;
pub(crate) use file::LogFile;
use journal::Journal;
use lines::Lines;
use repeats::{RateLimiter, Unadmitted};
use syslog::{Facility, Syslog};
pub(crate) use syslog::{Format as SyslogFormat, Server, universal_time};

/// What has failed where a log cannot be started.
const NO_THREAD: &str = "cannot start a thread";

/// Fields that the message says in words. They are for the journal, where one filters on them; elsewhere
/// only what is not among these is shown beside the message.
const IN_WORDS: &[&str] = &[
    "session",
    "client",
    "port",
    "via",
    "version",
    "method",
    "path",
    "target",
    "target_address",
    "tls",
    "name",
    "user",
    "token",
    "shown",
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
    "sessions",
    "seconds",
    "held",
    "ended",
    "closed",
];

/// What the command line says about the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Requested {
    /// `--log-file`.
    pub(crate) file: Option<PathBuf>,
    /// `--syslog`.
    pub(crate) syslog: Option<(Server, SyslogFormat)>,
    /// `--journald`.
    pub(crate) journal: bool,
}

/// Whose standard error we have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stderr {
    Callers,
    /// A daemon's, which is /dev/null.
    Daemons,
    /// Under inetd it was the client's connection; now it is /dev/null.
    Clients,
}

/// Where the log goes.
#[derive(Debug, Clone)]
pub(crate) struct Sinks {
    pub(crate) main: Sink,
    pub(crate) file: Option<LogFile>,
    pub(crate) syslog: Option<Syslog>,
}

/// The main destination of the log, besides a log file and a syslog server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sink {
    Stderr,
    Journal,
    /// Nobody reads standard error, or it is the log file itself.
    Nowhere,
}

/// The log, open until this is dropped.
pub(crate) struct Log {
    pub(crate) sinks: Sinks,
    repeats: RateLimiter,
    /// Dropped last: the writers then write what is pending.
    writers: Vec<Writer>,
}

/// A layer that writes records to one of the destinations.
type Shown<S> = Box<dyn Layer<S> + Send + Sync>;

impl Sinks {
    /// Chooses the destinations; to be called while standard error is still the caller's.
    pub(crate) fn choose(requested: &Requested, stderr: Stderr) -> Result<Self> {
        let file = requested.file.as_deref().map(LogFile::open).transpose()?;
        let facility = if stderr == Stderr::Daemons { Facility::Daemon } else { Facility::User };
        let is_nobodys = stderr != Stderr::Callers;
        let syslog = requested.syslog.clone();
        let syslog = syslog.map(|(server, format)| Syslog::new(server, format, facility));
        let is_kept = file.is_some() || syslog.is_some();
        // If standard error is the log file, each line would be in it twice.
        let is_file = file.as_ref().is_some_and(|file| file.is(io::stderr().as_fd()));
        let main = match requested.journal {
            true if Journal::is_there() => Sink::Journal,
            _ if is_nobodys && is_kept || is_file => Sink::Nowhere,
            false if (is_nobodys || stderr_is_journal()) && Journal::is_there() => Sink::Journal,
            _ if is_nobodys => Sink::Nowhere,
            _ => Sink::Stderr,
        };
        Ok(Self { main, file, syslog })
    }

    /// Warnings for the caller, where the log does not go where it was requested.
    pub(crate) fn warnings(&self, requested: &Requested) -> Vec<String> {
        let is_kept = self.file.is_some() || self.syslog.is_some();
        let unreachable =
            |instead| format!("cannot reach journald at {}; {instead}", journal::SOCKET);
        let of_main = match (self.main, requested.journal) {
            (Sink::Nowhere, false) if !is_kept => {
                Some("no log is kept: there is no journald, and no --log-file given".into())
            }
            (Sink::Nowhere, true) if !is_kept => Some(unreachable("no log is kept")),
            (Sink::Nowhere, true) => Some(unreachable("it gets no log")),
            (Sink::Stderr, true) => Some(unreachable("logging to standard error")),
            _ => None,
        };
        let of_syslog = self.syslog.as_ref().and_then(Syslog::warning);
        of_main.into_iter().chain(of_syslog).collect()
    }

    /// Installs the log; from here on, records of `tracing` are written. To be called after the last fork: it starts
    /// threads.
    pub(crate) fn start(self, verbose: bool) -> Result<Log> {
        let level = if verbose { LevelFilter::DEBUG } else { LevelFilter::INFO };
        let repeats =
            RateLimiter::new(if verbose { Unadmitted::Each } else { Unadmitted::Counted });
        let registry = tracing_subscriber::registry().with(level).with(repeats.clone());
        let (mut layers, mut writers) = (Vec::new(), Vec::new());
        let mut add = |(layer, writer)| {
            layers.push(layer);
            writers.push(writer);
        };
        match self.main {
            Sink::Stderr => add(to_stderr().context(NO_THREAD)?),
            Sink::Journal => {
                let (journal, writer) = Journal::open(level).context(NO_THREAD)?;
                add((journal.boxed(), writer));
            }
            Sink::Nowhere => {}
        }
        if let Some(file) = &self.file {
            let (queue, writer) = file.write_lines().context(NO_THREAD)?;
            add((lines(queue).with_ansi(false).boxed(), writer));
        }
        if let Some(syslog) = &self.syslog {
            let (records, writer) = syslog.open().context(NO_THREAD)?;
            add((records.boxed(), writer));
        }
        registry.with(layers).init();
        Ok(Log { sinks: self, repeats, writers })
    }
}

/// Starts the requested log for this one error, where nobody sees standard error.
pub(crate) fn write_one(requested: &Requested, line: &str) {
    let log = Sinks::choose(requested, Stderr::Clients).and_then(|sinks| sinks.start(false));
    // If no log can be started, there is no other place for the error.
    if log.is_ok() {
        tracing::error!("{line}");
    }
}

fn to_stderr<S>() -> io::Result<(Shown<S>, Writer)>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let mut out = Lines::of("standard error");
    let (queue, writer) = writer::start("log", move |line: Vec<u8>, dropped| {
        out.write(io::stderr(), &line, dropped);
    })?;
    let shown = lines(queue);
    let is_terminal = io::stderr().is_terminal();
    let shown =
        if is_terminal { shown.without_time().boxed() } else { shown.with_ansi(false).boxed() };
    Ok((shown, writer))
}

/// Writes one line for each record.
fn lines<S>(
    queue: Queue<Vec<u8>>,
) -> fmt_layer::Layer<
    S,
    impl for<'a> format::FormatFields<'a> + 'static,
    format::Format,
    impl Fn() -> Queue<Vec<u8>> + Send + Sync + 'static,
>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let to_queue = move || queue.clone();
    fmt_layer::layer().with_writer(to_queue).with_target(false).fmt_fields(debug_fn(show))
}

impl Log {
    /// Writes what is pending, for somebody who is about to read the log.
    pub(crate) fn flush(&self) {
        self.writers.iter().for_each(Writer::flush);
    }

    /// The same, but waits for each writer no longer than `limit`.
    pub(crate) fn flush_within(&self, limit: std::time::Duration) {
        self.writers.iter().for_each(|writer| writer.flush_within(limit));
    }

    /// Stops the writers: what is logged from here on waits until the log [goes on](Self::go_on). False: a writer did
    /// not stop in time.
    pub(crate) fn halt(&self, limit: std::time::Duration) -> bool {
        self.writers.iter().all(|writer| writer.halt(limit))
    }

    /// Writes again after [`halt`](Self::halt).
    pub(crate) fn go_on(&self) {
        for writer in &self.writers {
            // Without its thread the log cannot say that the thread is missing.
            let _ = writer.go_on();
        }
    }

    /// Whether what is logged can be read on standard error.
    pub(crate) fn is_on_stderr(&self) -> bool {
        match self.sinks.main {
            Sink::Stderr => true,
            Sink::Journal => stderr_is_journal(),
            Sink::Nowhere => false,
        }
    }

    /// Whether what is logged can be read on standard error, and nowhere else.
    pub(crate) fn is_on_stderr_alone(&self) -> bool {
        let Sinks { main, file, syslog } = &self.sinks;
        *main == Sink::Stderr && file.is_none() && syslog.is_none()
    }

    /// Logs, for ever, how many records were not logged because they repeat too often.
    pub(crate) async fn count_repeats(&self) -> Infallible {
        self.repeats.report().await
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.repeats.report_now();
    }
}

/// Shows a field, in all logs but the journal.
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
