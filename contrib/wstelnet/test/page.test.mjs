// H4: the page in Chromium against sessions that follow a script.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { launch, noChromium, picture } from "./browser.mjs";
import { serve } from "./server.mjs";
import { noting, passPauses, screen, seen, state } from "./shown.mjs";

const skip = noChromium;
const CHARACTER_MODE = Buffer.from([255, 251, 3, 255, 251, 1]);

let browser;
before(async () => {
  if (!skip) browser = await launch();
});
after(() => browser?.close());

/** A server that follows the script and a page opened on it; both end with the test. */
async function open(t, script = {}, { query = "", ...options } = {}) {
  const server = await serve(script);
  t.after(() => server.close());
  const context = await browser.newContext({ viewport: { width: 900, height: 560 }, ...options });
  t.after(() => context.close());
  const page = await context.newPage();
  const requests = [];
  page.on("request", (request) => requests.push(request.url()));
  await page.goto(server.url + query);
  return { page, server, requests, context };
}

// A server that speaks no telnet: every line is answered.
function lineServer(socket) {
  socket.send(Buffer.from("Welcome to the hall.\nWhat is your name?\n"));
  let pending = "";
  socket.on("message", (data) => {
    pending += data.toString();
    for (let end; (end = pending.indexOf("\r\n")) >= 0; pending = pending.slice(end + 2)) {
      socket.send(Buffer.from(`You say: ${pending.slice(0, end)}\n`));
    }
  });
}

// A server that shows the keys it gets.
function echoServer(socket) {
  socket.send(CHARACTER_MODE);
  socket.send(Buffer.from("ready> "));
  socket.on("message", (data) => {
    const negotiation = data[0] === 255;
    if (!negotiation) socket.send(Buffer.from(JSON.stringify(data.toString()).slice(1, -1)));
  });
}

test("the form has the page's own host and port, and Enter connects", { skip }, async (t) => {
  const { page, server } = await open(t, { session: lineServer });
  assert.equal(await page.inputValue("[name=host]"), "127.0.0.1");
  assert.equal(await page.inputValue("[name=port]"), String(server.port));
  assert.equal(await page.isChecked("[name=encrypt]"), false);
  await picture(page, "form");
  await page.keyboard.press("Enter");
  await state(page, "open");
  await seen(page, /^Welcome to the hall\.$/);
});

test("a link fills the form and may connect", { skip }, async (t) => {
  let path;
  const session = (socket, request) => {
    path = request.url;
    socket.send(Buffer.from("here\r\n"));
  };
  const { page, server } = await open(t, { session }, { query: "?path=a%2Fb%3Ftoken%3D1&autoconnect=1" });
  await state(page, "open");
  await seen(page, /^here$/);
  assert.equal(path, "/a/b?token=1");
  assert.equal(await page.textContent("#peer"), `127.0.0.1:${server.port}`);
});

