// noVNC in a page: what it has drawn, and a recording given to it in place of a session.

import { readFileSync } from "node:fs";
import { newPage } from "./browser.mjs";
import { waitFor } from "./websockify.mjs";

/**
 * The canvas as it stands, as a URL of its data: once it is as large as `size`, shows more than one
 * colour, and has been the same for ten frames.
 */
export function drawn(page, size) {
  return page.evaluate(
    ([width, height]) =>
      new Promise((resolve, reject) => {
        const deadline = Date.now() + 20_000;
        let last = [];
        let same = 0;
        let colours;
        const look = () => {
          const canvas = document.querySelector("#noVNC_container canvas, #screen canvas");
          if (canvas?.width === width && canvas.height === height) {
            const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
            const pixels = new Uint32Array(data.buffer);
            colours = new Set(pixels).size;
            const still = colours > 1 && pixels.every((pixel, index) => pixel === last[index]);
            same = still ? same + 1 : 0;
            last = pixels;
          }
          if (same >= 10) resolve(canvas.toDataURL());
          else if (Date.now() > deadline) {
            reject(new Error(`not drawn: ${canvas?.width}x${canvas?.height}, ${colours} colours`));
          } else requestAnimationFrame(look);
        };
        look();
      }),
    size,
  );
}

/** A page of `origin`, which serves noVNC, with nothing on it but a screen. */
export async function emptyPage(browser, origin) {
  const page = await newPage(browser, { ignoreHTTPSErrors: true });
  // The page must come from `origin`: Chromium lets no page that a test has made up connect to loopback.
  await page.goto(`${origin}/core/rfb.js`);
  await page.setContent("<!DOCTYPE html><div id=screen></div>");
  return page;
}

/** Waits until the recording at `path` is complete; resolves to `path`. */
export async function recorded(path) {
  // The file is written a moment later than the session ends.
  await waitFor(`the end of ${path}`, () => /'EOF'\];?\s*$/.test(readFileSync(path, "latin1")));
  return path;
}

/** An empty page of `origin` on which noVNC draws what the target sent in the recording at `path`. */
export async function replay(browser, origin, path) {
  const page = await emptyPage(browser, origin);
  await page.addScriptTag({ path });
  await page.evaluate(async () => {
    const { default: RFB } = await import("/core/rfb.js");
    // What RFB needs of a WebSocket. What RFB sends is dropped, and what the target sent comes at once.
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
  return page;
}
