// S1: a VNC session that websockify recorded is played back by noVNC, npm's newest, and the desktop
// looks as it did when it was live.

import assert from "node:assert/strict";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { launch } from "./browser.mjs";
import { afterwards } from "./cleanup.mjs";
import { freeDisplay } from "./display.mjs";
import { drawn, emptyPage, recorded, replay } from "./novnc.mjs";
import { CHROMIUM, file, missing, WEBSOCKIFY, XTERM, XVNC } from "./programs.mjs";
import { Websockify } from "./websockify.mjs";

const NOVNC = file("tests/browser/node_modules/@novnc/novnc");
const SIZE = [640, 480];

const skip = missing(CHROMIUM, XVNC, XTERM, WEBSOCKIFY);

test("S1: noVNC draws from the recording what it drew live", { skip }, async (t) => {
  const directory = mkdtempSync(join(tmpdir(), "websockify-replay-"));
  afterwards(t, () => rmSync(directory, { recursive: true }));
  const number = await freeDisplay(t);
  const [display, port] = [`:${number}`, 5900 + number];
  // The shell becomes Xvnc. Its one window shows what does not move, and is there before the page is compared.
  const mark = join(directory, "drawn");
  const start =
    `until ${XTERM} -display "$0" -e sh -c 'seq 20; touch ${mark}; exec cat'; do :; done 2>/dev/null & exec "$@"`;
  const xvnc = [
    XVNC, display, "-rfbport", `${port}`, "-SecurityTypes", "None", "-geometry", SIZE.join("x"),
    "-AlwaysShared", "-nolisten", "tcp",
  ];
  const recording = join(directory, "session");
  const websockify = await Websockify.listening(t, [
    `127.0.0.1:${port}`, `--web=${NOVNC}`, `--record=${recording}`, "--",
    "sh", "-c", start, display, ...xvnc,
  ]);
  const origin = `http://127.0.0.1:${port}`;
  const browser = await launch();
  t.after(() => browser.close());
  const live = await emptyPage(browser, origin);
  await live.evaluate(async (url) => {
    const { default: RFB } = await import("/core/rfb.js");
    window.rfb = new RFB(document.getElementById("screen"), url, { wsProtocols: ["binary"] });
  }, `ws://127.0.0.1:${port}/`);
  while (!existsSync(mark)) await drawn(live, SIZE);
  const seen = await drawn(live, SIZE);
  await live.evaluate(() => window.rfb.disconnect());
  await websockify.said(/ session ended/);
  const again = await replay(browser, origin, await recorded(`${recording}.1`));
  assert.equal(await again.evaluate(() => window.VNC_frame_encoding), "binary");
  assert.equal(await drawn(again, SIZE), seen, "the same picture");
  assert.equal(await websockify.stop(), 0, websockify.log);
});
