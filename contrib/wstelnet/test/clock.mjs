// A clock that goes on when it is told to. Node has one too, but not yet Debian 12's node 18.

/** Takes the place of `setTimeout`, `clearTimeout` and `Date.now`, for the length of the test `t`. */
export function stoppedClock(t) {
  const { setTimeout, clearTimeout } = globalThis;
  const { now } = Date;
  let time = now();
  let latest = 0;
  const timers = new Map();
  globalThis.setTimeout = (deed, ms) => {
    latest += 1;
    timers.set(latest, { deed, at: time + ms });
    return latest;
  };
  globalThis.clearTimeout = (timer) => timers.delete(timer);
  Date.now = () => time;
  t.after(() => {
    Object.assign(globalThis, { setTimeout, clearTimeout });
    Date.now = now;
  });
  return {
    /** Lets time pass, and what is due happen in its order. */
    tick(ms) {
      const end = time + ms;
      for (;;) {
        const [next] = [...timers].filter(([, { at }]) => at <= end).sort(([, one], [, other]) => one.at - other.at);
        if (next === undefined) break;
        const [timer, { deed, at }] = next;
        timers.delete(timer);
        time = Math.max(time, at);
        deed();
      }
      time = end;
    },
  };
}
