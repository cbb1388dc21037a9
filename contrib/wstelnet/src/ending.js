// Why a connection ended, in words for the user, and whether to try again.
//
// Knows the close codes of RFC 6455 and what a plain request to the same
// address may reveal. It does not know the WebSocket or when to retry.

const PROBE_MS = 5000;

/**
 * The connection was open and was closed with `code` and `reason`. `words` are
 * for the user, `retry` says that the same target may well work soon, `orderly`
 * that nothing went wrong.
 */
export function closed(code, reason, name) {
  // What websockify calls the target is the server for the user at the terminal.
  const why = reason === "" ? "" : `: ${reason.replace(/^target\b/i, "the server")}`;
  switch (code) {
    case 1000:
      return { words: `The session has ended${why}.`, retry: false, orderly: true };
    case 1001:
      return { words: `${name} is going away${why}.`, retry: true };
    case 1006:
      return { words: `The connection to ${name} was lost.`, retry: true };
    case 1011:
      return { words: `${name} ended the session${why || " because of an error"}.`, retry: false };
    case 1012:
      return { words: `${name} is being started again.`, retry: true };
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
          "Reconnect, and your browser asks you for them.",
        retry: false,
      };
    case 403:
      return { words: `${name} does not admit this page or this user (403).`, retry: false };
    case 503:
      return { words: `${name} takes no session at present (503).`, retry: true };
    case undefined: {
      const encrypted = url.startsWith("wss:");
      const certificate =
        " If its certificate is not trusted, or it wants one of yours, open its https address once and look.";
      return { words: `Nothing answers at ${name}${encrypted ? ` with TLS.${certificate}` : "."}`, retry: true };
    }
    case "plain":
      return {
        words:
          `Something answers at ${name}, but not with TLS, or with a certificate that is not trusted: ` +
          "connect without encryption, or open its https address once and look.",
        retry: true,
      };
    case "something":
      return {
        words:
          `${name} answers, but opened no WebSocket at ${new URL(url).pathname}: ` +
          "it may want a password (401), not admit this page (403), or have none there.",
        retry: true,
      };
    default:
      return {
        words: `${name} answers, but opened no WebSocket at ${new URL(url).pathname} (${found}).`,
        retry: true,
      };
  }
}

/**
 * What there is at the address of a WebSocket that did not open, as `probe` tells it. Browsers say
 * nothing of a TLS handshake that failed: a server that answers there without TLS is "plain". From
 * an https page they let us ask this machine only.
 */
export async function look(page, browser) {
  const found = await probe(page, browser);
  if (found !== undefined || !page.startsWith("https:")) return found;
  const unencrypted = await probe(page.replace(/^https/, "http"), browser);
  return unencrypted === undefined ? undefined : "plain";
}

/**
 * Asks the address by a request. Resolves to its status, "something" where
 * the browser hides another host's, undefined if nobody answers in 5 s.
 */
export async function probe(page, { fetch, origin }) {
  // websockify checks OPTIONS as it does a handshake, and tells the result.
  const own = { method: "OPTIONS", mode: "same-origin", redirect: "manual" };
  const other = { mode: "no-cors", redirect: "follow" };
  try {
    const response = await fetch(page, {
      cache: "no-store",
      // Else a 401 waits for the user to fill in the browser's own dialogue.
      credentials: "omit",
      signal: AbortSignal.timeout(PROBE_MS),
      ...(new URL(page).origin === origin ? own : other),
    });
    await response.body?.cancel();
    return response.status === 0 ? "something" : response.status;
  } catch {
    return undefined;
  }
}

/**
 * Has the browser ask for a user name and a password, which it then sends with
 * handshakes too; by itself it asks at none. Ends with the dialogue, or by `signal`.
 */
export async function logIn(page, { fetch }, signal) {
  const request = { method: "OPTIONS", cache: "no-store", credentials: "same-origin", signal };
  try {
    const response = await fetch(page, request);
    await response.body?.cancel();
  } catch {
    // The handshake that follows fails too, and is told of.
  }
}
