// U1: noVNC's own launcher, as Debian has it, with this websockify on its PATH in the place of the Python one.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { launch, newPage } from "./browser.mjs";
import { selfSigned } from "./certificate.mjs";
import { afterwards } from "./cleanup.mjs";
import { freeDisplay } from "./display.mjs";
import { drawn } from "./novnc.mjs";
import { CHROMIUM, missing, NOVNC, OPENSSL, WEBSOCKIFY, XVNC } from "./programs.mjs";
import { freePort, waitFor, Websockify } from "./websockify.mjs";

const LAUNCHER = `${NOVNC}/utils/novnc_proxy`;
const SIZE = [640, 400];
const skip = missing(CHROMIUM, LAUNCHER, NOVNC, OPENSSL, WEBSOCKIFY, XVNC);

test("U1: novnc_proxy starts this websockify", { skip }, async (t) => {
  const directory = mkdtempSync(join(tmpdir(), "websockify-novnc-"));
  afterwards(t, () => rmSync(directory, { recursive: true }));
  const bin = join(directory, "bin");
  mkdirSync(bin);
  symlinkSync(WEBSOCKIFY, join(bin, "websockify"));
  const vnc = await vncServer(t);
  const browser = await launch();
  t.after(() => browser.close());
  const { cert, key } = selfSigned(directory, "127.0.0.1");
  for (const [scheme, options] of [
    ["http", ["--heartbeat", "1", "--idle-timeout", "3600", "--record", `${directory}/recording`]],
    ["https", ["--cert", cert, "--key", key, "--ssl-only"]],
  ]) {
    await t.test(scheme, async (t) => {
      const port = await freePort();
      const launcher = await Websockify.listening(
        t,
        ["--vnc", `localhost:${vnc}`, "--listen", `127.0.0.1:${port}`, "--web", NOVNC, ...options],
        { PATH: `${bin}:${process.env.PATH}` },
        LAUNCHER,
      );
      await launcher.said(new RegExp(`proxying from 127.0.0.1:${port} to localhost:${vnc}`));
      const [width, height] = SIZE;
      const page = await newPage(browser, { viewport: { width, height }, ignoreHTTPSErrors: true });
      await page.goto(`${scheme}://127.0.0.1:${port}/vnc.html?autoconnect=true&show_dot=true`);
      await drawn(page, SIZE);
      await page.close();
      await launcher.said(/session ended: 1,/);
      launcher.signal("SIGTERM");
      await launcher.end();
      assert.deepEqual(launcher.processes(), [], "left by the launcher");
    });
  }
});

// A server of a desktop with nothing on it but a pattern; its port.
async function vncServer(t) {
  const number = await freeDisplay(t);
  const port = 5900 + number;
  const server = spawn(
    XVNC,
    [
      `:${number}`, "-geometry", SIZE.join("x"), "-depth", "24", "-SecurityTypes", "None", "-rfbport", `${port}`,
      "-localhost", "-nolisten", "tcp", "-retro",
    ],
    { stdio: ["ignore", "ignore", "pipe"] },
  );
  afterwards(t, () => server.kill("SIGKILL"));
  let said = "";
  server.stderr.on("data", (data) => (said += data));
  await waitFor(() => said, () => said.includes("Listening for VNC connections"));
  return port;
}
