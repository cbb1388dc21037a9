//! Where the program's standard output and error go: wherever the log goes (W11).
//!
//! A slow log must not block the program, and a daemon that outlives us must not die of SIGPIPE: so the program writes
//! to a pipe of ours only where it cannot outlive us.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;

use nix::fcntl::OFlag;
use nix::unistd::Pid;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::unix::pipe::Receiver;
use tracing::warn;

use super::readers::Readers;
use super::state::WrapMode;
use crate::log::{Sink, Sinks};
use bridge::error_text;

/// Where systemd-journald takes streams of lines (sd_journal_stream_fd(3)).
const JOURNAL_STREAMS: &str = "/run/systemd/journal/stdout";

/// Standard output and error of one instance.
pub(super) struct Output {
    streams: Option<File>,
    /// What the variable JOURNAL_STREAM must say to the program.
    journal: Option<String>,
    reader: Option<OwnedFd>,
}

impl Output {
    /// Opens what the instance will write to.
    pub(super) fn open(log: &Sinks, mode: WrapMode, command: &OsStr) -> Self {
        let inherited = Self { streams: None, journal: None, reader: None };
        let opened = match (log, mode) {
            (Sinks { file: Some(file), .. }, WrapMode::Ignore) => {
                file.to_keep().and_then(|file| match file {
                    Some(file) => Ok(Self { streams: Some(file), ..inherited }),
                    None => Err(io::Error::other("the log file is not a regular file")),
                })
            }
            (Sinks { file: None, main: Sink::Journal, .. }, WrapMode::Ignore) => {
                journal_stream(command)
            }
            // Under -D without a log, standard error is /dev/null already.
            (Sinks { file: None, .. }, WrapMode::Ignore) => return inherited,
            (Sinks { file: None, syslog: None, main }, _) => match main {
                Sink::Stderr | Sink::Nowhere => return inherited,
                Sink::Journal => journal_stream(command),
            },
            _ => tagged_lines(),
        };
        opened.unwrap_or_else(|error| {
            warn!("cannot log the program's output: {}", error_text(&error));
            Self {
                streams: File::options().write(true).open("/dev/null").ok(),
                journal: None,
                reader: None,
            }
        })
    }

    /// For [`std::process::Command::stdout`] and `stderr`.
    pub(super) fn stdio(&self) -> io::Result<Stdio> {
        Ok(match &self.streams {
            Some(file) => file.try_clone()?.into(),
            None => Stdio::inherit(),
        })
    }

    /// The file that the program writes to; none where it writes to our own standard output and error.
    pub(super) fn file(&self) -> Option<&File> {
        self.streams.as_ref()
    }

    /// What JOURNAL_STREAM is to say, if the program writes to a stream of its own.
    pub(super) fn journal_stream(&self) -> Option<&str> {
        self.journal.as_deref()
    }

    /// Logs what the instance writes, tagged with its name and process id, by one of `readers`.
    pub(super) fn log(self, command: &OsStr, pid: Pid, readers: &mut Readers) {
        let Some(pipe) = self.reader else { return };
        match Receiver::from_owned_fd(pipe) {
            Ok(pipe) => readers.add(pipe, format!("{}[{pid}]", identifier(command))),
            Err(error) => warn!("cannot log the program's output: {}", error_text(&error)),
        }
    }
}

/// The program's name, without its directory.
fn identifier(command: &OsStr) -> String {
    Path::new(command).file_name().unwrap_or(command).to_string_lossy().replace('\n', " ")
}

/// A stream of the program's own: journald reads it, names it, and takes each line's process id from
/// the kernel.
fn journal_stream(command: &OsStr) -> io::Result<Output> {
    let identifier = identifier(command);
    let mut stream = connect_to_journal()?;
    // Identifier, unit, priority (info), level prefixes parsed, and three ways to forward: none.
    write!(stream, "{identifier}\n\n6\n1\n0\n0\n0\n")?;
    // The program expects to wait where journald is slow.
    stream.set_nonblocking(false)?;
    let file = File::from(OwnedFd::from(stream));
    let metadata = file.metadata()?;
    let journal = Some(format!("{}:{}", metadata.dev(), metadata.ino()));
    Ok(Output { streams: Some(file), journal, reader: None })
}

/// Connects without waiting: if journald hangs, its queue of connections may be full, and any user can fill it.
fn connect_to_journal() -> io::Result<UnixStream> {
    let stream = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    match stream.connect(&SockAddr::unix(JOURNAL_STREAMS)?) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(io::Error::new(error.kind(), "journald accepts no connection"))
        }
        connected => connected.map(|()| OwnedFd::from(stream).into()),
    }
}

fn tagged_lines() -> io::Result<Output> {
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    Ok(Output { streams: Some(writer.into()), journal: None, reader: Some(reader) })
}
