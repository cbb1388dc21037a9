//! The questions to the kernel which connections from our port a program can still meet, that is, can still accept or
//! has open. Each connection is asked about by itself, which takes some microseconds, or where sock_diag(7) is refused,
//! one reading of proc(5) answers for all. Knows no row.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::blocking;
use crate::sock_diag::{self, Reading, Readings};

/// The kernel, as it is asked about one port of ours.
#[derive(Debug)]
pub(super) struct Kernel {
    readings: Readings,
    /// For tests: as if sock_diag(7) was refused.
    is_refused: bool,
}

/// The answers that can be had without waiting.
pub(super) enum Answers {
    /// The kernel answers at once.
    Each,
    /// The last reading of proc(5) answers, if there is one.
    Of(Option<Arc<Reading>>),
}

impl Kernel {
    /// About the connections of this port of ours.
    pub(super) fn asked_of(port: u16) -> Self {
        Self { readings: Readings::of(port), is_refused: false }
    }

    #[cfg(test)]
    pub(super) fn read_of(port: u16) -> Self {
        Self { is_refused: true, ..Self::asked_of(port) }
    }

    /// The answers that there are by now.
    pub(super) fn answers(&self) -> Answers {
        if self.answers_each() { Answers::Each } else { Answers::Of(self.readings.last()) }
    }

    /// Answers from after this time.
    pub(super) async fn answers_after(&self, time: Instant) -> io::Result<Answers> {
        if self.answers_each() {
            return Ok(Answers::Each);
        }
        Ok(Answers::Of(Some(self.readings.after(time).await?)))
    }

    /// As [`sock_diag::accepted`].
    pub(super) async fn accepted(&self, target: SocketAddr, ours: SocketAddr) -> io::Result<bool> {
        if self.answers_each() {
            return sock_diag::accepted(target, ours);
        }
        self.readings.after(Instant::now()).await?.accepted(target, ours)
    }

    /// For each of these connections, given by our address and the program's: whether it was accepted, or is not known.
    pub(super) async fn are_not_queued(&self, all: Vec<(SocketAddr, SocketAddr)>) -> Vec<bool> {
        let is_it = |accepted: io::Result<bool>| match accepted {
            Ok(is_accepted) => is_accepted,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        let number = all.len();
        let answers = if self.answers_each() {
            let ask = move || {
                all.iter().map(|(ours, to)| sock_diag::accepted(*to, *ours)).map(is_it).collect()
            };
            blocking::run(ask).await.ok()
        } else {
            let reading = self.readings.after(Instant::now()).await.ok();
            reading.map(|read| {
                all.iter().map(|(ours, to)| read.accepted(*to, *ours)).map(is_it).collect()
            })
        };
        answers.unwrap_or_else(|| vec![false; number])
    }

    /// Whether a connection to this port waits to be accepted. No answer is as good as yes.
    pub(super) async fn is_anybody_waiting(&self, port: u16) -> bool {
        let answer = if self.answers_each() {
            sock_diag::is_anybody_waiting(port)
        } else {
            let reading = self.readings.after(Instant::now()).await;
            reading.map(|reading| reading.is_anybody_waiting(port))
        };
        answer.unwrap_or(true)
    }

    fn answers_each(&self) -> bool {
        !self.is_refused && sock_diag::answers().unwrap_or(true)
    }
}

impl Answers {
    /// Whether the program at `target` can still accept the connection from `ours`, or has it open. Our end of it was
    /// closed at `over`. No answer is as good as yes.
    pub(super) fn can_be_met(&self, target: SocketAddr, ours: SocketAddr, over: Instant) -> bool {
        match self {
            Self::Each => sock_diag::can_be_met(target, ours).unwrap_or(true),
            // A reading from before that may not have the connection yet.
            Self::Of(Some(reading)) if reading.is_after(over) => reading.can_be_met(target, ours),
            Self::Of(_) => true,
        }
    }

    /// Whether these answers are from after this time.
    pub(super) fn are_after(&self, time: Instant) -> bool {
        match self {
            Self::Each => true,
            Self::Of(reading) => reading.as_ref().is_some_and(|reading| reading.is_after(time)),
        }
    }
}
