// One running websockify and what it started: its log, its end. Nothing of it outlives the tests.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { afterwards } from "./cleanup.mjs";
import { WEBSOCKIFY } from "./programs.mjs";

const DEADLINE_MS = 30_000;
// By this variable processes are found that have left the tree.
const MARK = "WEBSOCKIFY_TEST";

// Each process, which is a file of tests, has a hundred numbers of its own, and gives each out once, while there are some.
const FIRST_PORT = 10_100 + 100 * (process.pid % 19);
let portsTaken = Math.floor(Math.random() * 100);
const nextPort = () => FIRST_PORT + (portsTaken++ % 100);

/** A free port of loopback: `wanted`, if that is free. Others are below the ports that the kernel takes for outgoing
 * connections, and below those of the other tests, which may run at the same time. */
export async function freePort(wanted = nextPort()) {
  const server = createServer().listen(wanted, "127.0.0.1");
  try {
    await once(server, "listening");
  } catch {
    return freePort();
  }
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

/** Waits until `look` finds something. */
export async function waitFor(what, look) {
  const deadline = Date.now() + DEADLINE_MS;
  for (;;) {
    const late = Date.now() > deadline;
    const found = await look();
    if (found) return found;
    if (late) assert.fail(`not seen in time: ${typeof what === "function" ? what() : what}`);
    await pause(10);
  }
}

export class Websockify {
  static #started = 0;
  #mark = `${process.pid}-browser-${(Websockify.#started += 1)}`;
  #child;
  #ended;
  log = "";

  /** Starts it, or by `program`, and ends it and all that it started with the test `t`. */
  constructor(t, args, env = {}, program = WEBSOCKIFY) {
    // What websockify unpacks is left if a daemon is left running.
    const scratch = mkdtempSync(join(tmpdir(), "websockify-browser-"));
    chmodSync(scratch, 0o1777);
    afterwards(t, () => rmSync(scratch, { recursive: true }));
    this.#child = spawn(program, args, {
      env: { ...process.env, TMPDIR: scratch, ...env, [MARK]: this.#mark },
      stdio: ["ignore", "ignore", "pipe"],
    });
    this.#ended = once(this.#child, "close");
    this.#child.stderr.on("data", (data) => (this.log += data));
    afterwards(t, () => this.kill());
  }

  /** Starts it, and waits until its port is open. */
  static async listening(t, args, env, program) {
    const websockify = new Websockify(t, args, env, program);
    await websockify.said(/ listening on /);
    return websockify;
  }

  /** Waits until its log matches. */
  said(pattern) {
    return waitFor(() => `${pattern} in:\n${this.log}`, () => {
      const found = this.log.match(pattern);
      assert.ok(found || this.#child.exitCode === null, `websockify has ended:\n${this.log}`);
      return found;
    });
  }

  signal(name) {
    this.#child.kill(name);
  }

  /** Asks it to stop; resolves to its exit status. */
  stop() {
    this.signal("SIGTERM");
    return this.end();
  }

  /** Waits for its end; resolves to its exit status. */
  async end() {
    await this.#ended;
    return this.#child.exitCode;
  }

  /** The names and numbers of the living processes that it started, itself among them. */
  processes() {
    const ours = `${MARK}=${this.#mark}\0`;
    return readdirSync("/proc").filter((name) => /^\d+$/.test(name)).flatMap((pid) => {
      try {
        // Of a zombie there is no environment to read.
        if (!readFileSync(`/proc/${pid}/environ`, "latin1").includes(ours)) return [];
        return [{ pid: Number(pid), name: readFileSync(`/proc/${pid}/comm`, "utf8").trim() }];
      } catch {
        return [];
      }
    });
  }

  /** Ends it and all that it started, without asking. */
  killed() {
    this.kill();
    return this.end();
  }

  /** The same at once; it may still be ending. */
  kill() {
    // Each process is stopped first, so that it forks no more before it is killed. Repeated, as it may have forked already.
    for (let round = 0; round < 100; round += 1) {
      const alive = this.processes();
      if (alive.length === 0) break;
      for (const signal of ["SIGSTOP", "SIGKILL"]) for (const { pid } of alive) signalTo(pid, signal);
    }
  }
}

function signalTo(pid, signal) {
  try {
    process.kill(pid, signal);
  } catch {
    // It has ended.
  }
}
