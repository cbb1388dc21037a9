//! Tells those who wait for us how far we are: the caller of `-D`, and systemd. Knows neither's protocol.

use std::convert::Infallible;
use std::io;
use std::time::{Duration, Instant};

use crate::exit::Failure;
use crate::log::Log;
use crate::machine::daemon::Caller;
use crate::machine::systemd::Systemd;

/// How long the caller waits for a program to listen (D1).
const CALLER_TIMEOUT: Duration = Duration::from_secs(10);

/// Those who wait for us.
pub(crate) struct Progress {
    caller: Caller,
    /// When the caller has waited long enough for a program, if there is one.
    caller_deadline: Option<Instant>,
    systemd: Systemd,
    /// systemd has been told that we are ready.
    ready: bool,
}

impl Progress {
    pub(crate) fn new(caller: Caller) -> Self {
        Self { caller, caller_deadline: None, systemd: Systemd::default(), ready: false }
    }

    /// Finds systemd. To be called once there is a log, as it may warn.
    pub(crate) fn find_systemd(&mut self) -> io::Result<()> {
        self.systemd = Systemd::find()?;
        Ok(())
    }

    /// From now on the caller waits for a program, which is about to be started.
    pub(crate) fn awaits_program(&mut self) {
        self.caller_deadline = Some(Instant::now() + CALLER_TIMEOUT);
    }

    /// Until when the caller waits for the program, if it does.
    pub(crate) fn caller_deadline(&self) -> Option<Instant> {
        self.caller_deadline.filter(|_| self.caller.is_waiting())
    }

    /// The bridge accepts, which is what the caller waits for (D1). The log is written before, as the caller may read
    /// it next.
    pub(crate) fn up(&mut self, log: &Log) {
        self.release(log, None);
    }

    /// The caller has waited long enough: it is told why the program takes longer.
    pub(crate) fn waits_no_more(&mut self, log: &Log, warning: &str) {
        self.release(log, Some(warning));
    }

    fn release(&mut self, log: &Log, warning: Option<&str>) {
        if self.caller.is_waiting() {
            log.flush();
        }
        self.caller.up(warning);
    }

    /// The bridge accepts (D4). systemd is told only the first time.
    pub(crate) fn accepting(&mut self) {
        if !std::mem::replace(&mut self.ready, true) {
            self.systemd.ready();
        }
    }

    /// Whether systemd was told that already.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready
    }

    /// A hand-over to a new binary begins.
    pub(crate) fn reloading(&mut self) {
        self.systemd.reloading();
    }

    /// The hand-over has failed: we go on.
    pub(crate) fn reloaded(&mut self) {
        if self.ready {
            self.systemd.ready();
        }
    }

    /// Waits until systemd was told everything, but no longer than this.
    pub(crate) fn flush(&self, limit: Duration) {
        self.systemd.flush(limit);
    }

    /// What we are doing, for `systemctl status`.
    pub(crate) fn status(&mut self, text: &str) {
        self.systemd.status(text);
    }

    /// We have begun to end.
    pub(crate) fn stopping(&mut self) {
        self.systemd.stopping();
    }

    /// Our end takes longer: systemd is to wait this long, unless we extend the time again.
    pub(crate) fn extend(&mut self, time: Duration) {
        self.systemd.extend(time);
    }

    /// Tells the watchdog, for ever, that the task that polls this is alive.
    pub(crate) fn watchdog(&self) -> impl Future<Output = Infallible> + use<> {
        self.systemd.watchdog()
    }

    /// We cannot do what was asked for. False: no caller waits to be told.
    pub(crate) fn failed(&mut self, failure: &Failure) -> bool {
        self.caller.failed(failure)
    }
}
