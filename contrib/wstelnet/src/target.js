// Where to connect to: form fields and links, parsed into URLs.
//
// Knows the page's address and the rules for a host, a port and a path. It
// does not know the form's elements and opens nothing.

/** What the form starts with: the page's own host and port. A page that came by https cannot connect without. */
export function defaults(location) {
  const secure = location.protocol === "https:";
  return {
    host: location.hostname === "" ? "localhost" : bare(location.hostname),
    port: location.port || (secure ? "443" : "80"),
    path: "websockify",
    encrypt: secure,
  };
}

/** The form's fields from a link: `?host=&port=&path=&encrypt=&autoconnect=`, defaults where it is silent. */
export function fromLink(location) {
  const query = new URLSearchParams(location.search);
  const own = defaults(location);
  return {
    host: query.get("host") ?? own.host,
    port: query.get("port") ?? own.port,
    path: query.get("path") ?? own.path,
    encrypt: own.encrypt || flag(query.get("encrypt")),
    autoconnect: flag(query.get("autoconnect")),
  };
}

/** The link to a form so filled, as a query: "" if it is the default. */
export function toLink(fields, location) {
  const own = defaults(location);
  const query = new URLSearchParams();
  for (const name of ["host", "port", "path"]) {
    if (fields[name] !== own[name]) query.set(name, fields[name]);
  }
  if (fields.encrypt && !own.encrypt) query.set("encrypt", "1");
  if (fields.autoconnect) query.set("autoconnect", "1");
  return query.size === 0 ? "" : `?${query}`;
}

/**
 * What to connect to: `url` for the WebSocket, `page` the same by http,
 * `name` for people, and `near`: this machine itself. Throws an Error in words for the user on a bad field.
 */
export function parse({ host, port, path, encrypt }) {
  const name = bare(host.trim());
  if (name === "") throw new Error("Which host?");
  if (/[\s/?#@\\]/.test(name)) throw new Error(`“${name}” is not a host name or address.`);
  if (!/^\d{1,5}$/.test(port.trim()) || Number(port) < 1 || Number(port) > 65535) {
    throw new Error(`“${port.trim()}” is not a port: a number from 1 to 65535.`);
  }
  const authority = `${name.includes(":") ? `[${name}]` : name}:${Number(port)}`;
  const rest = `${authority}/${path.trim().replace(/^\/+/, "").replace(/#.*/, "")}`;
  if (!URL.canParse(`http://${rest}`)) throw new Error(`“${rest}” is not an address.`);
  return {
    url: `${encrypt ? "wss" : "ws"}://${rest}`,
    page: `${encrypt ? "https" : "http"}://${rest}`,
    name: authority,
    near: /^(127(\.\d+){3}|::1|(.*\.)?localhost)$/i.test(name),
  };
}

// "[::1]" as it stands in a URL, "::1" as people write it.
function bare(host) {
  return host.replace(/^\[(.*)\]$/, "$1");
}

function flag(value) {
  return value !== null && !["", "0", "false", "no"].includes(value.toLowerCase());
}
