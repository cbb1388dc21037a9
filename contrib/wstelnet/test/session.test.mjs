// H4: a session puts telnet, UTF-8 and the line editor together.

import assert from "node:assert/strict";
import test from "node:test";
import headless from "@xterm/headless";
import { Session } from "../src/session.js";

const CHARACTER_MODE = [255, 251, 3, 255, 251, 1];
const LINE_MODE = [255, 252, 3, 255, 252, 1];
const HIDE = [255, 251, 1];
const REFUSE_OFFERS = [255, 254, 24, 255, 254, 31];

function start() {
  const log = { shown: "", sent: [], modes: [] };
  const session = new Session({
    columns: 80,
    rows: 24,
    out: {
      show: (text) => (log.shown += text),
      send: (bytes) => log.sent.push(...bytes),
      mode: (mode) => log.modes.push(mode),
    },
  });
  // What was sent since the last look, as text.
  log.take = () => Buffer.from(log.sent.splice(0)).toString("latin1");
  return { session, log };
}

// A session whose server has sent text, and no telnet commands.
function greeted() {
  const { session, log } = start();
  session.receive(Buffer.from("hello\r\n"));
  log.shown = "";
  return { session, log };
}

// In the given mode, with the negotiation out of the way.
function started(negotiation) {
  const { session, log } = start();
  session.receive(Uint8Array.from([...negotiation, ...REFUSE_OFFERS]));
  log.take();
  log.shown = "";
  return { session, log };
}

test("without negotiation lines are edited here, shown, and sent with CR LF", () => {
  const { session, log } = greeted();
  session.type("helo\x7flo\r");
  assert.equal(log.take(), "hello\r\n");
  assert.match(log.shown, /^helo/);
  assert.deepEqual(log.modes.at(-1), { line: true, hidden: false, held: false });
});

test("F75: a password typed before the server says that it echoes is never shown", () => {
  const answers = [HIDE, CHARACTER_MODE, [...CHARACTER_MODE, ...Buffer.from("login: ")]];
  for (const [index, answer] of answers.entries()) {
    const { session, log } = start();
    session.type("root\rsecrxt\x7f\x7fet");
    // DO TERMINAL-TYPE and WILL SGA come first, and say nothing of echoes yet.
    session.receive(Uint8Array.from([255, 253, 24, 255, 251, 3]));
    assert.equal(log.shown, "");
    assert.equal(log.modes.at(-1).held, true);
    session.receive(Uint8Array.from(answer));
    session.type(index === 1 ? "" : "\r");
    assert.doesNotMatch(log.shown, /root|sec/);
    assert.equal(log.modes.at(-1).held, false);
    // The arrow keys do not bring it back either.
    session.receive(Uint8Array.from(LINE_MODE));
    log.shown = "";
    session.type("\x1b[A\x1b[A");
    assert.ok(!log.shown.includes("root"));
    const sent = log.take();
    assert.ok(sent.includes("root\r\n") && sent.includes("secret"), sent);
  }
});

test("F75: a server that speaks no telnet has what was typed before shown with its first words", () => {
  const { session, log } = start();
  session.type("PING\rlok\x7fo");
  assert.equal(log.shown, "");
  assert.equal(log.take(), "PING\r\n");
  session.receive(Buffer.from("+PONG\r\n"));
  assert.match(log.shown, /^PING\r\nlok/);
  assert.match(log.shown, /\+PONG\r\nloo$/);
  log.shown = "";
  session.type("k");
  assert.equal(log.shown, "k");
});

test("ECHO and SGA: keys go out one by one and are not shown", () => {
  const { session, log } = started(CHARACTER_MODE);
  session.type("l");
  session.type("\x7f");
  session.type("\x03");
  session.type("\r");
  assert.equal(log.take(), "l\x7f\x03\r\0");
  assert.equal(log.shown, "");
  assert.deepEqual(log.modes.at(-1), { line: false, hidden: true, held: false });
});

test("SGA alone is a line server that sends no GA: lines are edited here and shown", () => {
  const { session, log } = started([255, 251, 3, ...Buffer.from("> ")]);
  session.type("lokk\x7f\x7fok\r");
  assert.equal(log.take(), "look\r\n");
  assert.match(log.shown, /^lokk/);
  assert.deepEqual(log.modes.at(-1), { line: true, hidden: false, held: false });
});

test("ECHO alone: a password is typed as a line and not shown", () => {
  const { session, log } = started(HIDE);
  session.type("secrxt\x7f\x7fet\r");
  assert.equal(log.take(), "secret\r\n");
  assert.equal(log.shown, "");
});

