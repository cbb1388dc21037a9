// H4: line mode. What goes out by table; what is seen on a real terminal core,
// after every key of a fixed random sequence, in a window narrower than the line.

import assert from "node:assert/strict";
import test from "node:test";
import headless from "@xterm/headless";
import { LineEditor } from "../src/line.js";

const LEFT = "\x1b[D";
const RIGHT = "\x1b[C";
const UP = "\x1b[A";
const DOWN = "\x1b[B";
const HOME = "\x1b[H";
const END = "\x1b[F";
const DELETE = "\x1b[3~";

function start() {
  const log = { sent: [], shown: [] };
  const line = new LineEditor({
    show: (text) => log.shown.push(text),
    send: (text) => log.sent.push(text),
    interrupt: () => log.sent.push("INTERRUPT"),
  });
  return { line, log };
}

const ROWS = [
  { name: "a line goes out at Enter", keys: ["look", "\r"], sent: ["look\r\n"] },
  { name: "nothing goes out before", keys: ["look"], sent: [] },
  { name: "an empty line", keys: ["\r"], sent: ["\r\n"] },
  { name: "backspace", keys: ["lopk", "\x7f", "\x7f", "ok\r"], sent: ["look\r\n"] },
  { name: "backspace on nothing", keys: ["\x7f", "\b", "a\r"], sent: ["a\r\n"] },
  { name: "backspace takes a whole grapheme", keys: ["e\u0301x", "\x7f", "\x7f", "a\r"], sent: ["a\r\n"] },
  { name: "arrows and insert", keys: ["lok", LEFT, "o", "\r"], sent: ["look\r\n"] },
  { name: "home, end, delete", keys: ["xloo", HOME, DELETE, END, "k\r"], sent: ["look\r\n"] },
  { name: "application cursor keys", keys: ["lok", "\x1bOD", "o", "\x1bOC", "!\r"], sent: ["look!\r\n"] },
  { name: "right at the end, left at the start", keys: [RIGHT, "a", LEFT, LEFT, "b\r"], sent: ["ba\r\n"] },
  { name: "erase a word", keys: ["say hello  ", "\x17", "bye\r"], sent: ["say bye\r\n"] },
  { name: "erase a word of many-part graphemes", keys: ["a 👨‍👩‍👧e\u0301", "\x17", "b\r"], sent: ["a b\r\n"] },
  { name: "erase the line", keys: ["say hello", "\x15", "look\r"], sent: ["look\r\n"] },
  { name: "history", keys: ["a\r", "b\r", UP, UP, "\r"], sent: ["a\r\n", "b\r\n", "a\r\n"] },
  { name: "history and back", keys: ["a\r", UP, DOWN, "b\r"], sent: ["a\r\n", "b\r\n"] },
  { name: "history has a line that is repeated once", keys: ["a\r", "b\r", "b\r", UP, UP, "\r"], sent: ["a\r\n", "b\r\n", "b\r\n", "a\r\n"] },
  { name: "history ends", keys: ["a\r", UP, UP, UP, "x\r"], sent: ["a\r\n", "ax\r\n"] },
  { name: "interrupt gives up the line", keys: ["abc", "\x03", "d\r"], sent: ["INTERRUPT", "d\r\n"] },
  { name: "other controls go at once", keys: ["a", "\x04", "\r"], sent: ["\x04", "a\r\n"] },
  { name: "other keys are nothing", keys: ["\x1b[15~", "\x1b[200~a\x1b[201~", "\x1b", "\r"], sent: ["a\r\n"] },
  { name: "Alt and a letter is a key too", keys: ["a", "\x1bb", "\x1b", "c\r"], sent: ["ac\r\n"] },
  {
    name: "what the terminal answers a server that asks is not typed",
    keys: ["\x1b[?1;2c", "\x1b[>0;276;0c", "\x1b[1;1R", "\x1b[<0;10;5M", "\x1b]10;rgb:20/26/2d\x1b\\", "\x1bP0$r\x1b\\", "a\r"],
    sent: ["a\r\n"],
  },
  { name: "a paste of two lines", keys: ["one\rtwo\rthr"], sent: ["one\r\n", "two\r\n"] },
  { name: "a tab is kept", keys: ["a\tb\r"], sent: ["a\tb\r\n"] },
];

for (const { name, keys, sent } of ROWS) {
  test(name, () => {
    const { line, log } = start();
    for (const key of keys) line.type(key);
    assert.deepEqual(log.sent, sent);
  });
}

test("a paste is a line however long it is, its graphemes whole", () => {
  const { line, log } = start();
  // Of such a length that a grapheme is cut wherever the text is cut into pieces.
  const text = "👨‍👩‍👧e\u0301x".repeat(30_000);
  line.type(text);
  line.type(HOME);
  line.type(END);
  line.type("\x7f\x7f\x7f\r");
  assert.equal(log.sent.join(""), `${text.slice(0, -"👨‍👩‍👧e\u0301x".length)}\r\n`);
});

