// The programs that the tests need, and the reason to skip where one is missing.

import assert from "node:assert/strict";
import { existsSync, statSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { skipped } from "../../contrib/wstelnet/test/skipped.mjs";

/** A file of the project, by its path from the top. */
export const file = (path) => fileURLToPath(new URL(`../../${path}`, import.meta.url));

const TARGET = process.env.CARGO_TARGET_DIR ?? file("target");
// The newest build of a program.
const built = (name) =>
  [`${TARGET}/release/${name}`, `${TARGET}/debug/${name}`]
    .filter((path) => existsSync(path))
    .sort((one, other) => statSync(other).mtimeMs - statSync(one).mtimeMs)[0];

export const WEBSOCKIFY = process.env.WEBSOCKIFY ?? built("websockify");
export const GUESTBOOK = built("examples/guestbook");
export const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
export const TELNETD = "/usr/sbin/in.telnetd";
export const XVNC = "/usr/bin/Xtigervnc";
export const VNCSERVER = "/usr/bin/vncserver";
export const XTERM = "/usr/bin/xterm";
export const XDPYINFO = "/usr/bin/xdpyinfo";
export const OPENSSL = "/usr/bin/openssl";
/** The page of Debian's package novnc. */
export const NOVNC = "/usr/share/novnc";
/** The terminal that we ship. */
export const WSTELNET = file("contrib/wstelnet/dist");

/** False if all `paths` are there; else the reason to skip, which under CI is a failure. */
export function missing(...paths) {
  const absent = paths.filter((path) => path === undefined || !existsSync(path));
  if (absent.length === 0) return false;
  // A program of this project has no path while it is not built.
  const names = absent.map((path) => path ?? "websockify").join(" ");
  assert.notEqual(process.env.CI, "true", `not installed: ${names}`);
  return skipped(`not installed: ${names}`);
}
