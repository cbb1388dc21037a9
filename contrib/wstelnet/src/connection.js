// The WebSocket: its state, and how often it is tried again.
//
// Knows the browser's WebSocket, timers, and whether the device is online. It
// does not know telnet or the page: bytes and states come out by calls.
//
// The states, each an object that a page can show:
//   { name: "idle" }
//   { name: "connecting", tries }               tries counts the retries since all was well
//   { name: "open" }
//   { name: "waiting", words, tries, of, until }   of: how many retries; until: ms since 1970, undefined: until online
//   { name: "ended", words }                    without a failure: by the server or the user
//   { name: "closed", words, gaveUp }           by a failure; gaveUp: after all retries, and there may be more

import { closed, look, logIn, refused } from "./ending.js";

/**
 * The longest pause before each retry. Its real length is random, so that the pages of a server that is started again
 * do not all connect at once. When all retries are used up, after a minute or two, the user decides.
 */
export const RETRY_MS = [1000, 2000, 4000, 8000, 16000, 30_000, 30_000, 30_000];

// The count of retries starts anew once the server has sent something, or the connection has lasted this
// long; but not twice in this time, so that a server that greets and is lost at once, each time, is tried
// ever more seldom.
const STABLE_MS = 10_000;
const CONNECT_MS = 15_000;
// The server does not read: what is typed or pasted must not pile up for ever.
const UNSENT_LIMIT = 16 * 1024 * 1024;

export class Connection {
  #out;
  #browser;
  #target;
  #socket;
  #opened = false;
  // The target has once been reached: worth trying again by itself. An address
  // that never worked may be wrong, so that is left to the user.
  #proven = false;
  // What the target answered when it was last asked why it refused.
  #found;
  #login;
  #tries = 0;
  // From when on the count may start anew, in ms since 1970.
  #renewable = 0;
  #timer;
  #state = { name: "idle" };

  /**
   * `out` has `state(state)`, `open()` and `bytes(bytes)`. `browser` has
   * `WebSocket`, `fetch`, `origin`, `online()` and `random()`, the page's own or a test's.
   */
  constructor({ out, browser }) {
    this.#out = out;
    this.#browser = browser;
  }

  get state() {
    return this.#state;
  }

  /** Connects to a `parse`d target; drops the connection there was. */
  connect(target) {
    this.#target = target;
    this.#proven = false;
    this.#found = undefined;
    this.reconnect();
  }

  /** Tries the same target now, with the full number of retries ahead; logs in first where that was wanted. */
  async reconnect() {
    this.#tries = 0;
    if (this.#found === 401) {
      this.#drop();
      const login = new AbortController();
      this.#login = login;
      this.#become({ name: "connecting", tries: 0 });
      await logIn(this.#target.page, this.#browser, login.signal);
      if (login.signal.aborted) return;
    }
    this.#attempt();
  }

  /** The user wants no connection and no further attempt. */
  disconnect() {
    this.#drop();
    const words = this.#state.name === "open" ? "You disconnected." : "You stopped connecting.";
    this.#become({ name: "ended", words });
  }

  /** Back to the beginning: the user chooses another target. */
  abandon() {
    this.#drop();
    this.#become({ name: "idle" });
  }

  /** Sends bytes; nothing if not connected. */
  send(bytes) {
    if (this.#state.name !== "open") return;
    if (this.#socket.bufferedAmount > UNSENT_LIMIT) {
      this.#drop();
      this.#become({ name: "closed", words: `${this.#target.name} has stopped reading.` });
      return;
    }
    this.#socket.send(bytes);
  }

  /** The device is online again, or somebody looks at the page again: no reason to wait on. */
  hope() {
    if (this.#state.name === "waiting" || this.#state.gaveUp) this.reconnect();
  }

  #attempt() {
    this.#drop();
    this.#found = undefined;
    this.#become({ name: "connecting", tries: this.#tries });
    let socket;
    try {
      socket = new this.#browser.WebSocket(this.#target.url, ["binary"]);
    } catch (error) {
      // A port that browsers refuse, or ws: from an https page.
      this.#become({ name: "closed", words: `The browser refuses to connect: ${error.message}` });
      return;
    }
    this.#socket = socket;
    this.#opened = false;
    socket.binaryType = "arraybuffer";
    // Events of a socket that was dropped are ignored.
    const current = (deed) => (event) => this.#socket === socket && deed(event);
    socket.onopen = current(() => this.#open());
    socket.onmessage = current(({ data }) => {
      if (this.#tries > 0 && Date.now() >= this.#renewable) this.#startAnew();
      this.#out.bytes(toBytes(data));
    });
    socket.onclose = current(({ code, reason }) => this.#ended(code, reason));
    this.#timer = setTimeout(() => {
      this.#drop();
      this.#again({ words: `${this.#target.name} did not answer in time.`, retry: true });
    }, CONNECT_MS);
  }

  #open() {
    clearTimeout(this.#timer);
    this.#opened = true;
    this.#proven = true;
    this.#timer = setTimeout(() => this.#startAnew(), STABLE_MS);
    this.#become({ name: "open" });
    this.#out.open();
  }

  #startAnew() {
    this.#tries = 0;
    this.#renewable = Date.now() + STABLE_MS;
  }

  async #ended(code, reason) {
    clearTimeout(this.#timer);
    if (this.#opened) {
      this.#socket = undefined;
      this.#again(closed(code, reason, this.#target.name));
      return;
    }
    const socket = this.#socket;
    const found = await look(this.#target.page, this.#browser);
    // Meanwhile the user may have disconnected or asked for another target.
    if (this.#socket !== socket) return;
    this.#socket = undefined;
    this.#found = found;
    this.#again(refused(found, this.#target));
  }

  #again({ words, retry, orderly }) {
    if (orderly) return this.#become({ name: "ended", words });
    const wanted = retry && this.#proven;
    if (wanted && this.#isOffline()) {
      this.#awaitNetwork();
    } else if (wanted && this.#tries < RETRY_MS.length) {
      const pause = Math.ceil(this.#browser.random() * RETRY_MS[this.#tries]);
      this.#tries += 1;
      // The network may be gone by then.
      this.#timer = setTimeout(() => (this.#isOffline() ? this.#awaitNetwork() : this.#attempt()), pause);
      this.#become({ name: "waiting", words, tries: this.#tries, of: RETRY_MS.length, until: Date.now() + pause });
    } else {
      const further = `Gave up after ${this.#tries} attempts; goes on when you come back to this page.`;
      this.#become(wanted ? { name: "closed", words: `${words} ${further}`, gaveUp: true } : { name: "closed", words });
    }
  }

  #isOffline() {
    return !this.#target.near && !this.#browser.online();
  }

  #awaitNetwork() {
    this.#become({ name: "waiting", words: "This device is offline.", tries: this.#tries, of: RETRY_MS.length });
  }

  #drop() {
    clearTimeout(this.#timer);
    this.#login?.abort();
    const socket = this.#socket;
    this.#socket = undefined;
    socket?.close(1000);
  }

  #become(state) {
    this.#state = state;
    this.#out.state(state);
  }
}

// A server without our sub-protocol may send text.
function toBytes(data) {
  return typeof data === "string" ? new TextEncoder().encode(data) : new Uint8Array(data);
}
