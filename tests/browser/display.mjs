// Numbers of X displays. Their VNC port is 5900 more, their X port 6000.

import { once } from "node:events";
import { existsSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { afterwards } from "./cleanup.mjs";

// Ports that Chromium loads no page from, because they belong to other services (net/base/port_util.cc).
const UNSAFE_PORTS = new Set([6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697]);

/** A display that nobody has. What its server leaves in /tmp when it is killed is removed after the test `t`. */
export async function freeDisplay(t) {
  for (;;) {
    // Lower numbers are for the tests in Rust, which may run at the same time.
    const number = 500 + Math.floor(Math.random() * 400);
    const files = [`/tmp/.X${number}-lock`, `/tmp/.X11-unix/X${number}`];
    if (files.some(existsSync) || UNSAFE_PORTS.has(5900 + number)) continue;
    if (!(await isFree(5900 + number)) || !(await isFree(6000 + number))) continue;
    afterwards(t, () => files.forEach((file) => rmSync(file, { force: true })));
    return number;
  }
}

async function isFree(port) {
  const server = createServer().listen(port, "127.0.0.1");
  try {
    await once(server, "listening");
  } catch {
    return false;
  }
  server.close();
  await once(server, "close");
  return true;
}
