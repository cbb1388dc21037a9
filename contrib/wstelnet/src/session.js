// One telnet session: the server's bytes become text, keys become bytes.
//
// Knows which mode of typing the server asked for and that text is UTF-8. It
// knows no socket and no terminal: bytes and text come in and go out by calls.

import { LineEditor } from "./line.js";
import { Telnet } from "./telnet.js";

// The names we give for TERMINAL-TYPE, best first. The best is also the last:
// a server that asks on to the end of the list keeps the last one (RFC 1091).
const TERMINAL_TYPES = ["xterm-256color", "xterm", "vt220", "vt100", "ansi", "xterm-256color"];

const encoder = new TextEncoder();

// What a frame ends with and must not be torn from what follows: a CR, whose LF may be on its way,
// and an escape sequence that is not complete (ECMA-48).
const UNFINISHED = /(?:\r|\x1b(?:\[[0-?]*[ -/]*|[P\]X^_][^\x07\x1b]*\x1b?|[ -/]*))$/;
// A sequence that is longer than this never ends, and means nothing.
const UNFINISHED_LIMIT = 4096;

export class Session {
  #telnet;
  // A stream: a character may be cut by the end of a frame.
  #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  #line;
  #unfinished = "";
  // What typing in line mode would have shown before the server has sent anything. The server may be
  // about to say that typing is not shown: a telnetd looks up the client's name first, while the user
  // types a password already. Undefined once the server has sent something.
  #held = "";
  #out;

  /**
   * `out` has `show(text)` for the terminal, `send(bytes)` for the server, and
   * `mode({ line, hidden, held })`: whole lines are edited here, typing is not shown, or not yet.
   */
  constructor({ columns, rows, out }) {
    this.#telnet = new Telnet({ terminalTypes: TERMINAL_TYPES, columns, rows });
    this.#out = out;
    this.#line = new LineEditor({
      show: (text) => this.#typed(text),
      send: (text) => this.#send(text),
      interrupt: () => this.#sendBytes(this.#telnet.interrupt()),
    });
    out.mode(this.mode);
  }

  /**
   * How typing works now. Without any negotiation: lines, shown as they are typed (RFC 854), from
   * the first thing on that the server says.
   */
  get mode() {
    const { characterMode, remoteEcho } = this.#telnet;
    return { line: !characterMode, hidden: remoteEcho, held: this.#held !== undefined };
  }

  /** Bytes from the server, cut anywhere. */
  receive(bytes) {
    const { data, reply, events } = this.#telnet.receive(bytes);
    this.#sendBytes(reply);
    if (this.#held !== undefined && (data.length > 0 || this.#telnet.remoteEcho)) this.#heard();
    this.#output(this.#decoder.decode(data, { stream: true }));
    if (events.length > 0) this.#switched();
  }

  /** Keys or pasted text from the user. */
  type(text) {
    if (this.mode.line) this.#line.type(text);
    else this.#send(text);
  }

  /** Bytes that are no text: xterm's older mouse reports. */
  typeBytes(bytes) {
    if (!this.mode.line) this.#sendBytes(this.#telnet.encode(bytes));
  }

  /** The window's new size in characters. */
  resize(columns, rows) {
    this.#sendBytes(this.#telnet.resize(columns, rows));
  }

  #typed(text) {
    if (this.#held === undefined) this.#out.show(text);
    else this.#held += text;
  }

  // The server has said something, or that it echoes: what was typed may be shown, or never.
  #heard() {
    if (this.#telnet.remoteEcho) {
      this.#line.hidden = true;
      this.#line.forget();
      this.#held = "";
    }
    this.#out.show(this.#held);
    this.#held = undefined;
    this.#out.mode(this.mode);
  }

  // Output that arrives while a line is being typed goes above that line.
  #output(added) {
    if (added === "") return;
    const text = this.#unfinished + added;
    this.#unfinished = "";
    if (!this.mode.line) return this.#out.show(text);
    const [rest] = text.match(UNFINISHED) ?? [""];
    if (rest.length < UNFINISHED_LIMIT) this.#unfinished = rest;
    const shown = text.slice(0, text.length - this.#unfinished.length);
    if (shown !== "") this.#out.show(this.#line.erase() + shown + this.#line.redraw());
  }

  #switched() {
    const { line, hidden } = this.mode;
    this.#line.hidden = hidden;
    if (!line) this.#send(this.#line.take());
    this.#out.mode(this.mode);
  }

  #send(text) {
    this.#sendBytes(this.#telnet.encode(encoder.encode(text)));
  }

  #sendBytes(bytes) {
    if (bytes.length > 0) this.#out.send(bytes);
  }
}
