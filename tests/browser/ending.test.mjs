// H4: what the terminal page says when there is no session or no session any more, with the real
// program behind it; that it offers another try, and makes none for ever.

import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { noting, passPauses, screen, seen, state } from "../../contrib/wstelnet/test/shown.mjs";
import { launch, newPage } from "./browser.mjs";
import { selfSigned } from "./certificate.mjs";
import { afterwards } from "./cleanup.mjs";
import { CHROMIUM, GUESTBOOK, missing, OPENSSL, WEBSOCKIFY, WSTELNET } from "./programs.mjs";
import { freePort, Websockify } from "./websockify.mjs";

const BASIC = ["--auth-plugin=BasicHTTPAuth", "--auth-source=jane:secret"];
const JANE = { username: "jane", password: "secret" };

const skip = missing(CHROMIUM, GUESTBOOK, OPENSSL, WEBSOCKIFY);

let browser;
before(async () => {
  if (!skip) browser = await launch();
});
after(() => browser?.close());

/** The guestbook, wrapped and with the page beside it. */
function guestbook(t, port, options = []) {
  const all = ["--web", WSTELNET, "--wrap-mode=ignore", ...options];
  return Websockify.listening(t, [`127.0.0.1:${port}`, ...all, "--", GUESTBOOK, `${port}`]);
}

/** Opens the page, which connects by itself; `query` says more. With `clock` the test moves its time. `options`: Chromium's. */
async function visit(t, port, { scheme = "http", query = "", clock = false, ...options } = {}) {
  const page = await newPage(browser, options);
  t.after(() => page.close());
  if (clock) await page.clock.install();
  await page.goto(`${scheme}://127.0.0.1:${port}/wstelnet.html?autoconnect=1${query}`);
  return page;
}

/** The guestbook on a port of its own, with `options` for websockify, and a visit there. */
async function guest(t, options, visiting) {
  const port = await freePort();
  const websockify = await guestbook(t, port, options);
  return { port, websockify, page: await visit(t, port, visiting) };
}

// A page that is without a session says so, and leaves the next step to its user.
async function closed(page, words, name = "closed") {
  await state(page, name, words);
  assert.equal(await page.isVisible("#reconnect"), true);
  assert.equal(await page.textContent("#pause"), "");
}

test("H4: a target that refuses: 1011 and the reason", { skip }, async (t) => {
  const [port, target] = [await freePort(), await freePort()];
  await Websockify.listening(t, [`127.0.0.1:${port}`, `127.0.0.1:${target}`, "--web", WSTELNET]);
  const page = await visit(t, port);
  await closed(page, /ended the session: the server cannot be reached: connection refused\./);
  const late = createServer((socket) => socket.write("here\r\n")).listen(target, "127.0.0.1");
  t.after(() => late.close());
  await once(late, "listening");
  await page.click("#reconnect");
  await seen(page, /^here$/);
  await page.click("#disconnect");
  await closed(page, /^You disconnected\.$/, "ended");
});

test("H4: a program that has ended: 1011 and the reason", { skip }, async (t) => {
  const { websockify, page } = await guest(t);
  await seen(page, /^What is your name\?/);
  const [program] = websockify.processes().filter(({ name }) => name === "guestbook");
  process.kill(program.pid);
  await closed(page, /^The session has ended/, "ended");
  await page.click("#reconnect");
  await closed(page, /ended the session: program has ended\.$/);
});

test("H4: websockify is killed: tried again by itself, then given up", { skip }, async (t) => {
  const { port, websockify, page } = await guest(t, [], { clock: true });
  await seen(page, /^What is your name\?/);
  await websockify.killed();
  // This line stays in the terminal; within a second the notice goes on to the words of the first retry.
  await seen(page, /^— The connection to .* was lost\. —$/);
  await passPauses(page, /Gave up/);
  await closed(page, /Nothing answers at .* Gave up after 8 attempts;/);
  await page.clock.fastForward(3_600_000);
  await closed(page, /Gave up/);
  await guestbook(t, port);
  await page.click("#reconnect");
  await seen(page, /^ {2}The book is empty/);
  await state(page, "open");
});

// Pauses that are short enough for a test, and not so short that all are over before anything has happened.
const halve = (page) => page.evaluate(() => (Math.random = () => 0.5));

test("O1: websockify is stopped and started again: the page comes again by itself, and keeps its screen", { skip }, async (t) => {
  const { port, websockify, page } = await guest(t);
  await seen(page, /^What is your name\?/);
  await halve(page);
  const noticed = await noting(page);
  assert.equal(await websockify.stop(), 0);
  await seen(page, /^— 127\.0\.0\.1:\d+ is going away: shutting down\. —$/);
  await page.waitForFunction(() => document.getElementById("pause").textContent.startsWith("Retry 2 of 8 in "));
  await guestbook(t, port);
  await state(page, "open");
  assert.match(await noticed(), /is going away: shutting down\. Retry 1 of 8 in 1 s\.$/m);
  await page.keyboard.type("Grace\n");
  await seen(page, /Grace/);
  const lines = await screen(page);
  const at = (pattern) => lines.findIndex((line) => pattern.test(line));
  const last = lines.findLastIndex((line) => /^What is your name/.test(line));
  const [first, end] = [at(/^What is your name/), at(/^— .* is going away/)];
  assert.ok(first >= 0 && first < end && end < last, lines.join("\n"));
});

