//! systemd, where it started us: readiness and status (sd_notify(3)), the watchdog
//! (sd_watchdog_enabled(3)), sockets that it opened for us (sd_listen_fds(3)).

use std::convert::Infallible;
use std::future::pending;
use std::os::fd::{FromRawFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sd_notify::NotifyState;
use socket2::{Socket, Type};
use tokio::time::MissedTickBehavior;

/// The service manager's ear. Silent where there is none.
#[derive(Debug, Default)]
pub(crate) struct Systemd {
    /// The last attempt failed, and that was said.
    deaf: bool,
}

impl Systemd {
    /// READY=1: the bridge accepts.
    pub(crate) fn ready(&mut self) {
        self.notify(&NotifyState::Ready);
    }

    /// STATUS=: what `systemctl status` shows.
    pub(crate) fn status(&mut self, text: &str) {
        self.notify(&NotifyState::Status(text));
    }

    /// STOPPING=1.
    pub(crate) fn stopping(&mut self) {
        self.notify(&NotifyState::Stopping);
    }

    fn notify(&mut self, state: &NotifyState<'_>) {
        if let Err(error) = sd_notify::notify(std::slice::from_ref(state))
            && !std::mem::replace(&mut self.deaf, true)
        {
            tracing::warn!("cannot notify systemd: {}", bridge::words(&error));
        }
    }
}

/// WATCHDOG=1 for ever, twice as often as is asked for. Pending where nobody asks. To be polled by the
/// task whose life it vouches for.
pub(crate) async fn watch() -> Infallible {
    let Some(limit) = sd_notify::watchdog_enabled() else { return pending().await };
    let mut ticks = tokio::time::interval((limit / 2).max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // If it fails, systemd will not fail to say so.
        let _ = sd_notify::notify(&[NotifyState::Watchdog]);
    }
}

/// The sockets that systemd passed to us; empty where it passed none. To be called once, before
/// anything else opens a descriptor.
///
/// # Errors
///
/// One of them is not a listening TCP socket.
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
    ensure!(address.as_socket().is_some(), "not an internet socket");
    ensure!(socket.r#type()? == Type::STREAM, "not a stream socket");
    ensure!(socket.is_listener()?, "not listening");
    Ok(())
}
