// A headless Chromium for one test file.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { chromium } from "playwright-core";
import { skipped } from "./skipped.mjs";

const EXECUTABLE = process.env.CHROMIUM ?? "/usr/bin/chromium";
const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];

/** False if `what` is there; else the reason to skip, which under CI is a failure. */
export function missing(path, what) {
  if (path !== undefined && existsSync(path)) return false;
  assert.notEqual(process.env.CI, "true", `${what} is needed under CI`);
  return skipped(`not installed: ${what}`);
}

export const noChromium = missing(EXECUTABLE, "chromium");

/** Starts Chromium; the caller closes it. */
export function launch() {
  return chromium.launch({ executablePath: EXECUTABLE, headless: true, args: FLAGS });
}

/** Saves a picture of the page in the directory PICTURES, if that is set. */
export async function picture(page, name) {
  const directory = process.env.PICTURES;
  if (directory !== undefined) await page.screenshot({ path: join(directory, `${name}.png`) });
}
