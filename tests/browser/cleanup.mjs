// What must be undone when a test ends, also where the whole run is told to end.

const pending = [];

process.once("exit", () => undo(() => true));
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.once(signal, () => process.exit(1));

/** Calls `deed`, which must be synchronous, after the test `t`. The `deed` that was given last is called first. */
export function afterwards(t, deed) {
  pending.push({ t, deed });
  t.after(() => undo((entry) => entry.t === t));
}

function undo(which) {
  for (const entry of pending.filter(which).reverse()) {
    pending.splice(pending.indexOf(entry), 1);
    entry.deed();
  }
}
