// The line that is being typed in line mode, and its picture on the terminal.
//
// Knows editing keys as xterm sends them, and how wide characters are. It does
// not know telnet: a finished line is text, an interrupt a call.

const HISTORY_LIMIT = 100;

// DECSET 45: a backspace at the left margin goes back over a soft line wrap,
// so a line that is longer than the window can be edited.
const REVERSE_WRAP_ON = "\x1b[?45h";
const REVERSE_WRAP_OFF = "\x1b[?45l";
// The blank first: erasing from the left margin would make xterm.js forget that
// the row is a soft wrap of the one above.
const ERASE_BELOW = ` \x1b[J${REVERSE_WRAP_ON}\b${REVERSE_WRAP_OFF}`;

// A key's escape sequence, or the terminal's answer to a question of the server's, as ECMA-48 has
// them; else one control character, or text.
const KEYS =
  /\x1b\[[0-?]*[ -/]*[@-~]|\x1bO[@-~]|\x1b[P\]][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[ -~]?|[\x00-\x1f\x7f]|[^\x00-\x1f\x7f]+/gu;
const CONTROL = /^[\x00-\x1f\x7f]/;

// As xterm.js counts cells: Unicode 6, code point by code point.
const ZERO_WIDTH = /[\p{Mn}\p{Me}\p{Cf}]/u;
const WIDE =
  /[\u1100-\u115f\u2329\u232a\u2e80-\u303e\u3040-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{20000}-\u{3fffd}]/u;

const segmenter = new Intl.Segmenter(undefined, { granularity: "grapheme" });
// V8 copies all of the text into each of its segments, so that a long text is cut into pieces first.
const PIECE = 256;

/** Edits one line at a time; what was shown and sent comes out of the three calls given. */
export class LineEditor {
  #out;
  #before = [];
  #after = [];
  #history = [];
  #recalled = 0;
  #hidden = false;

  /** `out` has `show(text)` for the terminal, `send(text)` for a line or key, and `interrupt()`. */
  constructor(out) {
    this.#out = out;
  }

  /** Hidden input, a password, is not shown and not remembered. */
  set hidden(hidden) {
    const pending = this.erase();
    this.#hidden = hidden;
    this.#out.show(pending + this.redraw());
  }

  /** What was typed shall not be recalled. */
  forget() {
    this.#history = [];
    this.#recalled = 0;
  }

  /** Takes what the keyboard or a paste produced. */
  type(input) {
    for (const [key] of input.matchAll(KEYS)) this.#key(key);
  }

  /** Text for the terminal that takes the unfinished line away, so that output may come in between. */
  erase() {
    if (this.#hidden || this.#line() === "") return "";
    return back(this.#before) + ERASE_BELOW;
  }

  /** Text for the terminal that draws the unfinished line again. */
  redraw() {
    if (this.#hidden) return "";
    return shown(this.#before) + shown(this.#after) + back(this.#after);
  }

  /** Gives up the unfinished line as it stands, because keys now go out one by one. */
  take() {
    const line = this.#line();
    this.#replace([]);
    return line;
  }

  #key(key) {
    switch (key) {
      case "\r":
        return this.#enter();
      case "\x7f":
      case "\b":
        return this.#delete(1);
      case "\x1b[3~":
        return this.#move(1) && this.#delete(1);
      case "\x17":
        return this.#delete(this.#wordLength());
      case "\x15":
        return this.#delete(this.#before.length);
      case "\x1b[D":
      case "\x1bOD":
        return this.#move(-1);
      case "\x1b[C":
      case "\x1bOC":
        return this.#move(1);
      case "\x1b[H":
      case "\x1bOH":
      case "\x01":
        return this.#move(-this.#before.length);
      case "\x1b[F":
      case "\x1bOF":
      case "\x05":
        return this.#move(this.#after.length);
      case "\x1b[A":
      case "\x1bOA":
        return this.#recall(-1);
      case "\x1b[B":
      case "\x1bOB":
        return this.#recall(1);
      case "\x03":
        return this.#interrupt();
      case "\t":
        return this.#insert(key);
      default:
        if (key.startsWith("\x1b")) return;
        if (CONTROL.test(key)) return this.#out.send(key);
        return this.#insert(key);
    }
  }

  #insert(text) {
    const added = graphemes(text);
    this.#before = this.#before.concat(added);
    this.#show(shown(added) + shown(this.#after) + back(this.#after));
  }

  #delete(count) {
    const gone = this.#before.splice(Math.max(0, this.#before.length - count));
    if (gone.length === 0) return;
    this.#show(back(gone) + ERASE_BELOW + shown(this.#after) + back(this.#after));
  }

  // Returns whether the cursor moved.
  #move(count) {
    const passed =
      count < 0 ? this.#before.splice(this.#before.length + count) : this.#after.splice(0, count);
    if (passed.length === 0) return false;
    if (count < 0) {
      this.#after = passed.concat(this.#after);
      this.#show(back(passed));
    } else {
      this.#before = this.#before.concat(passed);
      this.#show(shown(passed));
    }
    return true;
  }

  #wordLength() {
    // One letter for each grapheme: a grapheme of more than one letter would count twice.
    const pattern = this.#before.map((grapheme) => (grapheme.trim() === "" ? " " : "x")).join("");
    return pattern.match(/x* *$/)[0].length;
  }

  #enter() {
    const line = this.#line();
    this.#show(shown(this.#after) + "\r\n");
    this.#replace([]);
    if (!this.#hidden && line !== "" && line !== this.#history.at(-1)) {
      this.#history.push(line);
      if (this.#history.length > HISTORY_LIMIT) this.#history.shift();
    }
    this.#recalled = this.#history.length;
    this.#out.send(`${line}\r\n`);
  }

  #interrupt() {
    this.#show(shown(this.#after) + "^C\r\n");
    this.#replace([]);
    this.#out.interrupt();
  }

  #recall(step) {
    const next = this.#recalled + step;
    if (this.#hidden || next < 0 || next > this.#history.length) return;
    this.#recalled = next;
    const erased = this.erase();
    this.#replace(graphemes(this.#history[next] ?? ""));
    this.#show(erased + this.redraw());
  }

  #line() {
    return [...this.#before, ...this.#after].join("");
  }

  #replace(before) {
    this.#before = before;
    this.#after = [];
  }

  #show(text) {
    if (!this.#hidden) this.#out.show(text);
  }
}

function graphemes(text) {
  const found = [];
  let last = "";
  for (let at = 0; at < text.length; at += PIECE) {
    const piece = last + text.slice(at, at + PIECE);
    for (const { segment } of segmenter.segment(piece)) found.push(segment);
    // The last grapheme may go on in the next piece.
    last = at + PIECE < text.length ? found.pop() : "";
  }
  return found;
}

// A tab in the line is drawn as one cell, so that its width is known.
function shown(text) {
  return text.join("").replaceAll("\t", " ");
}

function back(text) {
  const cells = [...text.join("")].reduce((sum, character) => sum + width(character), 0);
  return cells === 0 ? "" : REVERSE_WRAP_ON + "\b".repeat(cells) + REVERSE_WRAP_OFF;
}

function width(character) {
  if (ZERO_WIDTH.test(character)) return 0;
  return WIDE.test(character) ? 2 : 1;
}
