// H4, W13: the terminal page in Chromium against Debian's in.telnetd behind websockify.

import assert from "node:assert/strict";
import { test } from "node:test";
import { skipped } from "../../contrib/wstelnet/test/skipped.mjs";
import { seen, state } from "../../contrib/wstelnet/test/shown.mjs";
import { launch, newPage } from "./browser.mjs";
import { CHROMIUM, file, missing, TELNETD, WEBSOCKIFY, WSTELNET } from "./programs.mjs";
import { freePort, Websockify } from "./websockify.mjs";

const LOGIN = file("tests/browser/programs/login.sh");

// telnetd-ssl reads its key before anything else, and Debian keeps that for root.
const skip =
  process.getuid() === 0
    ? missing(CHROMIUM, TELNETD, WEBSOCKIFY)
    : skipped("only root can read the key of in.telnetd");

async function logIn(page) {
  await seen(page, /^login:/, 30_000);
  await page.keyboard.type("jane\n");
  await seen(page, /^Password:/);
  await page.keyboard.type("secret\n");
  await seen(page, /^Welcome, jane \(6 letters\)\.$/);
  await seen(page, /^wst> ?$/);
}

async function sttySize(page, mark) {
  await page.keyboard.type(`echo ${mark} $(stty size)\n`);
  const [, rows, columns] = await seen(page, new RegExp(`^${mark} (\\d+) (\\d+)$`));
  return { rows: Number(rows), columns: Number(columns) };
}

test("h4 log in, stty size, resize, exit, reconnect", { skip }, async (t) => {
  const port = await freePort();
  await Websockify.listening(t, [
    `127.0.0.1:${port}`, "--web", WSTELNET, "--wrap-mode=respawn", "--",
    TELNETD, "-debug", `${port}`, "-L", LOGIN,
  ]);
  const browser = await launch();
  t.after(() => browser.close());
  const page = await newPage(browser, { viewport: { width: 900, height: 600 } });
  await page.goto(`http://127.0.0.1:${port}/wstelnet.html`);
  await page.keyboard.press("Enter");
  await state(page, "open");
  await logIn(page);

  const rows = page.locator(".xterm-rows > div");
  const small = await sttySize(page, "small");
  assert.equal(small.rows, await rows.count());
  await page.setViewportSize({ width: 1200, height: 800 });
  await page.waitForFunction(
    (rows) => document.querySelectorAll(".xterm-rows > div").length > rows,
    small.rows,
  );
  const large = await sttySize(page, "large");
  assert.equal(large.rows, await rows.count());
  assert.ok(large.columns > small.columns, `${large.columns} columns after ${small.columns}`);

  await page.keyboard.type("echo $TERM zażółć €\n");
  await seen(page, /^xterm-256color zażółć €$/);

  await page.keyboard.type("exit\n");
  await state(page, "ended", /session has ended/);
  assert.equal(await page.textContent("#status"), "Session ended");

  await page.keyboard.press("Enter");
  await state(page, "open");
  await logIn(page);
});
