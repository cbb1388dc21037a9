// W13, H1, S1, T1: Debian's noVNC, served by the websockify that wraps a vncserver, plain and by TLS:
// what a person does there, and the recording of it.

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { launch, newPage, picture } from "./browser.mjs";
import { selfSigned } from "./certificate.mjs";
import { Desktop } from "./desktop.mjs";
import { drawn, recorded, replay } from "./novnc.mjs";
import {
  CHROMIUM, missing, NOVNC, OPENSSL, VNCSERVER, WEBSOCKIFY, XDPYINFO, XTERM, XVNC,
} from "./programs.mjs";
import { waitFor } from "./websockify.mjs";

// The desktop's one window fills it.
const SIZE = [800, 512];
const WELCOME = `
This desktop is a vncserver, started by websockify, which moved its port
to loopback, opened the public one itself, and serves noVNC beside it.

    browser ---WebSocket---> websockify ---TCP---> vncserver

`;
const skip = missing(CHROMIUM, NOVNC, OPENSSL, VNCSERVER, WEBSOCKIFY, XDPYINFO, XTERM, XVNC);

test("W13: noVNC and a wrapped vncserver under ignore", { skip }, async (t) => {
  const desktop = await Desktop.start(t, SIZE, ({ directory }) => {
    const { cert, key } = selfSigned(directory, "127.0.0.1");
    return [`--cert=${cert}`, `--key=${key}`];
  });
  const browser = await launch();
  t.after(() => browser.close());
  for (const [index, scheme] of ["http", "https"].entries()) {
    await t.test(scheme, () => visit(browser, desktop, scheme, index + 1));
  }
  await t.test("the daemon is left running", async () => {
    assert.equal(await desktop.websockify.stop(), 0);
    assert.match(desktop.websockify.log, /left running: .*\(Xtigervnc\)/);
    assert.ok(desktop.websockify.processes().some(({ name }) => name === "Xtigervnc"));
  });
});

async function visit(browser, desktop, scheme, session) {
  const origin = `${scheme}://127.0.0.1:${desktop.port}`;
  const [width, height] = SIZE;
  const page = await newPage(browser, { viewport: { width, height }, ignoreHTTPSErrors: true });
  const socket = page.waitForEvent("websocket");
  await page.goto(`${origin}/vnc.html?autoconnect=true&resize=remote`);
  assert.match((await socket).url(), scheme === "https" ? /^wss:/ : /^ws:/);
  await drawn(page, SIZE);
  // noVNC puts its bar away by itself.
  await page.waitForSelector("#noVNC_control_bar:not(.noVNC_open)");

  await resizes(page, desktop, [920, 640]);
  await resizes(page, desktop, SIZE);
  await copies(page, desktop, `copied-${scheme}`);
  await pastes(page, desktop, `pasted-${scheme}`);
  await types(page, desktop, `typed-${scheme}`);
  await shows(page, desktop, scheme);
  await toggleBar(page);
  const seen = await drawn(page, SIZE);
  await picture(page, "novnc");
  await page.close();
  await desktop.websockify.said(new RegExp(`session ended: ${session},`));
  const again = await replay(browser, origin, await recorded(desktop.recording(session)));
  assert.equal(await drawn(again, SIZE), seen, "the recording, drawn again");
  await again.close();
}

// The remote display follows the window. It is asked before the page, because noVNC shows only a part of a larger display.
async function resizes(page, desktop, size) {
  await page.setViewportSize({ width: size[0], height: size[1] });
  await waitFor(() => `${size}: ${desktop.size()}`, () => `${desktop.size()}` === `${size}`);
  await drawn(page, size);
}

// Keys reach the shell, with Shift and without.
async function types(page, desktop, name) {
  const text = "Zwei Zeilen, two lines\n~#1: {a,b} | \"c\"\n";
  await page.keyboard.type(`cat > ${name}\n`);
  await page.keyboard.type(text);
  await page.keyboard.press("Control+d");
  await desktop.written(name, text);
}

// What the picture is to show: what a visitor looks at, and nothing of the machine.
async function shows(page, desktop, scheme) {
  writeFileSync(join(desktop.directory, "welcome"), WELCOME);
  // What is typed before the shell has cleared its window would be gone from the picture.
  await page.keyboard.type(`clear; cat welcome; : > cleared-${scheme}\n`);
  await desktop.written(`cleared-${scheme}`, "");
  const line = "Typed in the browser, run on the desktop.";
  await page.keyboard.type(`echo "${line}" | tee ${scheme}.txt\n`);
  await desktop.written(`${scheme}.txt`, `${line}\n`);
}

// What is put into noVNC's clipboard can be pasted on the desktop.
async function pastes(page, desktop, name) {
  const text = `żółw € ${name}`;
  await clipboard(page, async (field) => {
    await field.click();
    await page.keyboard.press("Control+a");
    await page.keyboard.insertText(text);
  });
  // `head` ends with the last byte of the paste: a key to end it could overtake the paste.
  const length = Buffer.byteLength(text);
  await page.keyboard.type(`stty -icanon; head -c ${length} > .${name}; stty icanon; mv .${name} ${name}\n`);
  await page.keyboard.press("Shift+Insert");
  await desktop.written(name, text);
}

// What is selected on the desktop is in noVNC's clipboard.
async function copies(page, desktop, word) {
  // Keys go where the pointer is: there is no window manager. A click would make the next one a double one.
  await page.mouse.move(200, 200);
  await page.keyboard.type(`clear; yes ${word} | head -20; : > ${word}\n`);
  await desktop.written(word, "");
  await page.mouse.move(78, 100);
  await page.mouse.down();
  await page.mouse.move(400, 100, { steps: 5 });
  await page.mouse.up();
  const field = page.locator("#noVNC_clipboard_text");
  await waitFor(`${word} in the clipboard`, async () => (await field.inputValue()).trim() === word);
}

// With noVNC's panel open, as a person opens it.
async function clipboard(page, deed) {
  await toggleBar(page);
  await page.click("#noVNC_clipboard_button");
  await deed(page.locator("#noVNC_clipboard_text"));
  await page.click("#noVNC_clipboard_button");
  await toggleBar(page);
}

// Opens noVNC's bar, or puts it away.
async function toggleBar(page) {
  const handle = page.locator("#noVNC_control_bar_handle");
  const open = await page.isVisible("#noVNC_control_bar.noVNC_open");
  // Its left part lies under the open bar.
  await handle.click({ position: { x: (await handle.boundingBox()).width - 5, y: 10 } });
  await page.waitForSelector(`#noVNC_control_bar${open ? ":not(.noVNC_open)" : ".noVNC_open"}`);
}
