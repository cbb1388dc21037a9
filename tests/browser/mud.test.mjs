// H4: the terminal page and a line server as games have it, wrapped: programs/mud.mjs.

import assert from "node:assert/strict";
import { test } from "node:test";
import { screen, seen, state } from "../../contrib/wstelnet/test/shown.mjs";
import { launch, newPage } from "./browser.mjs";
import { CHROMIUM, file, missing, WEBSOCKIFY, WSTELNET } from "./programs.mjs";
import { freePort, Websockify } from "./websockify.mjs";

const MUD = file("tests/browser/programs/mud.mjs");

const skip = missing(CHROMIUM, WEBSOCKIFY);

test("H4: a line server with offers, prompts, colours and a password", { skip }, async (t) => {
  const port = await freePort();
  const options = ["--web", WSTELNET, "--wrap-mode=respawn"];
  await Websockify.listening(t, [`127.0.0.1:${port}`, ...options, "--", process.execPath, MUD, `${port}`]);
  const browser = await launch();
  t.after(() => browser.close());
  const page = await newPage(browser, { viewport: { width: 900, height: 600 } });
  const type = (text) => page.keyboard.type(text);
  await page.goto(`http://127.0.0.1:${port}/wstelnet.html?autoconnect=1`);

  await seen(page, /^The Cellar$/);
  await seen(page, /^Keller, süß und dunkel\. Ein Krug Met für 3 €\.$/);
  await seen(page, /^Name:$/);
  const colours = await page.$$eval(".xterm-rows span", (spans) =>
    Object.fromEntries(spans.map((span) => [span.textContent, span.className])),
  );
  assert.match(colours["The Cellar"], /xterm-fg-(2|10)\b/);
  assert.match(colours.dunkel, /xterm-fg-3\b/);

  // SGA alone is no character mode: the line is edited here.
  assert.equal(await page.textContent("#mode"), "line mode");
  await type("Gandlaf");
  for (const key of ["Backspace", "Backspace", "Backspace"]) await page.keyboard.press(key);
  await type("alf\n");
  await seen(page, /^Name: Gandalf$/);
  await seen(page, /^Password:$/);
  await type("mellon\n");
  await seen(page, /^6 letters\. Welcome, Gandalf\.$/);
  assert.ok(!(await screen(page)).some((line) => line.includes("mellon")), "the password is not shown");
  await seen(page, /^ready\.$/);
  await seen(page, /^<10hp>$/);

  await type("żółw € 255\n");
  await seen(page, /^You say: żółw € 255$/);

  // Output goes above the line that is being typed, and the line goes on.
  await type("wait\nkill r");
  await seen(page, /^A rat bites you\.$/);
  await seen(page, /^<9hp> kill r$/);
  await type("at\n");
  await seen(page, /^You say: kill rat$/);

  // What was agreed to and what was not: 253 DO, 254 DONT, 251 WILL, 252 WONT.
  await type("told\n");
  const [, line] = await seen(page, /(?:^|> )(253 3; .*)$/);
  const told = line.split("; ");
  for (const refused of ["254 25", "254 70", "254 86", "254 91", "254 201", "254 42", "252 42"]) {
    assert.ok(told.includes(refused), `${refused} in ${line}`);
  }
  for (const agreed of ["251 24", "251 31"]) assert.ok(told.includes(agreed), `${agreed} in ${line}`);

  // What is typed ahead of the prompt stands before it, and the answer behind.
  await type("quit\n");
  await seen(page, /(?:^|> )Bye\.$/);
  await state(page, "ended", /session has ended/);
});
