// The page: form, status line, buttons and notices around the terminal.
//
// Knows the elements of wstelnet.html and puts the parts together. What a
// state means is decided in connection.js, what bytes mean in session.js.

import { Connection } from "./connection.js";
import { Session } from "./session.js";
import { fromLink, parse, toLink } from "./target.js";
import { Terminal } from "./terminal.js";

const element = (id) => document.getElementById(id);
const form = element("connect");
const fields = form.elements;

// Escape sequences of the keys that a phone lacks; arrows end in this letter.
const KEYS = { escape: "\x1b", tab: "\t", enter: "\r" };
const ARROWS = { up: "A", down: "B", right: "C", left: "D" };

let session;
let target;
let countdown;
let controlHeld = false;

const terminal = new Terminal(element("terminal"), {
  type: (text) => session?.type(withControl(text)),
  typeBytes: (bytes) => session?.typeBytes(bytes),
  resize: (columns, rows) => session?.resize(columns, rows),
  title: (text) => (document.title = text === "" ? "wstelnet" : `${text} · wstelnet`),
  leave,
  select: (something) => (element("copy").disabled = !something),
});

const connection = new Connection({
  out: {
    state: showState,
    open: begin,
    bytes: (bytes) => session.receive(bytes),
  },
  browser: {
    WebSocket,
    fetch: (...request) => fetch(...request),
    origin: location.origin,
    online: () => navigator.onLine,
    random: () => Math.random(),
  },
});

function begin() {
  terminal.fit();
  session = new Session({
    columns: terminal.columns,
    rows: terminal.rows,
    out: {
      show: (text) => terminal.show(text),
      send: (bytes) => connection.send(bytes),
      mode: showMode,
    },
  });
  terminal.focus();
}

function showMode(mode) {
  terminal.lineMode = mode.line;
  element("mode").textContent = modeWords(mode);
}

function modeWords({ line, hidden, held }) {
  if (held) return "typing is shown once the server speaks";
  if (!line) return "";
  return hidden ? "hidden line" : "line mode";
}

function showState(state) {
  const before = document.body.dataset.state;
  document.body.dataset.state = state.name;
  // The terminal must be visible before it can tell its size.
  form.hidden = state.name !== "idle";
  element("screen").hidden = state.name === "idle";
  element("notice").hidden = state.name === "idle" || state.name === "open";
  element("status").textContent = summary(state);
  element("peer").textContent = state.name === "idle" ? "" : target.name;
  element("reconnect").textContent = state.name === "waiting" ? "Reconnect now" : "Reconnect";
  element("words").textContent = state.words ?? `Connecting to ${target?.name} …`;
  terminal.enabled = state.name === "open";
  if (before === "open") end(state);
  clearInterval(countdown);
  countdown = setInterval(() => showPause(state), 1000);
  showPause(state);
  if (state.name === "ended" || state.name === "closed") element("reconnect").focus();
}

function end(state) {
  session = undefined;
  holdControl(false);
  terminal.separate(`— ${state.words ?? "disconnected"} —`);
  document.title = "wstelnet";
  element("mode").textContent = "";
}

function summary(state) {
  switch (state.name) {
    case "idle":
      return "Not connected";
    case "connecting":
      return state.tries === 0 ? "Connecting" : `Connecting, retry ${state.tries}`;
    case "open":
      return "Connected";
    case "waiting":
      return state.until === undefined ? "Offline" : "Reconnecting";
    case "ended":
      return "Session ended";
    case "closed":
      return "Disconnected";
  }
}

function showPause(state) {
  element("pause").textContent = pause(state);
}

function pause(state) {
  if (state.name !== "waiting") return "";
  if (state.until === undefined) return "It connects again when the network is back.";
  const seconds = Math.max(0, Math.ceil((state.until - Date.now()) / 1000));
  return `Retry ${state.tries} of ${state.of} in ${seconds} s.`;
}

function connect() {
  const values = {
    host: fields.host.value,
    port: fields.port.value,
    path: fields.path.value,
    encrypt: fields.encrypt.checked,
  };
  element("error").textContent = "";
  try {
    target = parse(values);
  } catch (error) {
    element("error").textContent = error.message;
    return;
  }
  const { autoconnect } = fromLink(location);
  // Not by its path alone: "//page" would be another host's.
  const link = new URL(location);
  link.search = toLink({ ...values, autoconnect }, location);
  history.replaceState(null, "", link);
  terminal.screenReader = fields.reader.checked;
  connection.connect(target);
}

// Moves the focus to the most useful of the buttons that are shown now.
function leave() {
  const buttons = ["disconnect", "reconnect", "stop", "another"].map(element);
  buttons.find((button) => button.offsetParent !== null)?.focus();
}

async function paste() {
  try {
    terminal.paste(await navigator.clipboard.readText());
    terminal.focus();
  } catch {
    say("The browser keeps its clipboard from this page: paste with Ctrl+Shift+V or the menu.");
  }
}

async function copy() {
  say((await terminal.copy()) ? "Copied." : "The browser did not let this page copy.");
}

let silence;
function say(words) {
  clearTimeout(silence);
  element("hint").textContent = words;
  silence = setTimeout(() => (element("hint").textContent = ""), 4000);
}

// A phone's keyboard has no Ctrl: the button applies to the next key.
function holdControl(held) {
  controlHeld = held;
  element("control").setAttribute("aria-pressed", String(held));
}

function withControl(text) {
  if (!controlHeld) return text;
  holdControl(false);
  return /^[@-_a-z]$/.test(text) ? String.fromCharCode(text.toUpperCase().charCodeAt(0) & 0x1f) : text;
}

function pressKey({ target: button }) {
  const { key } = button.dataset;
  if (key === undefined) return;
  if (key in ARROWS) {
    session?.type((terminal.applicationCursorKeys ? "\x1bO" : "\x1b[") + ARROWS[key]);
  } else {
    session?.type(KEYS[key]);
  }
  terminal.focus();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  connect();
});
element("reconnect").addEventListener("click", () => connection.reconnect());
element("another").addEventListener("click", () => {
  connection.abandon();
  fields.host.focus();
});
for (const name of ["disconnect", "stop"]) element(name).addEventListener("click", () => connection.disconnect());
element("copy").addEventListener("click", copy);
element("paste").addEventListener("click", paste);
element("keys").addEventListener("click", pressKey);
element("control").addEventListener("click", () => {
  holdControl(!controlHeld);
  terminal.focus();
});
window.addEventListener("online", () => connection.hope());
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") connection.hope();
});
// Ctrl+W takes back a word in a terminal and closes a tab in most browsers: they ask first.
window.addEventListener("beforeunload", (event) => {
  if (connection.state.name === "open") event.preventDefault();
});

const link = fromLink(location);
for (const name of ["host", "port", "path"]) fields[name].value = link[name];
fields.encrypt.checked = link.encrypt;
// Browsers allow no unencrypted WebSocket from an encrypted page.
fields.encrypt.disabled = location.protocol === "https:";
showState(connection.state);
if (link.autoconnect) connect();
else fields.submit.focus();
