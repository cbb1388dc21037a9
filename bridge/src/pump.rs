//! The pump: a client and its target, both ways, until the session has ended.
//!
//! One task polls both directions, so that a session is one small object, and an idle one owns no
//! buffer and no timer. Each direction alternates between writing out what it has and reading
//! once more: while a write is pending nothing is read, which is the back-pressure (B4).
//!
//! What the ends of the four streams mean is in [`Pump::settle`], and nowhere else. Must not know how the
//! client's frames look, nor how its target was found.

mod closing;
mod saved;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncWrite;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::buffer::{Lease, SIZE};
use crate::client::{Client, DRAIN, Input, TURN};
use crate::leg::Leg;
use crate::net::PeerStatus;
use crate::program::Trial;
use crate::saved::error_kind;
use crate::shutdown::{Shutdown, ShutdownWatch};
use crate::silence::Silence;
use crate::standstill::{Seen, Standstill, Stuck, Verdict};
use crate::tap::To;
pub(crate) use saved::SavedJoined;

/// How long the delivery of the remaining bytes may take once the session is ending, and how long the client may go on
/// sending after its target has ended. This time begins anew while the peer takes bytes: the kernel buffers megabytes
/// at once, for which a slow peer takes long.
const FLUSH: Duration = Duration::from_secs(10);

/// After how many bytes the kernel is asked how many of them it still has: several full buffers, beside which the system
/// calls cost nothing.
const ASKED_AFTER: u64 = 4 * SIZE as u64;

/// How many bytes it may then have without their being counted: they are on their way. At a look all are counted.
const UNCOUNTED_MAX: u64 = 64 * 1024;

/// How a pump ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The session is over; nothing is left to do.
    Finished,
    /// The program dropped a connection that carried nothing: another connection may still serve this client.
    Lost,
}

/// Why a pump stops.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The pump goes on when the other sessions have had their turn.
    TurnOver,
    Ended(End),
}

/// Where the session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    /// Bytes flow both ways.
    Open,
    /// The client ended without a close frame: it may still be reading.
    ClientEnded,
    /// The target ended, and the client has been told: it may still be sending.
    TargetEnded,
    /// Both peers are being told of the end; what they still send is discarded.
    Closing { all_told: bool },
}

/// One direction of the target's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Side {
    Open,
    /// Ended in order.
    Ended,
    Failed(#[serde(with = "error_kind")] io::ErrorKind),
}

/// The close reason of clients that are closed because the bridge stops.
pub(crate) const SHUTTING_DOWN: &str = "shutting down";

/// The close reason where a target's encrypted connection ends without TLS's close_notify.
const CUT_OFF: &str = "target ended without closing TLS, its last bytes may be missing";

/// The target that a client is joined with, and how far the session is.
pub(crate) struct Joined {
    pub(crate) target: Leg,
    /// What the target sends.
    input: Side,
    /// What the target takes.
    output: Side,
    phase: Phase,
    /// The deadline of the phase, if it has one. An open session has none.
    limit: Option<Instant>,
    /// How many bytes were under way to both peers when a deadline last passed. `None`: no deadline is put off any
    /// more.
    under_way: Option<u64>,
    /// How many times, one after the other, the session has waited on although nothing moved.
    stalls: u32,
    /// What the looks at an open session have found while a peer took nothing, if there were any.
    standstill: Option<Box<Standstill>>,
    /// How many bytes had [passed](Pump::passed) when no peer owed an acknowledgement last.
    answered: u64,
    /// The same when the memory that is kept for the session was counted last.
    counted: u64,
    /// The silence of the client and of the target, while one of them owes an acknowledgement.
    silence: Option<Box<[Silence; 2]>>,
    /// Whether the kernel is told to keep few unsent bytes for the target, as memory was scarce at the last look.
    has_unsent_limit: bool,
    /// The trial of the connection, if the target is the program: then the session is [`End::Lost`] if the connection
    /// is reset before it carries anything.
    trial: Option<Trial>,
}

/// A session that has a target.
pub(crate) struct Pump<'a> {
    client: &'a mut Client,
    joined: &'a mut Joined,
    /// Wakes the task at the deadline.
    timer: Option<Pin<Box<Sleep>>>,
    shutdown: ShutdownWatch,
}

impl Joined {
    /// With a new connection.
    pub(crate) fn new(target: Leg, trial: Option<Trial>) -> Self {
        Self {
            target,
            input: Side::Open,
            output: Side::Open,
            phase: Phase::Open,
            limit: None,
            under_way: Some(0),
            stalls: 0,
            standstill: None,
            answered: 0,
            counted: 0,
            silence: None,
            has_unsent_limit: false,
            trial,
        }
    }