test("back to line mode", () => {
  const { session, log } = started([...CHARACTER_MODE, ...LINE_MODE]);
  session.type("a");
  assert.equal(log.take(), "");
  session.type("\r");
  assert.equal(log.take(), "a\r\n");
});

test("what was typed ahead of character mode is not lost", () => {
  const { session, log } = start();
  session.type("root");
  session.receive(Uint8Array.from(CHARACTER_MODE));
  assert.match(log.take(), /root$/);
});

test("a character cut anywhere is shown whole, once it is", () => {
  const bytes = new TextEncoder().encode("zł€😀");
  for (let cut = 1; cut < bytes.length; cut += 1) {
    const { session, log } = started(CHARACTER_MODE);
    session.receive(bytes.subarray(0, cut));
    assert.ok(!log.shown.includes("\ufffd"), `cut at ${cut}`);
    session.receive(bytes.subarray(cut));
    assert.equal(log.shown, "zł€😀", `cut at ${cut}`);
  }
});

test("bytes that are not UTF-8 are marked and cost nothing that follows", () => {
  const { session, log } = started(CHARACTER_MODE);
  session.receive(Uint8Array.from([0xe9, 0x20, 0xc3, 0xa9]));
  assert.equal(log.shown, "\ufffd é");
});

test("a byte 255 in a mouse report is doubled; in line mode there are no reports", () => {
  const { session, log } = started(CHARACTER_MODE);
  session.typeBytes(Uint8Array.from([27, 255]));
  assert.equal(log.take(), "\x1b\xff\xff");
  session.receive(Uint8Array.from(LINE_MODE));
  log.take();
  session.typeBytes(Uint8Array.from([27, 255]));
  assert.equal(log.take(), "");
});

test("the interrupt key in line mode is IAC IP", () => {
  const { session, log } = started(LINE_MODE);
  session.type("abc\x03");
  assert.equal(log.take(), "\xff\xf4");
});

test("output goes above an unfinished line", () => {
  const { session, log } = greeted();
  session.type("go");
  log.shown = "";
  session.receive(new TextEncoder().encode("A cat\r\n"));
  assert.match(log.shown, /A cat\r\ngo$/);
});

test("output that is cut anywhere leaves itself and the unfinished line whole", async () => {
  const bytes = new TextEncoder().encode("A \x1b[36mrat\x1b[0m.\x1b]0;t\x1b\\\x1b(B\r\n\x1b[1mGone.\x1b[m\r\n10hp> ");
  for (let cut = 1; cut < bytes.length; cut += 1) {
    const { session, log } = start();
    session.type("kill r");
    session.receive(bytes.subarray(0, cut));
    session.receive(bytes.subarray(cut));
    const screen = new headless.Terminal({ cols: 40, rows: 5, allowProposedApi: true, convertEol: true });
    await new Promise((done) => screen.write(log.shown, done));
    const rows = [0, 1, 2].map((y) => screen.buffer.active.getLine(y).translateToString().trimEnd());
    assert.deepEqual(rows, ["A rat.", "Gone.", "10hp> kill r"], `cut at ${cut}`);
  }
});

test("a sequence that never ends is not kept", () => {
  const { session, log } = start();
  session.receive(new TextEncoder().encode(`\x1b]0;${"x".repeat(3000)}`));
  assert.equal(log.shown, "");
  session.receive(new TextEncoder().encode("x".repeat(3000)));
  assert.equal(log.shown, `\x1b]0;${"x".repeat(6000)}`);
});

test("what was cut before character mode is shown in it", () => {
  const { session, log } = start();
  session.receive(new TextEncoder().encode("a\x1b["));
  session.receive(Uint8Array.from(CHARACTER_MODE));
  session.receive(new TextEncoder().encode("1mb"));
  assert.equal(log.shown, "a\x1b[1mb");
});

test("a server that asks for every terminal type is left with the best", () => {
  const { session, log } = start();
  session.receive(Uint8Array.from([255, 253, 24]));
  log.take();
  const names = [];
  // As such servers do: until a name comes twice in a row.
  while (names.length < 2 || names.at(-1) !== names.at(-2)) {
    assert.ok(names.length < 20, "the list has no end");
    session.receive(Uint8Array.from([255, 250, 24, 1, 255, 240]));
    names.push(log.take().slice(4, -2));
  }
  assert.ok(names.includes("vt100"));
  assert.equal(names[0], "xterm-256color");
  assert.equal(names.at(-1), "xterm-256color");
});
