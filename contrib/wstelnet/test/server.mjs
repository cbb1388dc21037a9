// A web server for the built page whose WebSocket sessions follow a script.

import { createReadStream } from "node:fs";
import { once } from "node:events";
import { createServer } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { fileURLToPath } from "node:url";
import { WebSocketServer } from "ws";

const DIST = fileURLToPath(new URL("../dist/", import.meta.url));
const TYPES = { html: "text/html", js: "text/javascript", css: "text/css" };

/**
 * Listens on a free port of 127.0.0.1. `session(socket)` plays a WebSocket
 * session; `refuse()` may name an HTTP status to refuse upgrades, and plain
 * requests to their path, with; `tls` is a `{ key, cert }` in PEM.
 */
export async function serve({ session = () => {}, refuse = () => undefined, tls } = {}) {
  const answer = (request, response) => {
    const name = new URL(`http://page${request.url}`).pathname.replace(/^\/+/, "");
    const type = TYPES[name.split(".").at(-1)];
    if (!/^[a-z]+\.[a-z]+$/.test(name) || type === undefined) {
      response.writeHead(refuse() ?? 404, challenge(refuse())).end();
      return;
    }
    response.writeHead(200, { "content-type": type });
    createReadStream(DIST + name).on("error", () => response.destroy()).pipe(response);
  };
  const server = tls === undefined ? createServer(answer) : createTlsServer(tls, answer);
  const sockets = new WebSocketServer({ noServer: true });
  server.on("upgrade", (request, socket, head) => {
    const status = refuse();
    if (status !== undefined) {
      socket.end(`HTTP/1.1 ${status} Refused\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`);
      return;
    }
    sockets.handleUpgrade(request, socket, head, (client) => session(client, request));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  return {
    port,
    url: `http${tls === undefined ? "" : "s"}://127.0.0.1:${port}/wstelnet.html`,
    close() {
      for (const client of sockets.clients) client.terminate();
      server.closeAllConnections();
      server.close();
    },
  };
}

// What a server with a password sends with its 401.
function challenge(status) {
  return status === 401 ? { "www-authenticate": 'Basic realm="websockify"' } : {};
}
