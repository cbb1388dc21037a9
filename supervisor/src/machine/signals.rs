//! The signals that we are sent, and what each asks for. Knows nothing of who acts on them.

use std::io::{self, IsTerminal};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use nix::sys::signal::{self, SigSet};
use nix::unistd::getpid;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR2, SIGXFSZ};
use tokio::sync::oneshot;
use tokio::task::unconstrained;
use tracing::warn;

use super::proc_text;

/// The signals that we catch. But SIGHUP stays ignored if we were started so, as by nohup or by `trap '' HUP`.
const CAUGHT: [i32; 7] = [SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR2, SIGXFSZ];

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// A child has ended, or more than one.
    Child,
    /// Stop. A second one means: at once.
    Stop,
    /// Read again what may have changed.
    Reload,
    /// Hand over to the binary that is at our path now (O2).
    HandOver,
}

/// The signals that websockify listens to.
pub(crate) struct Signals {
    /// All but SIGCHLD, which has a stream of its own: a stream tells signals by their numbers, and begins with the
    /// lowest again only after a moment without any. Where children end all the time there is no such moment.
    asked: signal_hook_tokio::Signals,
    children: signal_hook_tokio::Signals,
    /// Whether SIGHUP is a stop: where standard error is a terminal, SIGHUP says that it was closed, and nobody would
    /// see anything of us any more.
    hangup_stops: bool,
    /// SIGHUP has come while we were starting.
    is_reload_due: bool,
    receiver: Option<Receiver>,
}

/// The thread that the kernel delivers the signals to. No other thread is interrupted by them, and when this one blocks
/// them for a hand-over, they stay pending in the kernel and none is lost.
struct Receiver(mpsc::Sender<Order>);

enum Order {
    /// Block the signals, and drop the sender when that is done.
    Hold(oneshot::Sender<()>),
    Release,
}

/// Blocks the signals until they are [caught](Signals::catch). To be called before there is a second thread: all
/// threads inherit this from the first.
pub(crate) fn hold_back() -> io::Result<()> {
    Ok(set(&CAUGHT)?.thread_block()?)
}

/// Blocks SIGUSR2 alone, which would end us before the signals are caught: who sends it wants us to hand over, not to
/// end.
pub(crate) fn hold_back_hand_over() {
    // It cannot fail: SIGUSR2 is a valid signal.
    let _ = set(&[SIGUSR2]).map(|set| set.thread_block());
}

fn set(signals: &[i32]) -> nix::Result<SigSet> {
    signals.iter().map(|signal| signal::Signal::try_from(*signal)).collect()
}

impl Receiver {
    fn start() -> io::Result<Self> {
        let (orders, given) = mpsc::channel();
        let caught = set(&CAUGHT)?;
        let receive = move || {
            for order in given {
                match order {
                    Order::Hold(held) => {
                        let _ = caught.thread_block();
                        drop(held);
                    }
                    // exec(2) keeps the mask: if whoever started us has blocked the signals, they would never come.
                    Order::Release => drop(caught.thread_unblock()),
                }
            }
            let _ = caught.thread_block();
        };
        thread::Builder::new().name("signals".into()).spawn(receive)?;
        Ok(Self(orders))
    }
}

impl Signals {
    /// From here on these signals no longer end the process. They stay pending in the kernel until they are
    /// [released](Self::release). Needs a runtime.
    pub(crate) fn catch() -> io::Result<Self> {
        let ignored = ignores_hangup();
        let caught = CAUGHT.into_iter().filter(|signal| *signal != SIGHUP || !ignored);
        let signals = Self::tell(caught.filter(|signal| *signal != SIGCHLD))?;
        Ok(Self { receiver: Some(Receiver::start()?), ..signals })
    }

