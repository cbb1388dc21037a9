// The telnet protocol, client side, without I/O: bytes in, bytes and events out.
//
// Knows RFC 854 (commands), 855 (options), 856 BINARY, 857 ECHO, 858 SGA,
// 1073 NAWS, 1091 TERMINAL-TYPE; option states are RFC 1143 (option.js).
// It does not know sockets, the page, or what a character is.

import { Option } from "./option.js";

const IAC = 255;
const DONT = 254;
const DO = 253;
const WONT = 252;
const WILL = 251;
const SB = 250;
const IP = 244;
const SE = 240;

const BINARY = 0;
const ECHO = 1;
const SGA = 3;
const TERMINAL_TYPE = 24;
const NAWS = 31;

const IS = 0;
const SEND = 1;

const NUL = 0;
const LF = 10;
const CR = 13;

// What we let the server do, and what we do when it asks. All else is refused.
const THEIRS = [BINARY, ECHO, SGA];
const OURS = [BINARY, SGA, TERMINAL_TYPE, NAWS];
// What we offer by ourselves once the server has shown that it speaks telnet.
const OFFERED = [TERMINAL_TYPE, NAWS];

// A sub-negotiation that we understand is two bytes long; a longer one than
// this is read to its end and dropped.
const SUBNEGOTIATION_LIMIT = 256;

/** One telnet connection. */
export class Telnet {
  #ours = new Map(OURS.map((code) => [code, new Option()]));
  #theirs = new Map(THEIRS.map((code) => [code, new Option()]));
  // "data" | "cr" | "command" | "negotiation" | "sub" | "sub-command"
  #state = "data";
  #verb = 0;
  #sub = [];
  #types;
  #nextType = 0;
  #size;
  #speaksTelnet = false;

  // What the bytes given to `receive` have become: `#length` bytes of `#data`, a reply, and events.
  #data = new Uint8Array();
  #length = 0;
  #reply = [];
  #events = [];

  /**
   * `terminalTypes` are the names to answer TERMINAL-TYPE with, best first;
   * `columns` and `rows` the size of the window in characters.
   */
  constructor({ terminalTypes, columns, rows }) {
    this.#types = terminalTypes;
    this.#size = windowSize(columns, rows);
  }

  /** The server echoes what is typed. */
  get remoteEcho() {
    return this.#theirs.get(ECHO).enabled;
  }

  /**
   * Keys go out one by one, else whole lines. RFC 858, section 6: that takes ECHO and SGA both.
   * SGA alone comes from line servers that send no GA.
   */
  get characterMode() {
    return this.#theirs.get(SGA).enabled && this.remoteEcho;
  }

  /**
   * Takes the server's bytes, cut anywhere. Returns `data` to be shown, `reply`
   * to be sent back, and `events`: `{ type: "mode", remoteEcho, characterMode }`
   * each time one of the two changed.
   */
  receive(bytes) {
    // No byte of telnet stands for more than one byte of data.
    this.#data = new Uint8Array(bytes.length);
    this.#length = 0;
    this.#events = [];
    for (let index = 0; index < bytes.length; index += 1) this.#byte(bytes[index]);
    return {
      data: this.#data.subarray(0, this.#length),
      reply: this.#takeReply(),
      events: this.#events,
    };
  }

