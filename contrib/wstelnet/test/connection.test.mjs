// H4: the connection's states, its words, and that it never spins for ever.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Connection, RETRY_MS } from "../src/connection.js";
import { closed, look, probe, refused } from "../src/ending.js";
import { parse } from "../src/target.js";
import { stoppedClock } from "./clock.mjs";

const TARGET = parse({ host: "box", port: "2023", path: "websockify", encrypt: false });

class FakeSocket {
  static all = [];
  bufferedAmount = 0;
  sent = [];
  constructor(url, protocols) {
    Object.assign(this, { url, protocols });
    FakeSocket.all.push(this);
  }
  send(bytes) {
    this.sent.push(...bytes);
  }
  close(code) {
    this.closed = code;
  }
}

const noAnswer = () => Promise.reject(new TypeError("Failed to fetch"));
const settled = () => new Promise((resolve) => setImmediate(resolve));

function start(t, { fetch = noAnswer, online = true, WebSocket = FakeSocket } = {}) {
  const { tick } = stoppedClock(t);
  FakeSocket.all = [];
  const states = [];
  const got = { bytes: [], opened: 0 };
  // By default the longest pauses, which are known.
  const chance = { online: () => browser.isOnline, random: () => browser.chance };
  const browser = { WebSocket, fetch, origin: "http://box:2023", isOnline: online, chance: 1, ...chance };
  const connection = new Connection({
    out: {
      state: (state) => states.push(state),
      open: () => (got.opened += 1),
      bytes: (bytes) => got.bytes.push(...bytes),
    },
    browser,
  });
  const last = () => FakeSocket.all.at(-1);
  return { connection, states, got, last, browser, tick, names: () => states.map(({ name }) => name) };
}

// The socket closes after having been open.
function lose(socket, code = 1006, reason = "") {
  socket.onclose({ code, reason });
}

test("connects with the sub-protocol binary and passes bytes", (t) => {
  const { connection, got, last, names } = start(t);
  connection.connect(TARGET);
  assert.equal(last().url, "ws://box:2023/websockify");
  assert.deepEqual(last().protocols, ["binary"]);
  assert.equal(last().binaryType, "arraybuffer");
  connection.send([1]);
  last().onopen({});
  connection.send([2]);
  assert.deepEqual(last().sent, [2]);
  last().onmessage({ data: Uint8Array.from([7, 8]).buffer });
  last().onmessage({ data: "é" });
  assert.deepEqual(got, { bytes: [7, 8, 0xc3, 0xa9], opened: 1 });
  assert.deepEqual(names(), ["connecting", "open"]);
});

test("a session that ended stays ended until the user asks", (t) => {
  const { connection, states, last, tick } = start(t);
  connection.connect(TARGET);
  last().onopen({});
  lose(last(), 1000);
  assert.deepEqual(states.at(-1), { name: "ended", words: "The session has ended." });
  tick(3_600_000);
  connection.hope();
  assert.equal(FakeSocket.all.length, 1);
  connection.reconnect();
  assert.equal(FakeSocket.all.length, 2);
});

test("a lost connection is retried with growing pauses, then given up", async (t) => {
  const { connection, states, last, tick } = start(t);
  connection.connect(TARGET);
  last().onopen({});
  lose(last());
  for (const [index, pause] of RETRY_MS.entries()) {
    const { name, tries, until } = states.at(-1);
    assert.deepEqual({ name, tries, until }, { name: "waiting", tries: index + 1, until: Date.now() + pause });
    assert.equal(states.at(-1).of, RETRY_MS.length);
    tick(pause - 1);
    assert.equal(FakeSocket.all.length, index + 1);
    tick(1);
    assert.equal(FakeSocket.all.length, index + 2);
    assert.deepEqual(states.at(-1), { name: "connecting", tries: index + 1 });
    lose(last());
    await settled();
  }
  assert.equal(states.at(-1).name, "closed");
  assert.match(states.at(-1).words, /Nothing answers at box:2023.*Gave up after 8 attempts/);
  tick(3_600_000);
  assert.equal(FakeSocket.all.length, 1 + RETRY_MS.length);
  // A user who reconnects has all retries ahead.
  connection.reconnect();
  last().onopen({});
  lose(last());
  assert.equal(states.at(-1).tries, 1);
});

test("a target that never worked is not retried by itself, though the one before had", async (t) => {
  const { connection, states, last } = start(t);
  connection.connect(TARGET);
  last().onopen({});
  connection.connect(parse({ host: "other", port: "1", path: "", encrypt: false }));
  lose(last());
  await settled();
  assert.deepEqual(states.at(-1), { name: "closed", words: "Nothing answers at other:1." });
});

