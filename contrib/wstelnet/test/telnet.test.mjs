// H4: the telnet protocol by table. Every row is given whole, byte by byte, and
// cut in two at every place: the result may not depend on where frames end.

import assert from "node:assert/strict";
import test from "node:test";
import { Telnet } from "../src/telnet.js";

const NAMES = {
  IAC: 255, DONT: 254, DO: 253, WONT: 252, WILL: 251, SB: 250, GA: 249, AYT: 246, IP: 244,
  DM: 242, NOP: 241, SE: 240,
  BINARY: 0, ECHO: 1, SGA: 3, STATUS: 5, TIMING_MARK: 6, TTYPE: 24, NAWS: 31, LINEMODE: 34,
  NEW_ENVIRON: 39, IS: 0, SEND: 1, NUL: 0, LF: 10, CR: 13,
};

// "IAC DO NAWS 'text' 80" as bytes.
function bytes(source) {
  return Uint8Array.from(
    (source.match(/'[^']*'|\S+/g) ?? []).flatMap((word) => {
      if (word.startsWith("'")) return [...new TextEncoder().encode(word.slice(1, -1))];
      const byte = NAMES[word] ?? Number(word);
      assert.ok(Number.isInteger(byte) && byte < 256, `no such byte: ${word}`);
      return [byte];
    }),
  );
}

const mode = (remoteEcho, characterMode) => ({ type: "mode", remoteEcho, characterMode });

// The first command of a server is answered and followed by our offers.
const OFFERS = "IAC WILL TTYPE IAC WILL NAWS";
const SIZE = "IAC SB NAWS 0 80 0 24 IAC SE";

const ROWS = [
  { name: "plain text", input: "'hello'", data: "'hello'" },
  { name: "UTF-8 passes", input: "'żółw €'", data: "'żółw €'" },
  { name: "IAC IAC is one byte 255", input: "'a' IAC IAC 'b'", data: "'a' 255 'b'" },
  { name: "CR NUL is CR", input: "'a' CR NUL 'b'", data: "'a' CR 'b'" },
  { name: "CR LF stays", input: "'a' CR LF 'b'", data: "'a' CR LF 'b'" },
  { name: "CR CR NUL", input: "CR CR NUL LF", data: "CR CR LF" },
  { name: "a NUL that follows no CR stays", input: "'a' NUL", data: "'a' NUL" },
  { name: "CR before a command", input: "CR IAC NOP 'x'", data: "CR 'x'" },
  {
    name: "commands that ask nothing",
    input: "'a' IAC NOP IAC GA IAC DM IAC AYT IAC SE IAC 239 'b'",
    data: "'ab'",
  },
  {
    name: "ECHO and SGA are agreed to, and switch the mode",
    input: "IAC WILL SGA IAC WILL ECHO 'x' IAC WONT ECHO IAC WONT SGA",
    data: "'x'",
    reply: `IAC DO SGA ${OFFERS} IAC DO ECHO IAC DONT ECHO IAC DONT SGA`,
    events: [mode(false, false), mode(true, true), mode(false, false), mode(false, false)],
  },
  {
    name: "repeating itself gets a server no second answer and no event",
    input: "IAC WILL ECHO IAC WILL ECHO IAC DO SGA IAC DO SGA",
    reply: `IAC DO ECHO ${OFFERS} IAC WILL SGA`,
    events: [mode(true, false)],
  },
  {
    name: "unknown options are refused both ways, each time",
    input: "IAC DO LINEMODE IAC WILL STATUS IAC DO 200 IAC DO 200 IAC DO ECHO",
    reply: `IAC WONT LINEMODE ${OFFERS} IAC DONT STATUS IAC WONT 200 IAC WONT 200 IAC WONT ECHO`,
  },
  {
    name: "a timing mark is refused, which marks the time as well (RFC 860)",
    input: "IAC DO TIMING_MARK",
    reply: `IAC WONT TIMING_MARK ${OFFERS}`,
  },
  {
    name: "unknown options that are off stay off in silence",
    input: "IAC WONT LINEMODE IAC DONT NEW_ENVIRON",
    reply: OFFERS,
  },
  { name: "option 255", input: "IAC DO IAC 'x'", data: "'x'", reply: `IAC WONT 255 ${OFFERS}` },
  {
    name: "NAWS asked for first: agreed, size sent, not offered again",
    input: "IAC DO NAWS",
    reply: `IAC WILL NAWS ${SIZE} IAC WILL TTYPE`,
  },
  {
    name: "NAWS as the answer to our offer: size sent",
    input: "IAC DO 200 IAC DO NAWS",
    reply: `IAC WONT 200 ${OFFERS} ${SIZE}`,
  },
  {
    name: "NAWS refused",
    input: "IAC DO 200 IAC DONT NAWS IAC DONT TTYPE",
    reply: `IAC WONT 200 ${OFFERS}`,
  },
  {
    name: "TERMINAL-TYPE names in turn, the last twice, then anew",
    input: "IAC DO TTYPE" + " IAC SB TTYPE SEND IAC SE".repeat(5),
    reply:
      "IAC WILL TTYPE IAC WILL NAWS" +
      ["xterm-256color", "vt100", "ansi", "ansi", "xterm-256color"]
        .map((name) => ` IAC SB TTYPE IS '${name}' IAC SE`)
        .join(""),
  },
  {
    name: "TERMINAL-TYPE asked for without having been agreed",
    input: "IAC SB TTYPE SEND IAC SE",
  },
  {
    name: "a sub-negotiation that is not a request",
    input: "IAC DO TTYPE IAC SB TTYPE IS 'x' IAC SE IAC SB IAC SE IAC SB NEW_ENVIRON SEND IAC SE 'y'",
    data: "'y'",
    reply: "IAC WILL TTYPE IAC WILL NAWS",
  },
  {
    name: "a doubled IAC inside a sub-negotiation is data, not its end",
    input: "IAC SB 200 'a' IAC IAC 240 'b' IAC SE 'c'",
    data: "'c'",
  },
  {
    name: "a command inside a sub-negotiation ends it",
    input: "IAC DO TTYPE IAC SB TTYPE SEND IAC DO 200 'x'",
    data: "'x'",
    reply: "IAC WILL TTYPE IAC WILL NAWS IAC WONT 200",
  },
  {
    name: "an endless sub-negotiation is dropped to its end",
    input: `IAC DO TTYPE IAC SB TTYPE SEND ${"'x' ".repeat(300)} IAC SE 'after'`,
    data: "'after'",
    reply: "IAC WILL TTYPE IAC WILL NAWS",
  },
  {
    name: "BINARY: CR NUL is two bytes, IAC is doubled still",
    input: "IAC WILL BINARY CR NUL IAC IAC IAC WONT BINARY CR NUL 'x'",
    data: "CR NUL 255 CR 'x'",
    reply: `IAC DO BINARY ${OFFERS} IAC DONT BINARY`,
  },
];

