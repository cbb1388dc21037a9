// The terminal on the page: xterm.js, its colours, its size, its clipboard.
//
// Knows xterm.js and the browser. It does not know telnet or connections.

import { FitAddon } from "@xterm/addon-fit";
import { WebLinksAddon } from "@xterm/addon-web-links";
import { Terminal as Xterm } from "@xterm/xterm";

const DARK = {
  background: "#11151a", foreground: "#d8dee6", cursor: "#8fd0ff", cursorAccent: "#11151a",
  selectionBackground: "#33506b",
  black: "#2b323a", red: "#f0716f", green: "#8ccf7e", yellow: "#e5c76b",
  blue: "#6fb3f2", magenta: "#c792ea", cyan: "#5fd0d0", white: "#d8dee6",
  brightBlack: "#6c7885", brightRed: "#ff9a94", brightGreen: "#a9e69b", brightYellow: "#ffe08a",
  brightBlue: "#9cccff", brightMagenta: "#dcb3f7", brightCyan: "#8eeaea", brightWhite: "#ffffff",
};

const LIGHT = {
  background: "#fdfdfb", foreground: "#20262d", cursor: "#0b63b0", cursorAccent: "#fdfdfb",
  selectionBackground: "#b9d8f5",
  black: "#20262d", red: "#b3261e", green: "#2a6e26", yellow: "#7d5a00",
  blue: "#0b57b0", magenta: "#8a2d9c", cyan: "#00696f", white: "#5d6771",
  brightBlack: "#59636e", brightRed: "#c93c33", brightGreen: "#327d2d", brightYellow: "#8f6900",
  brightBlue: "#1a6bd0", brightMagenta: "#a03bb3", brightCyan: "#007a82", brightWhite: "#20262d",
};

// What a session may leave behind. CAN ends a sequence that was cut off. Then:
// no mouse reports, no bracketed paste, normal cursor keys and keypad, cursor
// visible, soft reset.
const CANCEL = "\x18";
const MAIN_SCREEN = "\x1b[?1049l";
const AFTER_SESSION =
  "\x1b[?9;1000;1002;1003;1004;1005;1006;1015;1016;2004;1l\x1b>\x1b[?25h\x1b[!p";

export class Terminal {
  #xterm;
  #fit = new FitAddon();

  /**
   * Opens in `element`. `on` has `type(text)`, `typeBytes(bytes)`,
   * `resize(columns, rows)`, `title(text)`, `leave()` for the key that moves
   * the focus out, and `select(something)`.
   */
  constructor(element, on) {
    this.#xterm = new Xterm({
      fontFamily: 'ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace',
      fontSize: 14,
      scrollback: 5000,
      cursorBlink: true,
      // Dim or blue text must stay readable on either background (WCAG AA).
      minimumContrastRatio: 4.5,
      // xterm.js warns of writeSync.
      logLevel: "error",
    });
    this.#xterm.loadAddon(this.#fit);
    this.#xterm.loadAddon(new WebLinksAddon());
    this.#xterm.open(element);
    this.#followColours();
    this.#xterm.onData((text) => on.type(text));
    this.#xterm.onBinary((text) => on.typeBytes(Uint8Array.from(text, (c) => c.charCodeAt(0))));
    this.#xterm.onResize(({ cols, rows }) => on.resize(cols, rows));
    this.#xterm.onTitleChange((title) => on.title(title));
    this.#xterm.onSelectionChange(() => on.select(this.#xterm.hasSelection()));
    this.#xterm.attachCustomKeyEventHandler((event) => this.#key(event, on));
    new ResizeObserver(() => requestAnimationFrame(() => this.fit())).observe(element);
  }

  get columns() {
    return this.#xterm.cols;
  }

  get rows() {
    return this.#xterm.rows;
  }

  /**
   * Draws at once. A WebSocket cannot be told to wait; but while we draw, the browser hands out no
   * message and in the end takes none from the network, so that TCP slows a program that writes
   * faster. `write` would draw when there is time, and at 50 MB throw away what comes.
   */
  show(text) {
    // An empty text leaves the queue of callbacks one too long.
    if (text !== "") this.#xterm._core.writeSync(text);
  }

  /** A line of ours between two sessions, with nothing of the last one in force. */
  separate(words) {
    // A close reason comes from outside: it may not act on the terminal.
    const plain = words.replace(/\p{Cc}/gu, " ");
    this.show(CANCEL);
    const { type, cursorX } = this.#xterm.buffer.active;
    // 1049 moves the cursor even where it switches nothing.
    const start = (type === "alternate" ? MAIN_SCREEN : "") + AFTER_SESSION;
    const below = type === "alternate" || cursorX > 0 ? "\r\n" : "";
    this.show(`${start}${below}\x1b[90m${plain}\x1b[0m\r\n`);
  }

  /** Plain line servers end lines with a bare LF: in line mode it is a new line. */
  set lineMode(on) {
    this.#xterm.options.convertEol = on;
  }

  set enabled(on) {
    this.#xterm.options.disableStdin = !on;
    this.#xterm.options.cursorBlink = on;
  }

  set screenReader(on) {
    this.#xterm.options.screenReaderMode = on;
  }

  /** The application wants ESC O A, not ESC [ A, for its arrow keys. */
  get applicationCursorKeys() {
    return this.#xterm.modes.applicationCursorKeysMode;
  }

  /** Takes as many columns and rows as the element has room for. */
  fit() {
    if (this.#xterm.element.offsetParent !== null) this.#fit.fit();
  }

  focus() {
    this.#xterm.focus();
  }

  paste(text) {
    this.#xterm.paste(text);
  }

  /** Copies the selection. Resolves to whether the browser let us. */
  async copy() {
    const text = this.#xterm.getSelection();
    if (text === "") return false;
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // Not a secure context: the old way still works, xterm.js fills the event.
      this.#xterm.focus();
      return document.execCommand("copy");
    }
  }

  #followColours() {
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const choose = () => (this.#xterm.options.theme = dark.matches ? DARK : LIGHT);
    dark.addEventListener("change", choose);
    choose();
  }

  // Keys that are the page's. Returns whether xterm.js shall have the key.
  #key(event, on) {
    // Without a session there is no shell to complete a word: the key goes to the next button.
    if (event.key === "Tab" && this.#xterm.options.disableStdin) return false;
    const copies =
      event.ctrlKey &&
      ((event.shiftKey && event.code === "KeyC") || event.code === "Insert") &&
      this.#xterm.hasSelection();
    // Tab belongs to the shell, so the focus needs another way out (WCAG 2.1.2).
    const leaves = event.ctrlKey && event.code === "F6";
    if (!copies && !leaves) return true;
    event.preventDefault();
    if (event.type !== "keydown") return false;
    if (copies) this.copy();
    else on.leave();
    return false;
  }
}