test("one that opens and is lost at once, each time, is given up too", (t) => {
  const { connection, states, last, tick } = start(t);
  connection.connect(TARGET);
  last().onopen({});
  lose(last());
  for (const pause of RETRY_MS) {
    tick(pause);
    last().onopen({});
    lose(last());
  }
  assert.equal(states.at(-1).name, "closed");
});

test("F55: a server that was heard starts the count anew, however soon it is lost", (t) => {
  const { connection, states, last, tick } = start(t);
  connection.connect(TARGET);
  last().onopen({});
  last().onmessage({ data: "hello" });
  lose(last());
  for (const pause of RETRY_MS.slice(0, 3)) {
    tick(pause);
    last().onopen({});
    // That websockify answers says nothing of the server behind it.
    if (pause !== RETRY_MS[2]) lose(last());
  }
  assert.equal(states.at(-2).tries, 3);
  last().onmessage({ data: "hello" });
  lose(last());
  assert.equal(states.at(-1).tries, 1);
  assert.equal(states.at(-1).until, Date.now() + RETRY_MS[0]);
});

test("F55: one that is heard and lost at once, each time, is tried ever more seldom", (t) => {
  const { connection, last, tick } = start(t);
  connection.connect(TARGET);
  const began = Date.now();
  for (;;) {
    last().onopen({});
    last().onmessage({ data: "hello" });
    lose(last());
    if (Date.now() - began >= 60_000) break;
    tick(500);
    while (last().closed !== undefined || connection.state.name === "waiting") tick(500);
  }
  assert.ok(FakeSocket.all.length < 30, `${FakeSocket.all.length} attempts in a minute`);
});

test("F55: after giving up it goes on when the page is seen or the network is back", async (t) => {
  const { connection, states, last, tick } = start(t);
  connection.connect(TARGET);
  last().onopen({});
  lose(last());
  for (const pause of RETRY_MS) {
    tick(pause);
    lose(last());
    await settled();
  }
  assert.match(states.at(-1).words, /Gave up after 8 attempts; goes on when you come back/);
  const tried = FakeSocket.all.length;
  connection.hope();
  assert.equal(FakeSocket.all.length, tried + 1);
  assert.deepEqual(states.at(-1), { name: "connecting", tries: 0 });
  lose(last());
  await settled();
  assert.equal(states.at(-1).tries, 1);
  // A pause is cut short, too.
  connection.hope();
  assert.equal(FakeSocket.all.length, tried + 2);
});

test("one that lasted starts the count anew", (t) => {
  const { connection, states, last, tick } = start(t);
  connection.connect(TARGET);
  for (let loss = 0; loss < 10; loss += 1) {
    last().onopen({});
    tick(10_000);
    lose(last());
    assert.equal(states.at(-1).tries, 1);
    tick(RETRY_MS[0]);
  }
});

test("a first attempt that fails is not repeated by itself", async (t) => {
  const { connection, states, last } = start(t);
  connection.connect(TARGET);
  lose(last());
  await settled();
  assert.deepEqual(states.at(-1), { name: "closed", words: "Nothing answers at box:2023." });
});

test("no answer at all ends the attempt", (t) => {
  const { connection, states, last, tick } = start(t);
  connection.connect(TARGET);
  tick(15_000);
  assert.match(states.at(-1).words, /did not answer in time/);
  assert.equal(last().closed, 1000);
});

test("offline it waits without a timer and goes on when online", (t) => {
  const { connection, states, last, browser, tick } = start(t);
  connection.connect(TARGET);
  last().onopen({});
  browser.isOnline = false;
  lose(last());
  const { name, words, until } = states.at(-1);
  assert.deepEqual({ name, words, until }, { name: "waiting", words: "This device is offline.", until: undefined });
  tick(3_600_000);
  assert.equal(FakeSocket.all.length, 1);
  browser.isOnline = true;
  connection.hope();
  assert.equal(FakeSocket.all.length, 2);
});

test("O1: one that goes offline while it waits makes no attempt in vain", (t) => {
  const { connection, states, last, browser, tick } = start(t);
  connection.connect(TARGET);
  last().onopen({});
  lose(last(), 1012);
  browser.isOnline = false;
  tick(3_600_000);
  assert.equal(states.at(-1).words, "This device is offline.");
  assert.equal(FakeSocket.all.length, 1);
  browser.isOnline = true;
  connection.hope();
  assert.equal(FakeSocket.all.length, 2);
});

