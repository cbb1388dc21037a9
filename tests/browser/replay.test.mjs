// F1: a VNC session that websockify recorded is played back by noVNC, and the desktop looks as it
// did when it was live.
//
// WEBSOCKIFY names the program; else the workspace's own build is taken.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer as createWebServer } from "node:http";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { extname, join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
const XVNC = "/usr/bin/Xtigervnc";
const XTERM = "/usr/bin/xterm";
const TARGET = process.env.CARGO_TARGET_DIR ?? fileURLToPath(new URL("../../target", import.meta.url));
const WEBSOCKIFY =
  process.env.WEBSOCKIFY ??
  [`${TARGET}/release/websockify`, `${TARGET}/debug/websockify`].find((path) => existsSync(path));
const NOVNC = fileURLToPath(new URL("node_modules/@novnc/novnc", import.meta.url));
const SIZE = [640, 480];

const missing = [CHROMIUM, XVNC, XTERM, WEBSOCKIFY].filter(
  (path) => path === undefined || !existsSync(path),
);
if (missing.length > 0) {
  assert.notEqual(process.env.CI, "true", `needed under CI: ${missing}`);
  console.log(`skipped: not installed: ${missing}`);
}
const skip = missing.length > 0 && `not installed: ${missing}`;

let directory;
let pages;
let browser;
let websockify;

// noVNC's modules, the recording, and a page that is empty.
function serve(recording) {
  const types = { ".js": "text/javascript", ".html": "text/html" };
  return createWebServer((request, response) => {
    const { pathname } = new URL(request.url, "http://localhost");
    response.setHeader("Content-Type", types[extname(pathname)] ?? "text/html");
    try {
      if (pathname === "/recording.js") response.end(readFileSync(recording));
      else if (pathname === "/") response.end("<!DOCTYPE html><div id=screen></div>");
      else response.end(readFileSync(join(NOVNC, pathname)));
    } catch {
      response.writeHead(404).end();
    }
  }).listen(0, "127.0.0.1");
}

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

// The canvas as it stands, once it is as large as the desktop and shows more than one colour, and
// has been the same for ten frames.
function picture(page) {
  return page.evaluate(
    ([width, height]) =>
      new Promise((resolve, reject) => {
        const deadline = Date.now() + 20_000;
        let last = "";
        let same = 0;
        let colours;
        const look = () => {
          const canvas = document.querySelector("#screen canvas");
          if (canvas?.width === width && canvas.height === height) {
            const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
            colours = new Set(new Uint32Array(data.buffer)).size;
            const shown = canvas.toDataURL();
            same = colours > 1 && shown === last ? same + 1 : 0;
            last = shown;
          }
          if (same >= 10) resolve(last);
          else if (Date.now() > deadline) reject(new Error(`not drawn: ${canvas?.width}x${canvas?.height}, ${colours} colours`));
          else requestAnimationFrame(look);
        };
        look();
      }),
    SIZE,
  );
}

async function open() {
  const page = await browser.newPage();
  page.on("pageerror", (error) => console.log(`page: ${error}`));
  await page.goto(`http://127.0.0.1:${pages.address().port}/`);
  return page;
}

before(async () => {
  if (skip) return;
  directory = mkdtempSync(join(tmpdir(), "websockify-replay-"));
  pages = serve(join(directory, "session.1"));
  await once(pages, "listening");
  browser = await chromium.launch({
    executablePath: CHROMIUM,
    headless: true,
    args: ["--no-sandbox", "--disable-gpu"],
  });
});

after(async () => {
  await browser?.close();
  pages?.close();
  if (websockify?.exitCode === null) {
    websockify.kill("SIGKILL");
    await once(websockify, "exit");
  }
  if (directory !== undefined) rmSync(directory, { recursive: true });
});

test("f1 noVNC draws from the recording what it drew live", { skip }, async () => {
  const port = await freePort();
  const display = `:${port % 800 + 100}`;
  // The shell becomes Xvnc; its one window shows what does not move, and is there before we look.
  const drawn = join(directory, "drawn");
  const start =
    `until ${XTERM} -display "$0" -e sh -c 'seq 20; touch ${drawn}; exec cat'; do :; done 2>/dev/null & exec "$@"`;
  const xvnc = [
    XVNC, display, "-rfbport", `${port}`, "-SecurityTypes", "None", "-geometry", SIZE.join("x"),
    "-AlwaysShared", "-nolisten", "tcp",
  ];
  websockify = spawn(
    WEBSOCKIFY,
    [`127.0.0.1:${port}`, "--run-once", `--record=${join(directory, "session")}`, "--",
      "sh", "-c", start, display, ...xvnc],
    { stdio: ["ignore", "ignore", "pipe"] },
  );
  let log = "";
  const listens = new Promise((resolve, reject) => {
    websockify.stderr.on("data", (data) => {
      log += data;
      if (log.includes("listening on")) resolve();
    });
    websockify.once("exit", () => reject(new Error(log)));
  });
  await listens;

  const live = await open();
  await live.evaluate(async (url) => {
    const { default: RFB } = await import("/core/rfb.js");
    window.rfb = new RFB(document.getElementById("screen"), url, { wsProtocols: ["binary"] });
  }, `ws://127.0.0.1:${port}/`);
  while (!existsSync(drawn)) await picture(live);
  const seen = await picture(live);
  await live.evaluate(() => window.rfb.disconnect());
  await once(websockify, "exit");
  assert.equal(websockify.exitCode, 0, log);

  const replay = await open();
  await replay.addScriptTag({ url: "/recording.js" });
  await replay.evaluate(async () => {
    const { default: RFB } = await import("/core/rfb.js");
    // What RFB asks of a WebSocket: what it sends is not heard, what the target sent comes at once.
    class Recording {
      binaryType = "arraybuffer";
      protocol = "binary";
      readyState = "open";
      onopen = null;
      onmessage = null;
      onerror = null;
      onclose = null;
      send() {}
      close() {}
    }
    const channel = new Recording();
    window.rfb = new RFB(document.getElementById("screen"), channel);
    for (const entry of window.VNC_frame_data.filter((entry) => entry.startsWith("{"))) {
      const payload = entry.slice(entry.indexOf("{", 1) + 1);
      const bytes = Uint8Array.from(payload, (character) => character.charCodeAt(0));
      channel.onmessage({ data: bytes.buffer });
    }
  });
  assert.equal(await replay.evaluate(() => window.VNC_frame_encoding), "binary");
  assert.equal(await picture(replay), seen, "the same picture");
});
