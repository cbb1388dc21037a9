// Chromium, without a window.

import assert from "node:assert/strict";
import { mkdirSync, statSync } from "node:fs";
import { chromium } from "playwright-core";
import { CHROMIUM, file } from "./programs.mjs";

/** Starts it; the caller closes it. */
export function launch() {
  return chromium.launch({
    executablePath: CHROMIUM,
    headless: true,
    args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"],
  });
}

/** A new page; what fails in it is printed. */
export async function newPage(browser, options) {
  const page = await browser.newPage(options);
  page.on("pageerror", (error) => console.log(`page: ${error}`));
  return page;
}

/** The README's picture of this name: drawn anew if BLESS is set. */
export async function picture(page, name) {
  if (process.env.BLESS === undefined) return;
  const directory = file("tests/browser/pictures");
  mkdirSync(directory, { recursive: true });
  const path = `${directory}/${name}.png`;
  await page.screenshot({ path, animations: "disabled" });
  assert.ok(statSync(path).size < 100_000, `too large for a README: ${path}`);
}