test("a page whose path begins with two slashes connects to its own host", { skip }, async (t) => {
  const { page } = await open(t, { session: lineServer }, { query: "?autoconnect=1" });
  const link = page.url();
  await page.goto(link.replace(/(?<=\d)\//, "//"));
  await seen(page, /^Welcome/);
});

test("a wrong address is said in words", { skip }, async (t) => {
  const { page } = await open(t);
  await page.fill("[name=port]", "99999");
  await page.click("[name=submit]");
  assert.match(await page.textContent("#error"), /not a port/);
  assert.equal(await page.getAttribute("body", "data-state"), "idle");
});

test("line mode: edited here, sent whole; bare line feeds start at the margin", { skip }, async (t) => {
  const { page } = await open(t, { session: lineServer }, { query: "?autoconnect=1" });
  await seen(page, /^What is your name\?$/);
  assert.equal(await page.textContent("#mode"), "line mode");
  await page.keyboard.type("Jane Da");
  await page.keyboard.press("Backspace");
  await page.keyboard.type("oe\n");
  await seen(page, /^You say: Jane Doe$/);
  await picture(page, "line-mode");
});

test("character mode: each key goes out; a paste and a copy pass", { skip }, async (t) => {
  const { page, context, server } = await open(t, { session: echoServer }, { query: "?autoconnect=1" });
  await context.grantPermissions(["clipboard-read", "clipboard-write"], { origin: `http://127.0.0.1:${server.port}` });
  await seen(page, /^ready>/);
  await page.keyboard.press("a");
  await page.keyboard.press("Control+c");
  await page.keyboard.press("ArrowUp");
  await seen(page, /^ready> a\\u0003\\u001b\[A$/);
  await page.evaluate(() => navigator.clipboard.writeText("żółw 1"));
  await page.click("#paste");
  await seen(page, /\[Ażółw 1$/);
  await page.evaluate(() => navigator.clipboard.writeText(" two"));
  await page.keyboard.press("Control+Shift+v");
  await seen(page, /żółw 1 two$/);

  const row = page.locator(".xterm-rows > div").first();
  const box = await row.boundingBox();
  await page.mouse.dblclick(box.x + 20, box.y + box.height / 2);
  await page.keyboard.press("Control+Shift+c");
  await page.waitForFunction(async () => (await navigator.clipboard.readText()) === "ready");
  await page.evaluate(() => navigator.clipboard.writeText(""));
  await page.click("#copy");
  await page.waitForFunction(async () => (await navigator.clipboard.readText()) === "ready");
});

test("UTF-8 cut between frames", { skip }, async (t) => {
  const session = (socket) => {
    for (const byte of Buffer.from("zażółć gęślą jaźń €\r\n")) socket.send(Buffer.from([byte]));
  };
  const { page } = await open(t, { session }, { query: "?autoconnect=1" });
  await seen(page, /^zażółć gęślą jaźń €$/);
});

test("1011 and its reason are shown; the user reconnects", { skip }, async (t) => {
  let sessions = 0;
  const session = (socket) => {
    sessions += 1;
    if (sessions === 1) socket.close(1011, "the program has ended");
    else lineServer(socket);
  };
  const { page } = await open(t, { session }, { query: "?autoconnect=1" });
  await state(page, "closed", /ended the session: the program has ended\./);
  await picture(page, "closed");
  assert.equal(await page.evaluate(() => document.activeElement.id), "reconnect");
  await page.keyboard.press("Enter");
  await state(page, "open");
  await seen(page, /^Welcome/);
});

test("a lost connection is seen, counted down and made again", { skip }, async (t) => {
  let sessions = 0;
  const session = (socket) => {
    sessions += 1;
    socket.send(Buffer.from(`session ${sessions}\r\n`));
    socket.once("message", () => socket.terminate());
  };
  const { page } = await open(t, { session }, { query: "?autoconnect=1" });
  await seen(page, /^session 1$/);
  const noticed = await noting(page);
  await page.keyboard.type("x\n");
  await seen(page, /^session 2$/);
  assert.match(await noticed(), /^The connection to .* was lost\. Retry 1 of 8 in 1 s\.$/m);
  await state(page, "open");
});

test("O1: a restart is waited for; it is cut short or stopped, and the screen stays", { skip }, async (t) => {
  let sessions = 0;
  const session = (socket) => {
    sessions += 1;
    socket.send(Buffer.from(`session ${sessions}\r\n`));
    socket.once("message", () => socket.close(1012, "service restart"));
  };
  const { page } = await open(t, { session });
  await page.clock.install();
  // A pause that does not end by itself in this test, nor by the events that end it otherwise (F55), which any browser may have.
  await page.evaluate(() => {
    Math.random = () => 600;
    for (const name of ["online", "visibilitychange"]) {
      window.addEventListener(name, (event) => event.stopImmediatePropagation(), { capture: true });
    }
  });
  await page.click("[name=submit]");
  await seen(page, /^session 1$/);
  await page.keyboard.type("x\n");
  await state(page, "waiting", /^127\.0\.0\.1:\d+ is being started again\.$/);
  assert.match(await page.textContent("#pause"), /^Retry 1 of 8 in (600|5\d\d) s\.$/);
  await picture(page, "restart");
  await page.click("#reconnect");
  await seen(page, /^session 2$/);
  assert.equal((await screen(page))[0], "session 1");
  await page.keyboard.type("x\n");
  await page.click("#stop");
  await state(page, "ended", /^You stopped connecting\.$/);
  await page.clock.fastForward(3_600_000);
  await state(page, "ended");
  assert.equal(sessions, 2);
  assert.ok(await page.isHidden("#stop"));
});

test("F54: a session that the server ended in order looks like one", { skip }, async (t) => {
  const session = (socket) => {
    socket.send(Buffer.from("Goodbye.\r\n"));
    socket.close(1000, "target closed the connection");
  };
  const { page } = await open(t, { session }, { query: "?autoconnect=1" });
  await state(page, "ended", /^The session has ended: the server closed the connection\.$/);
  assert.equal(await page.textContent("#status"), "Session ended");
  await seen(page, /^— The session has ended/);
  await picture(page, "ended");
  const colour = (selector, property) =>
    page.evaluate(([selector, property]) => getComputedStyle(document.querySelector(selector))[property], [selector, property]);
  const red = await page.evaluate(() => {
    const probe = document.body.appendChild(document.createElement("i"));
    probe.style.color = "var(--bad)";
    return getComputedStyle(probe).color;
  });
  assert.notEqual(await colour(".dot", "backgroundColor"), red);
  assert.notEqual(await colour("#notice", "borderTopColor"), red);
  assert.equal(await page.evaluate(() => document.activeElement.id), "reconnect");
});

test("F55: given up, it connects when the page is seen again or the network is back", { skip }, async (t) => {
  let up = true;
  const session = (socket) => {
    socket.send(Buffer.from("here\r\n"));
    socket.once("message", () => socket.terminate());
  };
  const { page } = await open(t, { session, refuse: () => (up ? undefined : 503) });
  await page.clock.install();
  for (const event of ["visibilitychange", "online"]) {
    if (event === "visibilitychange") await page.click("[name=submit]");
    await state(page, "open");
    up = false;
    await page.keyboard.type("x\n");
    await passPauses(page, /Gave up/);
    await state(page, "closed", /Gave up after 8 attempts; goes on when you come back/);
    up = true;
    // A headless page is always seen, so that the test sends the event itself.
    await page.evaluate((event) => (event === "online" ? window : document).dispatchEvent(new Event(event)), event);
  }
  await state(page, "open");
});

test("F56: wss to a port that has no TLS, with a web server behind or not", { skip }, async (t) => {
  const other = await serve({ session: lineServer });
  t.after(() => other.close());
  const query = (port) => `?autoconnect=1&encrypt=1&port=${port}`;
  const { page, server } = await open(t, {}, { query: query(other.port) });
  await state(page, "closed", /^Something answers at 127\.0\.0\.1:\d+, but not with TLS/);
  await page.goto(server.url + query(server.port));
  await state(page, "closed", /^Something answers at 127\.0\.0\.1:\d+, but not with TLS/);
  other.close();
  await page.goto(server.url + query(other.port));
  await state(page, "closed", /^Nothing answers at 127\.0\.0\.1:\d+ with TLS\./);
});

for (const name of ["index.html", "wstelnet.html"]) {
  test(`F57: ${name} brings an icon, so that no browser asks for one`, { skip }, async (t) => {
    const { page, server } = await open(t);
    const html = await (await fetch(new URL(name, server.url))).text();
    const [, icon] = html.match(/<link rel="icon" href="([^"]+)">/);
    assert.match(icon, /^data:image\/svg\+xml,/);
    const width = await page.evaluate(async (icon) => {
      const image = new Image(32);
      image.src = icon;
      await image.decode();
      return image.naturalWidth;
    }, icon);
    assert.ok(width > 0);
  });
}

test("F75: what is typed before the server speaks is not shown, and the page says so", { skip }, async (t) => {
  let speak;
  const session = (socket) => {
    speak = () => socket.send(Buffer.concat([CHARACTER_MODE, Buffer.from("Password: ")]));
  };
  const { page } = await open(t, { session }, { query: "?autoconnect=1" });
  await state(page, "open");
  assert.match(await page.textContent("#mode"), /shown once the server speaks/);
  await page.keyboard.type("secret\n");
  speak();
  await seen(page, /^Password:$/);
  assert.ok(!(await screen(page)).some((line) => line.includes("secret")));
  assert.equal(await page.textContent("#mode"), "");
});

test("connection refused is said in words", { skip }, async (t) => {
  const { page, server } = await open(t);
  server.close();
  await page.click("[name=submit]");
  await state(page, "closed", /Nothing answers at 127\.0\.0\.1/);
});

for (const [status, words] of [
  [401, /user name and a password \(401\)/],
  [403, /does not admit.*\(403\)/],
  [404, /answers, but opened no WebSocket at \/websockify/],
]) {
  test(`refused with ${status}`, { skip }, async (t) => {
    const { page } = await open(t, { refuse: () => status }, { query: "?autoconnect=1" });
    await state(page, "closed", words);
  });
}

test("connect elsewhere: back to the form", { skip }, async (t) => {
  const { page } = await open(t, { session: lineServer }, { query: "?autoconnect=1" });
  await state(page, "open");
  await page.click("#disconnect");
  await state(page, "ended", /You disconnected/);
  await page.click("#another");
  assert.equal(await page.isVisible("#connect"), true);
  assert.equal(await page.evaluate(() => document.activeElement.name), "host");
});

test("what a session left behind does not outlive it", { skip }, async (t) => {
  let sessions = 0;
  const session = (socket) => {
    sessions += 1;
    if (sessions > 1) return socket.send(Buffer.from("second\r\n"));
    // Alternate screen, mouse reports, red, cursor hidden, and a title that never ends.
    socket.send(Buffer.from("first\r\n\x1b[?1049h\x1b[?1003h\x1b[31m\x1b[?25l in vi \x1b]0;cut"));
    socket.close(1000);
  };
  const { page } = await open(t, { session }, { query: "?autoconnect=1" });
  await state(page, "ended");
  await seen(page, /session has ended/);
  assert.equal((await screen(page))[0], "first");
  await page.click("#reconnect");
  await seen(page, /^second$/);
});

test("the keyboard alone: in, out by Ctrl+F6, disconnect, reconnect", { skip }, async (t) => {
  const { page } = await open(t, { session: echoServer });
  await page.keyboard.press("Enter");
  await seen(page, /^ready>/);
  await page.keyboard.press("Tab");
  await seen(page, /^ready> \\t$/);
  await page.keyboard.press("Control+F6");
  assert.equal(await page.evaluate(() => document.activeElement.id), "disconnect");
  await page.keyboard.press("Enter");
  await state(page, "ended");
  await page.keyboard.press("Enter");
  await state(page, "open");
});

test("the keyboard alone: from a session that was lost to the buttons", { skip }, async (t) => {
  const { page, server } = await open(t, { session: echoServer });
  await page.clock.install();
  await page.evaluate(() => (Math.random = () => 1));
  await page.click("[name=submit]");
  await seen(page, /^ready>/);
  server.close();
  // This pause is long enough for what follows.
  await passPauses(page, /Retry 6 of 8 in /);
  const focused = () => page.evaluate(() => document.activeElement.id);
  await page.keyboard.press("Tab");
  assert.equal(await focused(), "reconnect");
  assert.equal(await page.textContent("#reconnect"), "Reconnect now");
  await page.keyboard.press("Tab");
  assert.equal(await focused(), "stop");
  await page.keyboard.press("Tab");
  assert.equal(await focused(), "another");
  await page.focus(".xterm-helper-textarea");
  await page.keyboard.press("Control+F6");
  assert.equal(await focused(), "reconnect");
});

test("a tab that would take a session along asks first", { skip }, async (t) => {
  const { page } = await open(t, { session: echoServer }, { query: "?autoconnect=1" });
  await seen(page, /^ready>/);
  // Browsers ask only on a page where the user has done something.
  await page.keyboard.press("a");
  const asked = page.waitForEvent("dialog");
  await page.close({ runBeforeUnload: true });
  const dialog = await asked;
  assert.equal(dialog.type(), "beforeunload");
  await dialog.dismiss();
  await page.click("#disconnect");
  const closed = page.waitForEvent("close");
  await page.close({ runBeforeUnload: true });
  await closed;
});

test("a server that writes faster than can be drawn is slowed, and nothing waits in the page", { skip }, async (t) => {
  const session = (socket) => {
    socket.send(CHARACTER_MODE);
    for (let sent = 0; sent < 100; sent += 1) socket.send(Buffer.from("y\r\n".repeat(15_000)));
    socket.send(Buffer.from("the end\r\n"));
    socket.close(1000);
  };
  const { page } = await open(t, { session }, { query: "?autoconnect=1" });
  const rows = await page.evaluate(async () => {
    const frame = () => new Promise(requestAnimationFrame);
    while (document.body.dataset.state !== "ended") await frame();
    // Drawn with the next frame is drawn already.
    await frame();
    await frame();
    return [...document.querySelectorAll(".xterm-rows > div")].map((row) => row.textContent.trim());
  });
  assert.ok(rows.includes("the end"), rows.join("\n"));
});

test("on a phone: nothing overflows, Ctrl and arrows have buttons", { skip }, async (t) => {
  const phone = { viewport: { width: 320, height: 568 }, deviceScaleFactor: 2, hasTouch: true, isMobile: true };
  const { page } = await open(t, { session: echoServer }, phone);
  await picture(page, "phone-form");
  await page.tap("[name=submit]");
  await seen(page, /^ready>/);
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
  const [status, copy] = await Promise.all(["#status", "#copy"].map((part) => page.locator(part).boundingBox()));
  assert.ok(status.x + status.width < copy.x, "the state and the buttons are apart");
  await page.tap("#control");
  await page.keyboard.press("c");
  await page.tap("[data-key=up]");
  await page.tap("[data-key=escape]");
  await seen(page, /\\u0003\\u001b\[A\\u001b$/);
  await picture(page, "phone");
  await page.tap("#disconnect");
  await state(page, "ended");
  await picture(page, "phone-closed");
});

for (const colorScheme of ["light", "dark"]) {
  test(`${colorScheme}: page and terminal follow the system`, { skip }, async (t) => {
    const session = (socket) => socket.send(Buffer.from(colours()));
    const { page } = await open(t, { session }, { query: "?autoconnect=1", colorScheme });
    await seen(page, /brown fox/);
    const [ground, terminal] = await page.evaluate(() =>
      [document.body, document.querySelector(".xterm-scrollable-element")].map((part) => getComputedStyle(part).backgroundColor),
    );
    for (const colour of [ground, terminal]) {
      const lightness = Math.max(...colour.match(/\d+/g).slice(0, 3).map(Number));
      assert.equal(lightness > 127, colorScheme === "light", colour);
    }
    await picture(page, colorScheme);
  });
}

function colours() {
  const row = (codes) => codes.map((code) => `\x1b[${code}m quick brown fox \x1b[0m`).join("");
  return [[30, 31, 32, 33], [34, 35, 36, 37], [90, 91, 92, 93], [94, 95, 96, 97], [40, 41, 42, 44], [1, 2, 4, 7]]
    .map((codes) => `${row(codes)}\r\n`)
    .join("");
}

test("no request leaves the page's own host", { skip }, async (t) => {
  const { page, server, requests } = await open(t, { session: lineServer }, { query: "?autoconnect=1" });
  await seen(page, /^Welcome/);
  assert.ok(requests.length >= 3);
  for (const url of requests) assert.match(url, new RegExp(`^(ws|http)://127\\.0\\.0\\.1:${server.port}/|^data:`));
});

// A self-signed certificate for one test.
function selfSigned(t) {
  const home = mkdtempSync(join(tmpdir(), "wstelnet-tls-"));
  t.after(() => rmSync(home, { recursive: true }));
  const [key, cert] = [join(home, "key.pem"), join(home, "cert.pem")];
  const request = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
  execFileSync("openssl", [...request, "-subj", "/CN=127.0.0.1", "-keyout", key, "-out", cert], { stdio: "ignore" });
  return { key: readFileSync(key), cert: readFileSync(cert) };
}

test("a page that came by https connects by wss, whatever the link says", { skip }, async (t) => {
  const script = { session: lineServer, tls: selfSigned(t) };
  const { page, server } = await open(t, script, { query: "?encrypt=0", ignoreHTTPSErrors: true });
  assert.equal(await page.isChecked("[name=encrypt]"), true);
  assert.equal(await page.isDisabled("[name=encrypt]"), true);
  const socket = page.waitForEvent("websocket");
  await page.click("[name=submit]");
  assert.equal((await socket).url(), `wss://127.0.0.1:${server.port}/websockify`);
  await seen(page, /^Welcome/);
});