  /** The window has a new size, in characters. Returns what must be sent. */
  resize(columns, rows) {
    const size = windowSize(columns, rows);
    const changed = size.some((byte, index) => byte !== this.#size[index]);
    this.#size = size;
    if (changed && this.#ours.get(NAWS).enabled) this.#sendSize();
    return this.#takeReply();
  }

  /**
   * What was typed, as it goes on the wire. RFC 854: a CR that is not part of
   * a CR LF is followed by NUL; RFC 856: not so in binary. IAC is doubled always.
   */
  encode(bytes) {
    const binary = this.#ours.get(BINARY).enabled;
    const wire = [];
    bytes.forEach((byte, index) => {
      wire.push(byte);
      if (byte === IAC) wire.push(IAC);
      if (byte === CR && bytes[index + 1] !== LF && !binary) wire.push(NUL);
    });
    return Uint8Array.from(wire);
  }

  /** The interrupt key in line mode. Nothing for a server that showed no telnet: it would print it. */
  interrupt() {
    return Uint8Array.from(this.#speaksTelnet ? [IAC, IP] : []);
  }

  #byte(byte) {
    switch (this.#state) {
      case "cr":
        this.#state = "data";
        // RFC 854: CR NUL is a bare carriage return.
        if (byte === NUL) return;
        return this.#dataByte(byte);
      case "data":
        return this.#dataByte(byte);
      case "command":
        return this.#command(byte);
      case "negotiation":
        this.#state = "data";
        return this.#negotiate(this.#verb, byte);
      case "sub":
        if (byte === IAC) this.#state = "sub-command";
        else this.#subByte(byte);
        return;
      case "sub-command":
        return this.#subCommand(byte);
    }
  }

  #dataByte(byte) {
    if (byte === IAC) {
      this.#state = "command";
      return;
    }
    this.#data[this.#length++] = byte;
    if (byte === CR && !this.#theirs.get(BINARY).enabled) this.#state = "cr";
  }

  #command(byte) {
    this.#state = "data";
    switch (byte) {
      case IAC:
        this.#data[this.#length++] = IAC;
        return;
      case DO:
      case DONT:
      case WILL:
      case WONT:
        this.#verb = byte;
        this.#state = "negotiation";
        return;
      case SB:
        this.#sub = [];
        this.#state = "sub";
        return;
      default:
        // NOP, DM, GA, AYT … ask nothing of a client that is always ready.
        return;
    }
  }

  #negotiate(verb, code) {
    const theirs = verb === WILL || verb === WONT;
    const on = verb === WILL || verb === DO;
    const option = (theirs ? this.#theirs : this.#ours).get(code);
    if (option === undefined) {
      if (on) this.#send(theirs ? DONT : WONT, code);
    } else {
      const was = option.enabled;
      this.#answer(theirs, code, option.receive(on));
      if (option.enabled !== was) this.#switched(theirs, code, option.enabled);
    }
    this.#offer();
  }

  // A server that waits for the client's offers gets them; one that never
  // negotiates is no telnet server and gets none.
  #offer() {
    if (this.#speaksTelnet) return;
    this.#speaksTelnet = true;
    for (const code of OFFERED) {
      this.#answer(false, code, this.#ours.get(code).request(true));
    }
  }

  #answer(theirs, code, on) {
    if (on === undefined) return;
    if (theirs) this.#send(on ? DO : DONT, code);
    else this.#send(on ? WILL : WONT, code);
  }

  #switched(theirs, code, on) {
    if (theirs && (code === ECHO || code === SGA)) {
      const { remoteEcho, characterMode } = this;
      this.#events.push({ type: "mode", remoteEcho, characterMode });
    } else if (!theirs && code === NAWS && on) {
      this.#sendSize();
    }
  }

  #subByte(byte) {
    // One byte past the limit marks it as too long.
    if (this.#sub.length <= SUBNEGOTIATION_LIMIT) this.#sub.push(byte);
  }

  #subCommand(byte) {
    switch (byte) {
      case IAC:
        this.#state = "sub";
        return this.#subByte(IAC);
      case SE:
        this.#state = "data";
        if (this.#sub.length <= SUBNEGOTIATION_LIMIT) this.#subnegotiate(this.#sub);
        this.#sub = [];
        return;
      default:
        // The SE was lost: any other command ends the sub-negotiation unused.
        this.#sub = [];
        return this.#command(byte);
    }
  }

  #subnegotiate([code, request]) {
    if (code !== TERMINAL_TYPE || request !== SEND) return;
    if (!this.#ours.get(TERMINAL_TYPE).enabled) return;
    const name = new TextEncoder().encode(this.#terminalType());
    this.#send(SB, TERMINAL_TYPE, IS, ...name);
    this.#send(SE);
  }

  // RFC 1091: each request gets the next name, the last one twice to say that
  // it is the last, then the list begins anew.
  #terminalType() {
    const name = this.#types[Math.min(this.#nextType, this.#types.length - 1)];
    this.#nextType = (this.#nextType + 1) % (this.#types.length + 1);
    return name;
  }

  #sendSize() {
    // RFC 1073: a size byte of 255 is doubled like any other.
    this.#send(SB, NAWS, ...this.#size.flatMap((byte) => (byte === IAC ? [IAC, IAC] : [byte])));
    this.#send(SE);
  }

  #send(...command) {
    this.#reply.push(IAC, ...command);
  }

  #takeReply() {
    const reply = Uint8Array.from(this.#reply);
    this.#reply = [];
    return reply;
  }
}

// Width and height, 16 bits each, high byte first.
function windowSize(columns, rows) {
  return [columns, rows].flatMap((cells) => {
    const bounded = Math.max(0, Math.min(cells, 0xffff));
    return [bounded >> 8, bounded & 0xff];
  });
}
