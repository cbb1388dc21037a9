//! Where log records go, and what they look like there: the journal with fields, a file with one
//! line a record, standard error for people.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::fmt;
use tracing_subscriber::prelude::*;

/// Where systemd-journald takes records in its native protocol.
const JOURNAL_SOCKET: &str = "/run/systemd/journal/socket";
/// The name of our records in the journal, and the prefix of their fields.
const IDENTIFIER: &str = "websockify";
const FIELD_PREFIX: &str = "WEBSOCKIFY";
/// How many lines wait for a slow disk before the next are dropped, and counted.
const PENDING_LINES: usize = 10_000;

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

/// A log file that can be opened anew, when somebody has moved it away.
#[derive(Debug, Clone)]
pub(crate) struct LogFile {
    path: PathBuf,
    file: Arc<Mutex<File>>,
}

/// The log, open until this is dropped.
pub(crate) struct Log {
    pub(crate) destination: Destination,
    _writer: Option<WorkerGuard>,
}

impl Destination {
    /// Chooses; to be called while standard error is still the caller's.
    pub(crate) fn choose(wish: &Wish, daemon: bool) -> Result<Self> {
        let fallback = if daemon { Self::Nowhere } else { Self::Stderr };
        let has_journal = Path::new(JOURNAL_SOCKET).exists();
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
                crate::say(&format!(
                    "cannot find journald at {JOURNAL_SOCKET}; logging to standard error"
                ));
                Ok(fallback)
            }
            Wish::Any => Ok(fallback),
        }
    }

    /// Installs the log; from here on `tracing` is heard. After the last fork: it starts a thread.
    pub(crate) fn start(self, verbose: bool) -> Result<Log> {
        let level = if verbose { LevelFilter::DEBUG } else { LevelFilter::INFO };
        let registry = tracing_subscriber::registry().with(level);
        let mut writer = None;
        match &self {
            Self::Nowhere => {}
            Self::Stderr if io::stderr().is_terminal() => {
                registry
                    .with(fmt::layer().with_writer(io::stderr).with_target(false).without_time())
                    .init();
            }
            Self::Stderr => {
                registry
                    .with(fmt::layer().with_writer(io::stderr).with_target(false).with_ansi(false))
                    .init();
            }
            Self::Journal => registry.with(journal()?).init(),
            Self::File(file) => {
                let (lines, guard) = not_waiting(file.clone());
                writer = Some(guard);
                registry
                    .with(fmt::layer().with_writer(lines).with_target(false).with_ansi(false))
                    .init();
            }
        }
        Ok(Log { destination: self, _writer: writer })
    }
}

impl LogFile {
    fn open(path: &Path) -> Result<Self> {
        let path = std::path::absolute(path).context("cannot find the working directory")?;
        let file = append(&path)?;
        Ok(Self { path, file: Arc::new(Mutex::new(file)) })
    }

    /// Opens the path again; if that fails, goes on with the file it has.
    pub(crate) fn reopen(&self) -> Result<()> {
        let file = append(&self.path)?;
        *self.lock() = file;
        Ok(())
    }

    /// Another descriptor of the file.
    pub(crate) fn descriptor(&self) -> io::Result<File> {
        self.lock().try_clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, File> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.lock().flush()
    }
}

fn append(path: &Path) -> Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
        .with_context(|| format!("cannot open log file {}", path.display()))
}

/// Writes on a thread of its own, so that a slow disk holds up nobody.
fn not_waiting(file: LogFile) -> (NonBlocking, WorkerGuard) {
    NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(PENDING_LINES)
        .thread_name("log")
        .finish(file)
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
