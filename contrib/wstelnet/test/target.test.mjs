// H4: the form's defaults, links, and what is not an address.

import assert from "node:assert/strict";
import test from "node:test";
import { defaults, fromLink, parse, toLink } from "../src/target.js";

const at = (url) => new URL(url);

test("the page's own host and port are the default, encrypted as the page is", () => {
  const path = "websockify";
  for (const [page, expected] of [
    ["http://box:2023/wstelnet.html", { host: "box", port: "2023", path, encrypt: false }],
    ["https://box/", { host: "box", port: "443", path, encrypt: true }],
    ["http://[::1]:80/", { host: "::1", port: "80", path, encrypt: false }],
    ["file:///tmp/wstelnet.html", { host: "localhost", port: "80", path, encrypt: false }],
  ]) {
    assert.deepEqual(defaults(at(page)), expected, page);
  }
});

test("a link fills the form", () => {
  const link = "http://box/?host=other&port=99&path=a%2Fb%3Ftoken%3D1&encrypt=true&autoconnect=1";
  assert.deepEqual(fromLink(at(link)), {
    host: "other", port: "99", path: "a/b?token=1", encrypt: true, autoconnect: true,
  });
  assert.equal(fromLink(at("http://box/?encrypt=0")).encrypt, false);
  assert.equal(fromLink(at("http://box/?path=")).path, "");
});

test("an encrypted page cannot be told to connect without", () => {
  assert.equal(fromLink(at("https://box/?encrypt=0")).encrypt, true);
});

test("the link to a form fills it the same", () => {
  for (const page of ["http://box:2023/", "https://box/", "http://box/?host=h&port=1&path=p+q%26&encrypt=1&autoconnect=1"]) {
    const fields = fromLink(at(page));
    const { origin } = at(page);
    assert.deepEqual(fromLink(at(`${origin}/${toLink(fields, at(page))}`)), fields, page);
  }
  assert.equal(toLink(fromLink(at("https://box/")), at("https://box/")), "");
});

test("addresses", () => {
  for (const [fields, url, name, near = false] of [
    [{ host: "box", port: "2023", path: "websockify", encrypt: false }, "ws://box:2023/websockify", "box:2023"],
    [{ host: " 10.0.0.1 ", port: " 80 ", path: "", encrypt: true }, "wss://10.0.0.1:80/", "10.0.0.1:80"],
    [{ host: "::1", port: "23", path: "/a?b=c#d", encrypt: false }, "ws://[::1]:23/a?b=c", "[::1]:23", true],
    [{ host: "[fe80::1]", port: "023", path: "//x", encrypt: false }, "ws://[fe80::1]:23/x", "[fe80::1]:23"],
  ]) {
    assert.deepEqual(parse(fields), { url, page: url.replace("ws", "http"), name, near });
  }
});

test("this machine is told from others", () => {
  const near = (host) => parse({ host, port: "1", path: "", encrypt: false }).near;
  for (const host of ["localhost", "LOCALHOST", "a.localhost", "127.0.0.1", "127.9.9.9", "[::1]"]) assert(near(host), host);
  for (const host of ["nolocalhost", "localhost.net", "127.example", "10.127.0.0", "::2"]) assert(!near(host), host);
});

test("what is not an address is said in words", () => {
  for (const [host, port, words] of [
    ["", "80", /Which host/],
    [" ", "80", /Which host/],
    ["a b", "80", /not a host/],
    ["user@box", "80", /not a host/],
    ["box/path", "80", /not a host/],
    ["1::2::3", "80", /not an address/],
    ["box", "", /not a port/],
    ["box", "0", /not a port/],
    ["box", "65536", /not a port/],
    ["box", "8o", /not a port/],
    ["box", "-1", /not a port/],
  ]) {
    assert.throws(() => parse({ host, port, path: "", encrypt: false }), { message: words }, `${host}:${port}`);
  }
});