test("O1: by its code an end is tried again or not", (t) => {
  for (const [code, name] of [
    [1001, "waiting"], [1006, "waiting"], [1012, "waiting"], [1013, "waiting"],
    [1000, "ended"], [1002, "closed"], [1008, "closed"], [1011, "closed"], [4000, "closed"],
  ]) {
    const { connection, states, last, tick } = start(t);
    connection.connect(TARGET);
    last().onopen({});
    lose(last(), code);
    assert.equal(states.at(-1).name, name, `${code}`);
    tick(1000);
    assert.equal(FakeSocket.all.length, name === "waiting" ? 2 : 1, `${code}`);
  }
});

test("O1: pages that lose a server together come again one by one", (t) => {
  const pauses = [0, 0.001, 0.25, 0.5, 0.999999].map((chance) => {
    const { connection, states, last, browser, tick } = start(t);
    browser.chance = chance;
    connection.connect(TARGET);
    last().onopen({});
    lose(last(), 1012);
    const pause = states.at(-1).until - Date.now();
    tick(pause);
    assert.equal(FakeSocket.all.length, 2);
    return pause;
  });
  assert.deepEqual(pauses, [0, 1, 250, 500, 1000]);
});

test("O1: the user stops it while it waits or tries", (t) => {
  const { connection, states, last, tick } = start(t);
  connection.connect(TARGET);
  last().onopen({});
  for (const isTrying of [false, true]) {
    lose(last(), 1001);
    if (isTrying) tick(RETRY_MS[0]);
    connection.disconnect();
    assert.deepEqual(states.at(-1), { name: "ended", words: "You stopped connecting." });
    const tried = FakeSocket.all.length;
    connection.hope();
    tick(3_600_000);
    assert.equal(FakeSocket.all.length, tried);
    connection.reconnect();
    last().onopen({});
  }
});

test("offline this machine is tried all the same", (t) => {
  const { connection, last, browser, tick } = start(t);
  connection.connect(parse({ host: "localhost", port: "2023", path: "", encrypt: false }));
  last().onopen({});
  browser.isOnline = false;
  lose(last());
  tick(1000);
  assert.equal(FakeSocket.all.length, 2);
});

test("what is new to hope for disturbs nothing else", (t) => {
  const { connection, last } = start(t);
  connection.hope();
  connection.connect(TARGET);
  last().onopen({});
  connection.hope();
  assert.equal(FakeSocket.all.length, 1);
});

test("the user disconnects: the socket's own end says nothing more", (t) => {
  const { connection, states, last } = start(t);
  connection.connect(TARGET);
  last().onopen({});
  connection.disconnect();
  assert.equal(last().closed, 1000);
  lose(last(), 1000);
  assert.deepEqual(states.at(-1), { name: "ended", words: "You disconnected." });
  connection.abandon();
  assert.deepEqual(states.at(-1), { name: "idle" });
});

test("where a password is wanted, the user who reconnects is asked for it first", async (t) => {
  const asked = [];
  let answer;
  let dialogue;
  const fetch = (url, { credentials, signal }) => {
    asked.push(credentials);
    if (credentials === "omit") return Promise.resolve({ status: 401 });
    dialogue = signal;
    return new Promise((resolve, reject) => {
      answer = () => resolve({ status: 405 });
      signal.addEventListener("abort", () => reject(signal.reason));
    });
  };
  const { connection, states, last } = start(t, { fetch });
  connection.connect(TARGET);
  lose(last());
  await settled();
  assert.match(states.at(-1).words, /password \(401\)\. Reconnect/);
  // The dialogue is closed when the user disconnects.
  connection.reconnect();
  assert.deepEqual(states.at(-1), { name: "connecting", tries: 0 });
  connection.disconnect();
  assert.ok(dialogue.aborted);
  await settled();
  assert.equal(states.at(-1).name, "ended");
  assert.equal(FakeSocket.all.length, 1);
  connection.reconnect();
  answer();
  await settled();
  assert.equal(FakeSocket.all.length, 2);
  last().onopen({});
  assert.deepEqual(asked, ["omit", "same-origin", "same-origin"]);
  lose(last(), 1000);
  connection.reconnect();
  assert.equal(FakeSocket.all.length, 3, "asked once");
});

test("while the reason is looked for the user may go elsewhere", async (t) => {
  const { connection, states, last } = start(t);
  connection.connect(TARGET);
  lose(last());
  connection.abandon();
  await settled();
  assert.deepEqual(states.at(-1), { name: "idle" });
});

test("a pause is cut short by the user", (t) => {
  const { connection, last, tick } = start(t);
  connection.connect(TARGET);
  last().onopen({});
  lose(last());
  connection.disconnect();
  tick(3_600_000);
  assert.equal(FakeSocket.all.length, 1);
});