test("a hidden line is sent, neither shown nor remembered", () => {
  const { line, log } = start();
  line.type("jane\r");
  line.hidden = true;
  log.shown.length = 0;
  line.type("secrxt");
  line.type("\x7f\x7f");
  line.type("et\r");
  assert.equal(log.shown.join(""), "");
  line.hidden = false;
  line.type(UP);
  line.type("\r");
  assert.deepEqual(log.sent, ["jane\r\n", "secret\r\n", "jane\r\n"]);
  assert.ok(!log.shown.join("").includes("secret"));
});

test("a hundred lines are remembered", () => {
  const { line, log } = start();
  for (let number = 0; number <= 100; number += 1) line.type(`${number}\r`);
  log.sent.length = 0;
  line.type(`${UP.repeat(200)}\r`);
  assert.deepEqual(log.sent, ["1\r\n"]);
});

test("an unfinished line is taken as it stands", () => {
  const { line } = start();
  line.type("ab");
  line.type(LEFT);
  assert.equal(line.take(), "ab");
  assert.equal(line.take(), "");
});

// Ten columns: nearly every line wraps.
function terminal() {
  const screen = new headless.Terminal({ cols: 10, rows: 20, allowProposedApi: true });
  const write = (text) => new Promise((done) => screen.write(text, done));
  const picture = () => {
    const { active } = screen.buffer;
    const rows = Array.from({ length: active.length }, (_, y) => active.getLine(y).translateToString());
    // A cursor that waits behind the last column stands on the next cell to come.
    return { text: rows.join("").trimEnd(), cursor: active.cursorY * 10 + active.cursorX };
  };
  return { write, picture, reset: () => screen.reset() };
}

// What a terminal looks like that was shown this and nothing else.
const blank = terminal();
async function draw(text) {
  blank.reset();
  await blank.write(text);
  return blank.picture();
}

// A wide character that does not fit into the row leaves a blank cell, and an
// edit before it may leave that cell where a fresh drawing would not: with wide
// characters blanks are not compared, nor where the cursor is.
for (const [kind, letters] of [["narrow", [..."abcdefg ", "e\u0301"]], ["wide", [..."日本ab"]]]) {
  test(`${kind} characters: the picture is the line, whatever was edited`, async () => {
    const { write, picture } = terminal();
    const shown = [];
    const line = new LineEditor({ show: (text) => shown.push(text), send() {}, interrupt() {} });
    const keys = [...letters, ...letters, LEFT, LEFT, RIGHT, HOME, END, DELETE, "\x7f", "\x17"];
    const seen = (text) => (kind === "wide" ? text.replaceAll(" ", "") : text);
    let seed = 7;
    let kept = [];
    let cursor = 0;
    for (let step = 0; step < 400; step += 1) {
      seed = (seed * 48271) % 2147483647;
      const key = keys[seed % keys.length];
      line.type(key);
      ({ kept, cursor } = model({ kept, cursor }, key));
      await write(shown.splice(0).join(""));
      const after = `after step ${step}, ${JSON.stringify(key)}`;
      assert.equal(seen(picture().text), seen((await draw(kept.join(""))).text), `text ${after}`);
      if (kind === "wide") continue;
      const there = await draw(kept.slice(0, cursor).join(""));
      assert.equal(picture().cursor, there.cursor, `cursor ${after}`);
    }
  });
}

// The same edits on a plain array.
function model({ kept, cursor }, key) {
  const copy = [...kept];
  const cut = (from, count) => (copy.splice(from, count), { kept: copy, cursor: from });
  switch (key) {
    case LEFT: return { kept, cursor: Math.max(0, cursor - 1) };
    case RIGHT: return { kept, cursor: Math.min(kept.length, cursor + 1) };
    case HOME: return { kept, cursor: 0 };
    case END: return { kept, cursor: kept.length };
    case DELETE: return cut(cursor, 1);
    case "\x7f": return cursor === 0 ? { kept, cursor } : cut(cursor - 1, 1);
    case "\x17": {
      let from = cursor;
      while (from > 0 && kept[from - 1] === " ") from -= 1;
      while (from > 0 && kept[from - 1] !== " ") from -= 1;
      return cut(from, cursor - from);
    }
    default:
      copy.splice(cursor, 0, key);
      return { kept: copy, cursor: cursor + 1 };
  }
}

test("output that comes while a line is typed leaves the line whole below it", async () => {
  const { write, picture } = terminal();
  const shown = [];
  const line = new LineEditor({ show: (text) => shown.push(text), send() {}, interrupt() {} });
  line.type("go north ok");
  line.type(LEFT);
  shown.push(line.erase(), "A cat\r\n", line.redraw());
  await write(shown.join(""));
  const { text, cursor } = picture();
  assert.equal(text, "A cat     go north ok");
  assert.equal(cursor, 20);
});
