// Why a connection ended, in words for the user, and whether to try again.
//
// Knows the close codes of RFC 6455 and what a plain request to the same
// address may reveal. It does not know the WebSocket or when to retry.

const PROBE_MS = 5000;

/**
 * The connection was open and was closed with `code` and `reason`. `words` are
 * for the user, `retry` says that the same target may well work soon.
 */
export function closed(code, reason, name) {
  const why = reason === "" ? "" : `: ${reason}`;
  switch (code) {
    case 1000:
      return { words: `The session has ended${why}.`, retry: false };
    case 1001:
      return { words: `${name} is going away${why}.`, retry: true };
    case 1006:
      return { words: `The connection to ${name} was lost.`, retry: true };
    case 1011:
      return { words: `${name} ended the session${why || " because of an error"}.`, retry: false };
    case 1012:
    case 1013:
      return { words: `${name} asks to try again later${why}.`, retry: true };
    default:
      return { words: `${name} closed the connection with code ${code}${why}.`, retry: false };
  }
}

/**
 * The connection never opened. The browser does not say why (close code 1006
 * for everything), so `found` is what `probe` made of the same address. Result as above.
 */
export function refused(found, { name, url }) {
  switch (found) {
    case 401:
      return {
        words:
          `${name} asks for a user name and a password (401). ` +
          "Open its address in a tab of its own, log in there, then reconnect.",
        retry: false,
      };
    case 403:
      return { words: `${name} does not admit this page or this user (403).`, retry: false };
    case undefined: {
      const certificate = url.startsWith("wss:")
        ? " If its certificate is not trusted, or it wants one of yours, open its https address once and look."
        : "";
      return { words: `Nothing answers at ${name}.${certificate}`, retry: true };
    }
    default:
      return {
        words:
          `${name} answers, but opened no WebSocket at ${new URL(url).pathname}: ` +
          "it may want a password (401), not admit this page (403), or have none there.",
        retry: true,
      };
  }
}

/**
 * Asks the address by plain http. Resolves to its status, "something" where
 * the browser hides another host's, undefined if nobody answers in 5 s.
 */
export async function probe(page, { fetch, origin }) {
  const own = new URL(page).origin === origin;
  try {
    const response = await fetch(page, {
      cache: "no-store",
      // Else a 401 waits for the user to fill in the browser's own dialogue.
      credentials: "omit",
      mode: own ? "same-origin" : "no-cors",
      redirect: own ? "manual" : "follow",
      signal: AbortSignal.timeout(PROBE_MS),
    });
    await response.body?.cancel();
    return response.status === 0 ? "something" : response.status;
  } catch {
    return undefined;
  }
}