test("a server that stops reading is left before the page fills up", (t) => {
  const { connection, states, last } = start(t);
  connection.connect(TARGET);
  last().onopen({});
  last().bufferedAmount = 17 * 1024 * 1024;
  connection.send([1]);
  assert.match(states.at(-1).words, /stopped reading/);
});

test("a browser that refuses the address is quoted", (t) => {
  class Refusing {
    constructor() {
      throw new Error("port 23 is not allowed");
    }
  }
  const { connection, states } = start(t, { WebSocket: Refusing });
  connection.connect(TARGET);
  assert.match(states.at(-1).words, /browser refuses to connect: port 23 is not allowed/);
});

test("close codes in words", () => {
  for (const [code, reason, words, retry, orderly] of [
    [1000, "", "The session has ended.", false, true],
    [1000, "idle for an hour", "The session has ended: idle for an hour.", false, true],
    [1001, "", "box:1 is going away.", true],
    [1006, "", "The connection to box:1 was lost.", true],
    [1011, "connection refused", "box:1 ended the session: connection refused.", false],
    [1011, "", "box:1 ended the session because of an error.", false],
    [1012, "service restart", "box:1 is being started again.", true],
    [1013, "", "box:1 asks to try again later.", true],
    [1002, "bad frame", "box:1 closed the connection with code 1002: bad frame.", false],
  ]) {
    const expected = orderly ? { words, retry, orderly } : { words, retry };
    assert.deepEqual(closed(code, reason, "box:1"), expected);
  }
});

test("F54: what is websockify's target is the server to who reads it", () => {
  for (const [code, reason, words] of [
    [1000, "target closed the connection", "The session has ended: the server closed the connection."],
    [1000, "Target closed", "The session has ended: the server closed."],
    [1011, "target failed: connection reset", "box:1 ended the session: the server failed: connection reset."],
    [1011, "targets are many", "box:1 ended the session: targets are many."],
  ]) {
    assert.equal(closed(code, reason, "box:1").words, words);
  }
});

test("a refusal in words", () => {
  for (const [found, words, retry] of [
    [401, /user name and a password \(401\)/, false],
    [403, /does not admit.*\(403\)/, false],
    [503, /takes no session at present \(503\)/, true],
    [404, /opened no WebSocket at \/websockify \(404\)/, true],
    ["something", /opened no WebSocket at .* may want a password \(401\)/, true],
    [undefined, /^Nothing answers at box:2023\.$/, true],
  ]) {
    const result = refused(found, TARGET);
    assert.match(result.words, words);
    assert.equal(result.retry, retry);
  }
  const secure = parse({ host: "box", port: "1", path: "", encrypt: true });
  assert.match(refused(undefined, secure).words, /certificate/);
});

test("F56: who answers without TLS only is not nobody", async () => {
  const page = "https://box:2023/websockify";
  const answers = (...schemes) => async (url, { mode }) => {
    if (!schemes.some((scheme) => url.startsWith(`${scheme}:`))) throw new TypeError("Failed to fetch");
    return { status: mode === "no-cors" ? 0 : 405 };
  };
  for (const origin of ["http://box:2023", "http://other", "https://box:2023"]) {
    assert.equal(await look(page, { fetch: answers("http"), origin }), "plain");
    assert.equal(await look(page, { fetch: answers(), origin }), undefined);
    assert.notEqual(await look(page, { fetch: answers("http", "https"), origin }), "plain");
  }
  // Where no encryption was asked for, an answer without TLS is not looked for.
  assert.equal(await look(TARGET.page, { fetch: noAnswer, origin: "http://box:2023" }), undefined);
  const secure = parse({ host: "box", port: "1", path: "", encrypt: true });
  assert.match(refused("plain", secure).words, /^Something answers at box:1, but not with TLS/);
  assert.match(refused(undefined, secure).words, /^Nothing answers at box:1 with TLS\./);
});

test("a probe tells its own host's status and hides another's", async () => {
  const asked = [];
  const fetch = async (url, options) => {
    assert.ok(options.signal instanceof AbortSignal, "an answer is not waited for for ever");
    asked.push([options.method, options.mode, options.credentials]);
    return { status: options.mode === "no-cors" ? 0 : 405 };
  };
  const { page } = TARGET;
  assert.equal(await probe(page, { fetch, origin: "http://box:2023" }), 405);
  assert.equal(await probe(page, { fetch, origin: "http://other" }), "something");
  assert.equal(await probe(page, { fetch: noAnswer, origin: "http://other" }), undefined);
  assert.deepEqual(asked, [["OPTIONS", "same-origin", "omit"], [undefined, "no-cors", "omit"]]);
});