    /// From here on signals stay pending in the kernel, and exec(2) keeps them. Those that have come and were not read
    /// from the streams are raised again, and stay pending as well.
    pub(crate) async fn hold(&mut self) {
        let (held, is_held) = oneshot::channel();
        self.order(Order::Hold(held));
        // The thread drops its end when it has blocked the signals.
        let _ = is_held.await;
        // The runtime looks at pipes before it looks at timers: after this, the streams have all that was caught.
        tokio::time::sleep(Duration::from_millis(1)).await;
        for stream in [&mut self.asked, &mut self.children] {
            while let Some(Some(signal)) = unconstrained(stream.next()).now_or_never() {
                if signal == SIGUSR2 {
                    warn!("cannot hand over: a hand-over is under way already");
                } else if let Ok(signal) = signal::Signal::try_from(signal) {
                    let _ = signal::kill(getpid(), signal);
                }
            }
        }
    }

    /// Signals are delivered.
    pub(crate) fn release(&self) {
        self.order(Order::Release);
    }

    fn order(&self, order: Order) {
        // The thread lives as long as we do.
        if let Some(Receiver(orders)) = &self.receiver {
            let _ = orders.send(order);
        }
    }

    fn tell(asked: impl Iterator<Item = i32>) -> io::Result<Self> {
        Ok(Self {
            asked: signal_hook_tokio::Signals::new(asked)?,
            children: signal_hook_tokio::Signals::new([SIGCHLD])?,
            hangup_stops: io::stderr().is_terminal(),
            is_reload_due: false,
            receiver: None,
        })
    }

    /// Waits for a signal to stop, while we are starting. A reload is due when we have started. Cancel-safe.
    pub(crate) async fn stop(&mut self) {
        loop {
            match self.hear().await {
                Signal::Stop => return,
                Signal::HandOver => warn!("cannot hand over: websockify is still starting"),
                Signal::Reload => self.is_reload_due = true,
                Signal::Child => {}
            }
        }
    }

    /// The next signal; SIGCHLD only if there is no other. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Signal {
        if std::mem::take(&mut self.is_reload_due) {
            return Signal::Reload;
        }
        self.hear().await
    }

    async fn hear(&mut self) -> Signal {
        // A stream that always has something would keep the runtime from looking at anything else.
        tokio::task::consume_budget().await;
        loop {
            let signal = tokio::select! {
                biased;
                signal = self.asked.next() => signal,
                child = self.children.next() => child,
            };
            match signal {
                Some(SIGCHLD) => return Signal::Child,
                Some(SIGHUP) if !self.hangup_stops => return Signal::Reload,
                // Caught, so that the write to a recording that is too large fails, and ends no session.
                Some(SIGXFSZ) => {}
                Some(SIGUSR2) => return Signal::HandOver,
                Some(_) => return Signal::Stop,
                // A stream ends only when its handle is closed, which nobody does.
                None => std::future::pending().await,
            }
        }
    }
}

/// Whether we were started with SIGHUP ignored. To be asked before it is caught.
fn ignores_hangup() -> bool {
    let ignored = proc_text::status("self", "SigIgn").ok();
    let ignored = ignored.and_then(|ignored| u64::from_str_radix(&ignored, 16).ok());
    ignored.is_some_and(|ignored| ignored & (1 << (SIGHUP - 1)) != 0)
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::{Signal as Raised, raise};

    use super::*;

    /// W9: a program whose processes end all the time does not keep us from being stopped.
    #[tokio::test]
    async fn w9_what_is_asked_for_is_heard_while_children_end_without_a_pause() {
        let mut signals = Signals::tell([SIGHUP].into_iter()).unwrap();
        raise(Raised::SIGCHLD).unwrap();
        assert_eq!(signals.next().await, Signal::Child);
        raise(Raised::SIGCHLD).unwrap();
        raise(Raised::SIGHUP).unwrap();
        // The runtime looks for what is new on a pipe after some rounds.
        for _ in 0..1000 {
            raise(Raised::SIGCHLD).unwrap();
            if signals.next().await != Signal::Child {
                return;
            }
        }
        panic!("only children were told of");
    }
}
