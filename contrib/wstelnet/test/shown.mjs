// What the page shows: the terminal's lines, the state in words. Needs no more than a page.

import assert from "node:assert/strict";

/** The terminal's lines as they stand on the screen, without trailing blanks. */
export function screen(page) {
  return page.evaluate(() =>
    [...document.querySelectorAll(".xterm-rows > div")].map((row) =>
      row.textContent.replaceAll("\u00a0", " ").trimEnd(),
    ),
  );
}

/** Waits until a line of the screen matches; resolves to the match of the last such line. */
export async function seen(page, pattern, timeout = 15_000) {
  const deadline = Date.now() + timeout;
  let lines = [];
  while (Date.now() < deadline) {
    lines = await screen(page);
    const line = lines.findLast((text) => pattern.test(text));
    if (line !== undefined) return line.match(pattern);
    // The next frame may have it; xterm.js draws once a frame.
    await page.evaluate(() => new Promise(requestAnimationFrame));
  }
  assert.fail(`${pattern} was not seen in:\n${lines.join("\n")}`);
}

/**
 * Notes what the page says beside the terminal from now on, a line each time, however soon it says
 * something else. Resolves to a function that resolves to the lines.
 */
export async function noting(page) {
  await page.evaluate(() => {
    const [notice, words, pause] = ["notice", "words", "pause"].map((id) => document.getElementById(id));
    window.noted = "";
    const note = () => (window.noted += `${words.textContent} ${pause.textContent}\n`);
    new MutationObserver(note).observe(notice, { childList: true, subtree: true, characterData: true });
  });
  return () => page.evaluate(() => window.noted);
}

/** Lets the pauses between retries pass, on a page whose clock is installed, until it says `words`. */
export async function passPauses(page, words) {
  const deadline = Date.now() + 60_000;
  let passed;
  while (Date.now() < deadline) {
    await page.waitForSelector('body:is([data-state="waiting"], [data-state="closed"])', { timeout: 15_000 });
    const said = await page.textContent("#notice");
    if (words.test(said)) return;
    assert.doesNotMatch(said, /Gave up/);
    const [pause] = said.match(/Retry \d+/) ?? [];
    // On a slow machine a pause that was passed is still shown for a moment, or no pause is: the next one must not be
    // passed with it.
    if (pause !== undefined && pause !== passed) {
      await page.clock.fastForward(30_000);
      passed = pause;
    }
  }
  assert.fail(`${words} was not said`);
}

/** Waits for the page's state and, if given, the words shown with it. */
export async function state(page, name, words = /.*/) {
  await page.waitForSelector(`body[data-state="${name}"]`, { timeout: 15_000 });
  const shown = await page.textContent("#words");
  assert.match(shown, words);
  return shown;
}
