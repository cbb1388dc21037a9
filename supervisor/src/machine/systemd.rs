//! systemd, where it started us: readiness and status (sd_notify(3)), the watchdog
//! (sd_watchdog_enabled(3)), sockets that it opened for us (sd_listen_fds(3)).

use std::convert::Infallible;
use std::ffi::OsStr;
use std::future::pending;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sd_notify::NotifyState;
use socket2::{Socket, Type};
use tokio::time::MissedTickBehavior;

use crate::writer::{self, Queue, Writer};

/// The service manager, which is told how we are. Nothing is sent where there is none.
#[derive(Default)]
pub(crate) struct Systemd {
    notices: Option<Queue<String>>,
    writer: Option<Writer>,
}

impl Systemd {
    /// Finds the service manager. A thread of its own sends to it: the queue of a socket that nobody reads is soon
    /// full, and then a sender is held up.
    pub(crate) fn find() -> io::Result<Self> {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(Self::default()) };
        // Made now and kept: when clients have all descriptors, systemd would not hear from us, and would kill us. If it
        // cannot be made, the first notice says why.
        let mut socket = UnixDatagram::unbound().ok();
        let mut is_said = false;
        let (notices, writer) = writer::start("systemd", move |notice: String, _| {
            if let Err(error) = tell(&mut socket, &name, &notice)
                && !std::mem::replace(&mut is_said, true)
            {
                tracing::warn!("cannot notify systemd: {}", bridge::error_text(&error));
            }
        })?;
        Ok(Self { notices: Some(notices), writer: Some(writer) })
    }

    /// READY=1: the bridge accepts.
    pub(crate) fn ready(&self) {
        self.notify(&NotifyState::Ready);
    }

    /// RELOADING=1, until we are ready again. The time (MONOTONIC_USEC=) is in the same message, as systemd wants it.
    pub(crate) fn reloading(&self) {
        // There is always such a clock.
        let Ok(now) = NotifyState::monotonic_usec_now() else { return };
        if let Some(notices) = &self.notices {
            let notice = format!("{}\n{now}", NotifyState::Reloading);
            let size = notice.len();
            notices.put(notice, size);
        }
    }

    /// Waits until all is sent, but no longer than this.
    pub(crate) fn flush(&self, limit: Duration) {
        self.writer.iter().for_each(|writer| writer.flush_within(limit));
    }

    /// STATUS=: what `systemctl status` shows.
    pub(crate) fn status(&self, text: &str) {
        self.notify(&NotifyState::Status(text));
    }

    /// STOPPING=1.
    pub(crate) fn stopping(&self) {
        self.notify(&NotifyState::Stopping);
    }

    /// EXTEND_TIMEOUT_USEC=: before this time is over, we send it again or have ended. systemd then does not mind
    /// TimeoutStopSec=.
    pub(crate) fn extend(&self, time: Duration) {
        // A time whose microseconds do not fit 32 bits, which is more than an hour, becomes the longest that fits.
        let microseconds = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        self.notify(&NotifyState::ExtendTimeoutUsec(microseconds));
    }

    /// WATCHDOG=1 for ever, twice as often as systemd asks for. Pending where it does not ask. To be polled by the task
    /// that the watchdog is to watch.
    pub(crate) fn watchdog(&self) -> impl Future<Output = Infallible> + use<> {
        let notices = self.notices.clone();
        async move {
            let (Some(notices), Some(limit)) = (notices, sd_notify::watchdog_enabled()) else {
                return pending().await;
            };
            let mut ticks = tokio::time::interval((limit / 2).max(Duration::from_millis(1)));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                put(&notices, &NotifyState::Watchdog);
            }
        }
    }

    fn notify(&self, state: &NotifyState<'_>) {
        if let Some(notices) = &self.notices {
            put(notices, state);
        }
    }
}

/// Sends a datagram to the socket of this name, which is abstract if it begins with `@` (sd_notify(3)); the crate knows
/// paths only, and makes a socket for each. By `socket`, which is made if there is none.
fn tell(socket: &mut Option<UnixDatagram>, name: &OsStr, notice: &str) -> io::Result<()> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = match socket {
        Some(socket) => socket,
        None => socket.insert(UnixDatagram::unbound()?),
    };
    socket.send_to_addr(notice.as_bytes(), &address).map(drop)
}

fn put(notices: &Queue<String>, state: &NotifyState<'_>) {
    let notice = state.to_string();
    let size = notice.len();
    notices.put(notice, size);
}

/// The sockets that systemd passed to us; empty where it passed none. To be called once, before
/// anything else opens a descriptor.
///
/// # Errors
///
/// One of them is not a listening stream socket.
#[allow(unsafe_code)]
pub(crate) fn passed_sockets() -> Result<Vec<Socket>> {
    let numbers = sd_notify::listen_fds().context("cannot take the sockets of LISTEN_FDS")?;
    numbers
        .map(|number| {
            // SAFETY: systemd opened it for us to own, and nobody here has taken it yet;
            // listen_fds() has set FD_CLOEXEC on it, so it is open.
            let socket = Socket::from(unsafe { OwnedFd::from_raw_fd(number) });
            check(&socket)
                .with_context(|| format!("cannot use descriptor {number} of LISTEN_FDS"))?;
            Ok(socket)
        })
        .collect()
}

fn check(socket: &Socket) -> Result<()> {
    let address = socket.local_addr().context("not a socket")?;
    let is_served = address.as_socket().is_some() || address.is_unix();
    ensure!(is_served, "neither an internet nor a Unix socket");
    ensure!(socket.r#type()? == Type::STREAM, "not a stream socket");
    ensure!(socket.is_listener()?, "not listening");
    Ok(())
}