function start() {
  return new Telnet({ terminalTypes: ["xterm-256color", "vt100", "ansi"], columns: 80, rows: 24 });
}

function run(telnet, pieces) {
  const all = { data: [], reply: [], events: [] };
  for (const piece of pieces) {
    const { data, reply, events } = telnet.receive(piece);
    all.data.push(...data);
    all.reply.push(...reply);
    all.events.push(...events);
  }
  return all;
}

for (const { name, input, data = "", reply = "", events = [] } of ROWS) {
  test(name, () => {
    const wire = bytes(input);
    const expected = { data: [...bytes(data)], reply: [...bytes(reply)], events };
    assert.deepEqual(run(start(), [wire]), expected, "whole");
    assert.deepEqual(run(start(), [...wire].map((byte) => [byte])), expected, "byte by byte");
    for (let cut = 1; cut < wire.length; cut += 1) {
      const pieces = [wire.subarray(0, cut), wire.subarray(cut)];
      assert.deepEqual(run(start(), pieces), expected, `cut at ${cut}`);
    }
  });
}

test("a new window size is sent once it is asked for, and when it changed", () => {
  const telnet = start();
  assert.deepEqual(telnet.resize(100, 30), bytes(""));
  const { reply } = telnet.receive(bytes("IAC DO NAWS"));
  assert.deepEqual(reply, bytes("IAC WILL NAWS IAC SB NAWS 0 100 0 30 IAC SE IAC WILL TTYPE"));
  assert.deepEqual(telnet.resize(100, 30), bytes(""));
  assert.deepEqual(telnet.resize(100, 31), bytes("IAC SB NAWS 0 100 0 31 IAC SE"));
  telnet.receive(bytes("IAC DONT NAWS"));
  assert.deepEqual(telnet.resize(80, 24), bytes(""));
});

test("a window size is 16 bits, its bytes of 255 doubled", () => {
  const telnet = start();
  telnet.receive(bytes("IAC DO NAWS"));
  assert.deepEqual(telnet.resize(255, 24), bytes("IAC SB NAWS 0 IAC IAC 0 24 IAC SE"));
  assert.deepEqual(telnet.resize(300, 511), bytes("IAC SB NAWS 1 44 1 IAC IAC IAC SE"));
  assert.deepEqual(
    telnet.resize(70000, -1),
    bytes("IAC SB NAWS IAC IAC IAC IAC 0 0 IAC SE"),
  );
});

test("what is typed: IAC doubled, a lone CR followed by NUL but in binary", () => {
  const telnet = start();
  assert.deepEqual(telnet.encode(bytes("'a' CR 255 CR LF CR")), bytes("'a' CR NUL IAC IAC CR LF CR NUL"));
  telnet.receive(bytes("IAC DO BINARY"));
  assert.deepEqual(telnet.encode(bytes("'a' CR 255 CR LF CR")), bytes("'a' CR IAC IAC CR LF CR"));
});

test("the interrupt key is a telnet command only to a telnet server", () => {
  const telnet = start();
  assert.deepEqual(telnet.interrupt(), bytes(""));
  telnet.receive(bytes("IAC WILL ECHO"));
  assert.deepEqual(telnet.interrupt(), bytes("IAC IP"));
});

test("noise never fails, and is not answered out of proportion", () => {
  const telnet = start();
  // A linear congruential generator: the same bytes in every run.
  let seed = 1;
  for (let round = 0; round < 200; round += 1) {
    const noise = Uint8Array.from({ length: 500 }, () => {
      seed = (seed * 1103515245 + 12345) % 2147483648;
      const byte = seed >> 16;
      return byte % 3 === 0 ? 240 + (byte % 16) : byte;
    });
    const { data, reply } = telnet.receive(noise);
    assert.ok(data.length <= noise.length);
    assert.ok(reply.length <= noise.length * 10);
  }
});

test("a sub-negotiation that never ends is not kept", () => {
  const telnet = start();
  telnet.receive(bytes("IAC SB TTYPE"));
  const piece = new Uint8Array(64 * 1024);
  const before = process.memoryUsage().heapUsed;
  for (let sent = 0; sent < 20_000_000; sent += piece.length) telnet.receive(piece);
  // Kept, each byte would cost eight.
  assert.ok(process.memoryUsage().heapUsed - before < 50_000_000);
});