    /// Has the kernel keep less of what is sent to the target, if memory is scarce, or as much as usual.
    pub(crate) fn limit_unsent(&mut self, is_scarce: bool) {
        if std::mem::replace(&mut self.has_unsent_limit, is_scarce) != is_scarce {
            self.target.limit_unsent(is_scarce);
        }
    }

    /// The session is over.
    pub(crate) fn end(self) {
        if let Some(trial) = self.trial {
            trial.end(self.target);
        }
    }
}

impl<'a> Pump<'a> {
    /// The pump of a client, with the payload that it may have sent already, and of the target that it is joined with.
    pub(crate) fn new(
        client: &'a mut Client,
        joined: &'a mut Joined,
        shutdown: ShutdownWatch,
    ) -> Self {
        let timer = joined.limit.map(|limit| Box::pin(sleep_until(limit)));
        Self { client, joined, timer, shutdown }
    }

    /// Closes the session because the bridge is told to stop (1001). There are two seconds for all
    /// of it, for what is under way as well.
    pub(crate) fn shut_down(&mut self) {
        self.client.close(CloseCode::Away, SHUTTING_DOWN);
        self.joined.phase = Phase::Closing { all_told: true };
        self.joined.under_way = None;
        self.limit(DRAIN);
    }

    /// Moves bytes until both directions would block, or this turn is over.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Stop> {
        let turn_over = self.read() + TURN;
        if self.client.answer_calls(cx) && !matches!(self.joined.phase, Phase::Closing { .. }) {
            self.shut_both();
        }
        loop {
            if let Phase::Closing { all_told } = self.joined.phase {
                let stop = self.poll_closing(cx, all_told);
                self.account();
                return stop;
            }
            let phase = self.joined.phase;
            let up = self.poll_up(cx);
            let down = self.poll_down(cx);
            if self.settle() {
                return Poll::Ready(Stop::Ended(End::Lost));
            }
            if up.is_pending() && down.is_pending() && self.joined.phase == phase {
                self.account();
                if phase == Phase::Open {
                    ready!(self.poll_look(cx));
                    self.look(cx);
                } else {
                    ready!(self.poll_timer(cx));
                    self.time_out();
                }
            } else if self.read() >= turn_over {
                self.account();
                return Poll::Ready(Stop::TurnOver);
            }
        }
    }

    /// Counts in the memory budget what is kept for a peer that takes nothing: our buffers, from when it stops taking, and
    /// what the kernel has of what was sent. The kernel may also have megabytes while no buffer of ours waits: so it is
    /// asked when one waits no more, when many bytes have passed, and at each look.
    fn account(&mut self) {
        let is_stuck = self.stuck().is_some();
        let is_due = if is_stuck {
            self.is_scarce() || !self.client.holds_buffers()
        } else {
            self.client.holds_buffers() || self.passed() - self.joined.counted > ASKED_AFTER
        };
        if is_due {
            let under_way = self.under_way();
            self.hold(if is_stuck || under_way > UNCOUNTED_MAX { under_way } else { 0 });
            // What was just counted may have made memory scarce.
            self.is_scarce();
        }
    }

    /// Counts our own buffers, what TLS keeps beside them, and the bytes that are under way.
    fn hold(&mut self, under_way: u64) {
        let payload = self.client.payload.as_ref().map_or(0, |payload| payload.size());
        let by_tls = self.joined.target.kept_by_tls(payload);
        self.client.hold(under_way + by_tls as u64);
        self.joined.counted = self.passed();
    }

    /// Whether memory is scarce. If that has changed, the kernel is told to keep less for the session, or as much as
    /// usual.
    fn is_scarce(&mut self) -> bool {
        let is_scarce = self.client.is_scarce();
        self.joined.limit_unsent(is_scarce);
        is_scarce
    }

    /// Payload bytes, both ways.
    fn moved(&self) -> u64 {
        let entry = &self.client.session.entry;
        entry.received() + entry.sent()
    }

    /// Bytes that were read of both peers. Not payload alone: frames that carry none take time as well.
    fn read(&self) -> u64 {
        self.client.read() + self.client.session.entry.sent()
    }

    /// Bytes that the peers have to acknowledge, of payload and of pongs, all since the session began.
    fn passed(&self) -> u64 {
        self.moved() + self.client.ponged()
    }

    /// The deadline of a phase has passed.
    fn time_out(&mut self) {
        match self.joined.phase {
            Phase::Open => {}
            Phase::TargetEnded => {
                if !self.put_off() {
                    self.shut_both();
                }
            }
            // What the peers send from now on is discarded: nothing is added to what is under way.
            Phase::ClientEnded | Phase::Closing { .. } => {
                self.joined.phase = Phase::Closing { all_told: true }
            }
        }
    }

    /// Which peer takes nothing now.
    fn stuck(&self) -> Option<Stuck> {
        if self.client.payload.is_some() {
            Some(Stuck::Target)
        } else {
            self.client.is_stuck().then_some(Stuck::Client)
        }
    }

    /// Ready when it is time to look at the peers. They are looked at while one takes nothing, since the other is not
    /// read then and its end is not noticed; while bytes are counted, of which a slow peer takes some; while the program
    /// may not have accepted the connection; and while an acknowledgement of sent bytes may be missing.
    fn poll_look(&self, cx: &mut Context<'_>) -> Poll<()> {
        let Joined { trial, answered, silence, .. } = &self.joined;
        if self.passed() != *answered
            || silence.is_some()
            || self.stuck().is_some()
            || !self.client.held.is_none()
            || trial.as_ref().is_some_and(Trial::may_be_queued)
        {
            return self.client.session.poll_look(cx);
        }
        self.client.session.forget_look();
        Poll::Pending
    }

    /// Looks whether the peers are still there, and acts on that.
    fn look(&mut self, cx: &mut Context<'_>) {
        if let Some(trial) = self.joined.trial.as_mut().filter(|trial| trial.may_be_queued())
            && let Some(ends) = self.joined.target.tcp_ends()
            && trial.is_gone(ends)
        {
            self.joined.input = Side::Failed(io::ErrorKind::ConnectionReset);
            return;
        }
        if self.look_for_answers() {
            return;
        }
        let (to_client, to_target) = self.all_under_way();
        self.hold(to_client + to_target);
        let Some(stuck) = self.stuck() else {
            self.joined.standstill = None;
            return;
        };
        let client = self.client.look_after(cx);
        if client == PeerStatus::Failed {
            // What the client has sent is still delivered to the target, if that begins to take it.
            self.put_off();
            return;
        }
        let moved = self.moved();
        let (left, other, owed) = match stuck {
            Stuck::Target => (to_target, client, to_client),
            Stuck::Client => (to_client, self.joined.target.peer_status(cx), to_target),
        };
        let seen = Seen { stuck, moved, left, other, other_is_owed: owed > 0 };
        match self.joined.standstill.get_or_insert_default().look(seen) {
            Verdict::Wait => {}
            Verdict::Probe => self.client.ping(),
            Verdict::Over(reason) => {
                self.client.end(CloseCode::Abnormal, reason);
                self.joined.phase = Phase::ClientEnded;
                self.put_off();
                self.limit(FLUSH);
            }
        }
    }

    /// Looks whether the peers acknowledge what is sent to them. True: one is gone.
    fn look_for_answers(&mut self) -> bool {
        let (now, passed) = (Instant::now(), self.passed());
        let heard = [self.client.heard(), self.joined.target.heard()];
        let [client, target] = &mut **self.joined.silence.get_or_insert_default();
        let (is_client_gone, is_target_gone) =
            (client.is_gone(heard[0], now), target.is_gone(heard[1], now));
        if !client.is_asked() && !target.is_asked() {
            (self.joined.answered, self.joined.silence) = (passed, None);
        }
        if is_client_gone {
            self.client.give_up();
        } else if is_target_gone {
            self.joined.input = Side::Failed(io::ErrorKind::TimedOut);
        }
        is_client_gone || is_target_gone
    }

    /// One step from the client to the target: a read, unless there is payload already, and the
    /// write of it.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.client.payload.is_none() && matches!(self.client.input, Input::Open) {
            ready!(self.client.poll_receive(cx));
            if self.client.payload.is_none() {
                return Poll::Ready(());
            }
        }
        if self.client.payload.is_some() {
            self.poll_write_payload(cx)
        } else if self.joined.output == Side::Open {
            self.poll_shut_target(cx)
        } else {
            Poll::Pending
        }
    }

    /// One step from the target to the client: the writes that are pending, a read, and the write
    /// of that.
    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.client.poll_send(cx));
        if self.client.is_closing() || self.joined.input != Side::Open {
            return Poll::Pending;
        }
        let mut lease = Lease::take_as(self.is_scarce());
        let headroom = self.client.headroom(&lease);
        match ready!(lease.poll_read(cx, &mut self.joined.target, headroom)) {
            Ok(0) => self.joined.input = Side::Ended,
            Ok(length) => {
                if let Some(trial) = &mut self.joined.trial {
                    trial.count();
                }
                self.client.put_frame(lease, length);
                return self.client.poll_send(cx);
            }
            Err(error) => self.joined.input = Side::Failed(error.kind()),
        }
        Poll::Ready(())
    }

    /// Decides what the ends of streams mean, if any has ended. True: the connection is lost.
    fn settle(&mut self) -> bool {
        match (&self.client.input, self.joined.phase) {
            // The client takes nothing more. What it sent before is read and delivered, but not for ever.
            (Input::Open, Phase::Open) if self.client.is_deaf() => {
                self.joined.phase = Phase::ClientEnded;
                self.limit(FLUSH);
            }
            (Input::Open, _) => {}
            (Input::Ended, Phase::ClientEnded) if !self.client.is_deaf() => {}
            (Input::Ended, Phase::Open) => {
                self.client.answer_input();
                self.joined.phase = Phase::ClientEnded;
                self.limit(if self.joined.output == Side::Open { FLUSH } else { DRAIN });
            }
            _ => {
                self.client.answer_input();
                self.shut_both();
            }
        }
        match (self.joined.input, self.joined.phase) {
            (Side::Open, _) | (Side::Ended, Phase::TargetEnded) | (_, Phase::Closing { .. }) => {}
            (Side::Ended, phase) => {
                self.close_for_target();
                if phase == Phase::Open && self.client.has_close() {
                    self.joined.phase = Phase::TargetEnded;
                    self.limit(FLUSH);
                } else {
                    self.shut_both();
                }
            }
            (Side::Failed(_), _) if self.is_lost() => return true,
            (Side::Failed(_), _) => {
                self.joined.output = self.joined.input;
                self.close_for_target();
                self.shut_both();
            }
        }
        false
    }

    /// W4: whether the program has reset the connection before its first byte, while the client has sent none.
    fn is_lost(&self) -> bool {
        self.joined.trial.is_some()
            && self.joined.input == Side::Failed(io::ErrorKind::ConnectionReset)
            && matches!(self.client.input, Input::Open)
            && self.moved() == 0
    }

    /// Tells the client how the target ended.
    fn close_for_target(&mut self) {
        // The target was stopped along with us: the shutdown was sent first, though this task has not seen it yet.
        if self.shutdown.has_reached(Shutdown::Now) {
            return self.client.close(CloseCode::Away, SHUTTING_DOWN);
        }
        // A failed write takes the socket's pending error away, and the next read then reports an orderly end: so the
        // error of the write counts. EPIPE does not count: it is reported of a target that had ended in order before.
        let failed = match (self.joined.input, self.joined.output) {
            (Side::Failed(kind), _) => Some(kind),
            (_, Side::Failed(kind)) if kind != io::ErrorKind::BrokenPipe => Some(kind),
            _ => None,
        };
        match failed {
            // An end without close_notify may have been made by anybody on the way, and is not taken for the target's:
            // that is what TLS is for.
            Some(io::ErrorKind::UnexpectedEof) => self.client.close(CloseCode::Error, CUT_OFF),
            Some(kind) => self.client.close(CloseCode::Error, &format!("target failed: {kind}")),
            None => self.client.close(CloseCode::Normal, "target closed the connection"),
        }
    }

    /// How many bytes are under way to the client and to the target, here or in the kernel.
    fn all_under_way(&self) -> (u64, u64) {
        let payload = self.client.payload.as_ref().map_or(0, |payload| payload.left() as u64);
        (self.client.under_way(), payload + self.joined.target.unsent())
    }

    fn under_way(&self) -> u64 {
        let (to_client, to_target) = self.all_under_way();
        to_client + to_target
    }

    /// Writes the payload to the target, or drops it if the target takes nothing any more.
    fn poll_write_payload(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(payload) = &mut self.client.payload
            && self.joined.output == Side::Open
            && let Err(error) = ready!(match &self.client.tap {
                None => payload.poll_write(cx, &mut self.joined.target),
                Some(tap) => tap.poll_write(To::Target, payload, cx, &mut self.joined.target),
            })
        {
            self.joined.output = Side::Failed(error.kind());
        }
        self.client.payload = None;
        Poll::Ready(())
    }

    fn poll_shut_target(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // The shutdown fails if the target is gone, which the reading side finds out.
        let _ = ready!(Pin::new(&mut self.joined.target).poll_shutdown(cx));
        self.joined.output = Side::Ended;
        if self.joined.phase == Phase::ClientEnded {
            self.limit(DRAIN);
        }
        Poll::Ready(())
    }

    fn limit(&mut self, time: Duration) {
        let limit = Instant::now() + time;
        self.joined.limit = Some(limit);
        match &mut self.timer {
            Some(timer) => timer.as_mut().reset(limit),
            None => self.timer = Some(Box::pin(sleep_until(limit))),
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.timer {
            Some(timer) => timer.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}
