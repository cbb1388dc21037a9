//! The end of a session: both peers are told, what is under way is delivered, and how long that may take (B4, L5). Knows how many
//! bytes are under way, and when fewer are. Of why the session ends it knows whether a limit or the administrator has ended it, and
//! which peer is gone.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::{End, FLUSH, Phase, Pump, Side, Stop};
use crate::client::{DRAIN, Discarded, poll_discard};
use crate::standstill::Stuck;

/// How often [`FLUSH`] may pass without a byte taken, one time after the other, before what is left is given up. With the
/// deadlines before, that is within a minute.
const STALLS_MAX: u32 = 3;

/// For how long a deadline may be put off if a limit or the administrator has ended the session: it is to be over then,
/// however slowly a peer takes what is left (B13).
const FAREWELL: Duration = Duration::from_secs(60);

/// How many bytes are left to the kernel at the end, which may deliver them for minutes, and nothing counts them: a close frame,
/// the answer to a last command.
const LEFT_MAX: u64 = 4 * 1024;

impl Pump<'_> {
    pub(super) fn shut_both(&mut self) {
        self.begin_closing(false, FLUSH);
    }

    /// Whether bytes move is judged by those that are under way from now on: there may be more of them than at a deadline before.
    /// That a peer took nothing while the session was open counts no more, unless it still takes nothing and the other peer is
    /// gone: it may have taken a minute to notice that.
    fn begin_closing(&mut self, all_told: bool, time: Duration) {
        let now = self.under_way();
        let has_begun = !all_told && !self.is_survivor_stuck();
        if has_begun || self.joined.under_way.is_some_and(|before| now < before) {
            self.begin_anew();
        }
        self.joined.phase = Phase::Closing { all_told };
        self.joined.under_way = self.joined.under_way.map(|_| now);
        self.limit(time);
    }

    /// Whether one peer is gone, and the other has taken nothing since a look before that.
    fn is_survivor_stuck(&self) -> bool {
        let Some(standstill) = &self.joined.standstill else { return false };
        let (to_client, to_target) = self.all_under_way();
        let still_is = |stuck, left| standstill.still_is(stuck, self.moved(), left);
        self.client.is_deaf() && still_is(Stuck::Target, to_target)
            || matches!(self.joined.output, Side::Failed(_)) && still_is(Stuck::Client, to_client)
    }

    /// What was seen while no bytes moved counts no more.
    fn begin_anew(&mut self) {
        (self.joined.stalls, self.joined.standstill) = (0, None);
    }

    /// Waits until what is under way is delivered, and then for the end of both peers. What they still send is
    /// discarded, in turns as well: a peer that has been told of the end may go on sending as fast as it can.
    pub(super) fn poll_closing(&mut self, cx: &mut Context<'_>, all_told: bool) -> Poll<Stop> {
        let client_told = self.client.poll_finish(cx);
        let target_told = self.poll_finish_target(cx);
        if client_told.is_ready() && target_told.is_ready() && !all_told {
            self.begin_closing(true, DRAIN);
        }
        let client = client_told.is_ready().then(|| self.client.poll_discard(cx));
        let target = target_told.is_ready().then(|| self.poll_discard_target(cx));
        let read = [client, target].map(|read| read.unwrap_or(Poll::Pending));
        if read == [Poll::Ready(Discarded::End); 2] && self.may_leave_the_rest() {
            return Poll::Ready(Stop::Ended(End::Finished));
        }
        while self.poll_timer(cx).is_ready() {
            if !self.put_off() && !self.wait_on() {
                self.abandon();
                return Poll::Ready(Stop::Ended(End::Finished));
            }
        }
        if read.contains(&Poll::Ready(Discarded::Bytes)) {
            return Poll::Ready(Stop::TurnOver);
        }
        Poll::Pending
    }

    /// Whether what is under way may be left to the kernel, which delivers it after the end of the session: little of it, as
    /// nothing would count it, or all of it where the bridge stops.
    fn may_leave_the_rest(&self) -> bool {
        let (to_client, to_target) = self.all_under_way();
        self.joined.under_way.is_none() || to_client.max(to_target) <= LEFT_MAX
    }

    /// Waits on with what is under way, although nothing of it moves: a peer may be busy, or without a network, for a while.
    /// False: for no longer.
    fn wait_on(&mut self) -> bool {
        let (to_client, to_target) = self.all_under_way();
        // Nobody takes what is under way to a peer that is gone.
        let is_awaited = to_client > 0 && !self.client.is_deaf()
            || to_target > 0 && !matches!(self.joined.output, Side::Failed(_));
        let most = match self.client.told_to_end() {
            _ if !is_awaited || self.joined.under_way.is_none() => 0,
            Some(ago) if ago >= FAREWELL => 0,
            _ if self.may_leave_the_rest() || self.is_scarce() => 1,
            _ => STALLS_MAX,
        };
        // It may have stood still before its end, for as many looks, which are as far apart.
        let looks = self.joined.standstill.as_ref().map_or(0, |standstill| standstill.looks());
        if self.joined.stalls.saturating_add(looks) >= most {
            return false;
        }
        self.joined.stalls += 1;
        self.limit(FLUSH);
        true
    }

    /// Gives up what is under way, if it may not be left to the kernel, by a reset, which a Unix socket does not have. A target from
    /// which we have kept bytes must not take what it has for all there is.
    fn abandon(&mut self) {
        if self.joined.under_way.is_none() {
            return;
        }
        let (to_client, to_target) = self.all_under_way();
        let is_told = self.client.told_to_end().is_some();
        if is_told || to_client > LEFT_MAX {
            self.client.reset_on_close();
        }
        if is_told || to_target > LEFT_MAX || self.client.payload.is_some() {
            self.joined.target.reset_on_close();
        }
    }

    /// Puts off the deadline that has passed if fewer bytes are under way than last time: closing a socket whose peer still
    /// sends resets the connection, and the peer loses what it has not taken. If none are left at the end, and there were more
    /// than close frames, the peers have the time to end too. A session that was told to end has a minute for all of that.
    pub(super) fn put_off(&mut self) -> bool {
        let Some(before) = self.joined.under_way else { return false };
        let now = self.under_way();
        self.joined.under_way = Some(now);
        self.hold(now);
        let is_overdue = self.client.told_to_end().is_some_and(|ago| ago >= FAREWELL);
        if now < before {
            self.begin_anew();
        }
        let is_drain = now == 0 && matches!(self.joined.phase, Phase::Closing { .. });
        let is_moving =
            if is_drain { before > LEFT_MAX } else { now < before || now > 0 && before == 0 };
        let is_put_off = is_moving && !is_overdue;
        if is_put_off {
            self.limit(if is_drain { DRAIN } else { FLUSH });
        }
        is_put_off
    }

    fn poll_finish_target(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.client.payload.is_some() {
            ready!(self.poll_write_payload(cx));
        }
        if self.joined.output == Side::Open { self.poll_shut_target(cx) } else { Poll::Ready(()) }
    }

    fn poll_discard_target(&mut self, cx: &mut Context<'_>) -> Poll<Discarded> {
        if self.joined.input != Side::Open {
            return Poll::Ready(Discarded::End);
        }
        let discarded = ready!(poll_discard(&mut self.joined.target, cx));
        if discarded == Discarded::End {
            self.joined.input = Side::Ended;
        }
        Poll::Ready(discarded)
    }
}
