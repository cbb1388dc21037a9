// What must be undone when a test ends, also where the whole run is told to end.

const pending = [];

process.once("exit", () => undo(() => true));
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.once(signal, () => process.exit(1));

/** Does `deed`, which must be done at once, after the test `t`: the last that was asked for first. */
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
