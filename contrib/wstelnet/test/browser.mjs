// A headless Chromium for one test file, and what the tests ask of the page.

import assert from "node:assert/strict";
import { existsSync, mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const EXECUTABLE = process.env.CHROMIUM ?? "/usr/bin/chromium";
const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];

/** Where the tests leave their pictures. */
export const PICTURES = process.env.PICTURES ?? mkdtempSync(join(tmpdir(), "wstelnet-"));

/** False if `what` is there; else the reason to skip, which under CI is a failure. */
export function missing(path, what) {
  if (path !== undefined && existsSync(path)) return false;
  assert.notEqual(process.env.CI, "true", `${what} is needed under CI`);
  console.log(`skipped: no ${what}`);
  return `no ${what}`;
}

export const noChromium = missing(EXECUTABLE, "chromium");

/** Starts Chromium; the caller closes it. */
export function launch() {
  console.log(`pictures in ${PICTURES}`);
  return chromium.launch({ executablePath: EXECUTABLE, headless: true, args: FLAGS });
}

/** The terminal's lines as they stand on the screen, without trailing blanks. */
export function screen(page) {
  return page.evaluate(() =>
    [...document.querySelectorAll(".xterm-rows > div")].map((row) =>
      row.textContent.replaceAll("\u00a0", " ").trimEnd(),
    ),
  );
}

/** Waits until a line of the screen matches; resolves to the match of the last such line. */
export async function seen(page, pattern, timeout = 15_000) {
  const deadline = Date.now() + timeout;
  let lines = [];
  while (Date.now() < deadline) {
    lines = await screen(page);
    const line = lines.findLast((text) => pattern.test(text));
    if (line !== undefined) return line.match(pattern);
    // The next frame may have it; xterm.js draws once a frame.
    await page.evaluate(() => new Promise(requestAnimationFrame));
  }
  assert.fail(`${pattern} was not seen in:\n${lines.join("\n")}`);
}

/** Waits for the page's state and, if given, the words shown with it. */
export async function state(page, name, words = /.*/) {
  await page.waitForSelector(`body[data-state="${name}"]`, { timeout: 15_000 });
  const shown = await page.textContent("#words");
  assert.match(shown, words);
  return shown;
}

/** Saves a picture of the page. */
export function picture(page, name) {
  return page.screenshot({ path: join(PICTURES, `${name}.png`) });
}
