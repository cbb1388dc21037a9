// H4: what the demo shows: two guests of the guestbook, each in a terminal page of their own.

import assert from "node:assert/strict";
import { test } from "node:test";
import { seen, state } from "../../contrib/wstelnet/test/shown.mjs";
import { launch, newPage, picture } from "./browser.mjs";
import { CHROMIUM, GUESTBOOK, missing, WEBSOCKIFY, WSTELNET } from "./programs.mjs";
import { freePort, Websockify } from "./websockify.mjs";

const skip = missing(CHROMIUM, GUESTBOOK, WEBSOCKIFY);

test("H4: guests of the demo read what others wrote", { skip }, async (t) => {
  const port = await freePort(2023);
  const websockify = await Websockify.listening(t, [
    `localhost:${port}`, "--web", WSTELNET, "--wrap-mode=respawn", "--", GUESTBOOK, `${port}`,
  ]);
  const browser = await launch();
  t.after(() => browser.close());
  const enter = async (name) => {
    const page = await newPage(browser, { viewport: { width: 800, height: 480 }, colorScheme: "dark" });
    await page.goto(`http://localhost:${port}/wstelnet.html?autoconnect=1`);
    await seen(page, /^What is your name\? ?$/);
    await page.keyboard.type(`${name}\n`);
    await seen(page, new RegExp(`^Hello, ${name}\\.`));
    return page;
  };
  const ada = await enter("Ada");
  await ada.keyboard.type("Any TCP program, in a browser.\n");
  await seen(ada, /^It is written\.$/);
  const grace = await enter("Grace");
  await seen(grace, /^ {2}Ada, just now:$/);
  await seen(grace, /^ {4}Any TCP program, in a browser\.$/);
  await grace.keyboard.type("who\n");
  await seen(grace, /^Here now: Ada, Grace$/);
  await grace.keyboard.type("Hello from the other window!");
  await seen(grace, /^> Hello from the other window!$/);
  await picture(grace, "terminal");

  await ada.keyboard.type("bye\n");
  await state(ada, "ended", /session has ended/);
  assert.equal(await websockify.stop(), 0);
  // This line stays in the terminal, while the notice speaks of the retries.
  await seen(grace, /^— .* is going away.* —$/);
});
