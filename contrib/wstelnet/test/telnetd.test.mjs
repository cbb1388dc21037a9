// H4, W13: the page in Chromium against Debian's in.telnetd behind websockify.
//
// WEBSOCKIFY names the program; else the workspace's own build is taken.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { createServer } from "node:net";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { launch, missing, noChromium, picture, seen, state } from "./browser.mjs";

const TELNETD = "/usr/sbin/in.telnetd";
const DIST = fileURLToPath(new URL("../dist", import.meta.url));
const LOGIN = fileURLToPath(new URL("login.sh", import.meta.url));
const TARGET = process.env.CARGO_TARGET_DIR ?? fileURLToPath(new URL("../../../target", import.meta.url));
const WEBSOCKIFY =
  process.env.WEBSOCKIFY ??
  [`${TARGET}/release/websockify`, `${TARGET}/debug/websockify`].find((path) => existsSync(path));

const skip = noChromium || missing(TELNETD, "in.telnetd") || missing(WEBSOCKIFY, "websockify");

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

// The bridge answers plain requests itself: waiting so starts no session.
async function answers(port, program) {
  const deadline = Date.now() + 20_000;
  for (;;) {
    assert.equal(program.exitCode, null, "websockify has ended");
    try {
      return await fetch(`http://127.0.0.1:${port}/`);
    } catch (error) {
      if (Date.now() > deadline) throw error;
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
}

let websockify;
let ended;
let browser;
let page;

before(async () => {
  if (skip) return;
  const port = await freePort();
  const options = ["--web", DIST, "--wrap-mode=respawn"];
  const program = [TELNETD, "-debug", String(port), "-L", LOGIN];
  websockify = spawn(WEBSOCKIFY, [String(port), ...options, "--", ...program], {
    stdio: ["ignore", "inherit", "inherit"],
  });
  ended = once(websockify, "exit");
  await answers(port, websockify);
  browser = await launch();
  page = await browser.newPage({ viewport: { width: 900, height: 600 } });
  await page.goto(`http://127.0.0.1:${port}/wstelnet.html`);
});

after(async () => {
  await browser?.close();
  websockify?.kill("SIGTERM");
  await ended;
});

async function logIn() {
  await seen(page, /^login:/, 30_000);
  await page.keyboard.type("jane\n");
  await seen(page, /^Password:/);
  await page.keyboard.type("secret\n");
  await seen(page, /^Welcome, jane \(6 letters\)\.$/);
  await seen(page, /^wst> ?$/);
}

async function sttySize(mark) {
  await page.keyboard.type(`echo ${mark} $(stty size)\n`);
  const [, rows, columns] = await seen(page, new RegExp(`^${mark} (\\d+) (\\d+)$`));
  return { rows: Number(rows), columns: Number(columns) };
}

test("log in, stty size, resize, exit, reconnect", { skip }, async () => {
  await page.keyboard.press("Enter");
  await state(page, "open");
  await logIn();

  const small = await sttySize("small");
  assert.equal(small.rows, await page.locator(".xterm-rows > div").count());
  await picture(page, "telnetd");

  await page.setViewportSize({ width: 1200, height: 800 });
  await page.waitForFunction(
    (rows) => document.querySelectorAll(".xterm-rows > div").length > rows,
    small.rows,
  );
  const large = await sttySize("large");
  assert.equal(large.rows, await page.locator(".xterm-rows > div").count());
  assert.ok(large.columns > small.columns, `${large.columns} columns after ${small.columns}`);

  await page.keyboard.type("echo $TERM zażółć €\n");
  await seen(page, /^xterm-256color zażółć €$/);

  await page.keyboard.type("exit\n");
  await state(page, "closed", /session has ended/);
  assert.equal(await page.textContent("#status"), "Disconnected");
  await picture(page, "telnetd-ended");

  await page.keyboard.press("Enter");
  await state(page, "open");
  await logIn();
});