test("O1: in a drain a page's session goes on, and no other page gets one; then it comes again", { skip }, async (t) => {
  const { port, websockify, page } = await guest(t, ["--drain-timeout=600"]);
  await seen(page, /^What is your name\?/);
  websockify.signal("SIGTERM");
  await websockify.said(/ draining: 1 session goes on for 600 s/);
  // The page itself is not served any more either, so that it comes from another server.
  const other = await freePort();
  await guestbook(t, other);
  const late = await visit(t, other, { query: `&port=${port}` });
  await closed(late, /^Nothing answers at 127\.0\.0\.1:\d+\.$/);
  await page.keyboard.type("Ada\n");
  await seen(page, /Ada/);
  await state(page, "open");
  await halve(page);
  websockify.signal("SIGTERM");
  assert.equal(await websockify.end(), 0);
  await seen(page, /^— .* is going away: shutting down\. —$/);
  await guestbook(t, port);
  await state(page, "open");
});

test("H4: a network that swallows everything: an end by the user's click or the page's clock", { skip }, async (t) => {
  const { websockify, page } = await guest(t, [], { clock: true });
  await seen(page, /^What is your name\?/);
  websockify.signal("SIGSTOP");
  await page.click("#disconnect");
  await closed(page, /^You disconnected\.$/, "ended");
  await page.click("#reconnect");
  await state(page, "connecting", /^Connecting to 127\.0\.0\.1:\d+ …$/);
  const noticed = await noting(page);
  await page.clock.fastForward(15_000);
  websockify.signal("SIGCONT");
  // The page may be connected by the attempt that it made meanwhile, or connect within a second.
  await state(page, "open");
  assert.match(await noticed(), /did not answer in time/);
});

test("H4: 401: the page says so, and the browser asks for the password", { skip }, async (t) => {
  const { port, page: stranger } = await guest(t, BASIC);
  await closed(stranger, /asks for a user name and a password \(401\)/);
  // Nobody answers the browser's dialogue here, which takes pointer and keyboard: the page waits for its end.
  await stranger.click("#reconnect");
  await state(stranger, "connecting");
  await stranger.evaluate(() => document.getElementById("another").click());
  await stranger.waitForSelector("#connect", { state: "visible" });
  // Playwright fills in the browser's dialogue.
  const jane = await visit(t, port, { httpCredentials: JANE });
  await closed(jane, /asks for a user name and a password \(401\)/);
  await jane.click("#reconnect");
  await seen(jane, /^What is your name\?/);
});

test("H4: 401: who logged in for the page is logged in for the session", { skip }, async (t) => {
  const { port, websockify, page } = await guest(t, [...BASIC, "--web-auth"], { httpCredentials: JANE });
  await seen(page, /^What is your name\?/);
  await websockify.killed();
  await guestbook(t, port, ["--auth-plugin=BasicHTTPAuth", "--auth-source=jane:changed", "--web-auth"]);
  await closed(page, /asks for a user name and a password \(401\)/);
});

test("H4: 403: a page of an origin that is not expected", { skip }, async (t) => {
  const { page } = await guest(t, ["--auth-plugin=ExpectOrigin", "--auth-source=https://page.example"]);
  await closed(page, /does not admit this page or this user \(403\)/);
});

test("H4: 403: a certificate of another name", { skip }, async (t) => {
  const directory = mkdtempSync(join(tmpdir(), "websockify-ending-"));
  afterwards(t, () => rmSync(directory, { recursive: true }));
  const port = await freePort();
  const [own, jane, joe] = ["127.0.0.1", "jane", "joe"].map((name) => selfSigned(directory, name));
  const trusted = join(directory, "trusted.pem");
  writeFileSync(trusted, [jane, joe].map(({ cert }) => readFileSync(cert)).join(""));
  await guestbook(t, port, [
    `--cert=${own.cert}`, `--key=${own.key}`, "--verify-client", `--cafile=${trusted}`,
    "--auth-plugin=ClientCertCNAuth", "--auth-source=jane",
  ]);
  const visitor = ({ cert, key }) => {
    const clientCertificates = [{ origin: `https://127.0.0.1:${port}`, certPath: cert, keyPath: key }];
    return visit(t, port, { scheme: "https", ignoreHTTPSErrors: true, clientCertificates });
  };
  await seen(await visitor(jane), /^What is your name\?/);
  await closed(await visitor(joe), /does not admit this page or this user \(403\)/);
});

test("H4: another host: its refusal is guessed at, its absence told", { skip }, async (t) => {
  const other = await freePort();
  const { page } = await guest(t, [], { query: `&port=${other}` });
  await closed(page, /^Nothing answers at 127\.0\.0\.1:\d+\.$/);
  await guestbook(t, other, BASIC);
  await page.click("#reconnect");
  await closed(page, /answers, but opened no WebSocket at \/websockify: it may want a password \(401\)/);
});
