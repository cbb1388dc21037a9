// A VNC desktop: `vncserver` of TigerVNC wrapped as the manual page has it, its one window a shell.

import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterwards } from "./cleanup.mjs";
import { freeDisplay } from "./display.mjs";
import { NOVNC, VNCSERVER, XDPYINFO, XTERM } from "./programs.mjs";
import { Websockify, waitFor } from "./websockify.mjs";

/** The shell's prompt, which tells nothing of the machine. */
const PROMPT = "desk$ ";
/** Its border leaves room for noVNC's bar. */
const WINDOW =
  `${XTERM} -fa Monospace -fs 11 -bg '#11151a' -fg '#d8dee6' -b 76 -bw 0 -geometry 72x20+0+0 -e sh`;

export class Desktop {
  /** What belongs to the desktop: its home, its recordings, what is written in its shell. */
  directory = mkdtempSync(join(tmpdir(), "websockify-desktop-"));
  #environment = {
    HOME: this.directory, DISPLAY: undefined, XAUTHORITY: undefined, LANG: "C.UTF-8", LC_ALL: "C.UTF-8",
  };
  #number;

  /**
   * Starts it with what `options(desktop)` gives for websockify, and waits until it has daemonized;
   * it ends with the test `t`.
   */
  static async start(t, size, options) {
    const desktop = new Desktop();
    afterwards(t, () => rmSync(desktop.directory, { recursive: true }));
    await desktop.#start(t, size, options(desktop));
    return desktop;
  }

  async #start(t, size, options) {
    this.#number = await freeDisplay(t);
    const session = join(this.directory, "session");
    writeFileSync(session, `#!/bin/sh\ncd "$HOME"\nPS1='${PROMPT}' exec ${WINDOW}\n`, { mode: 0o755 });
    this.websockify = new Websockify(
      t,
      [
        `127.0.0.1:${this.port}`, `--web=${NOVNC}`, `--record=${this.directory}/recording`,
        "--wrap-mode=ignore", ...options, "--",
        VNCSERVER, "-geometry", size.join("x"), "-name", "Desk", "-SecurityTypes", "None",
        "--I-KNOW-THIS-IS-INSECURE", "-xstartup", session, `:${this.#number}`,
      ],
      this.#environment,
    );
    const [, pid] = await this.websockify.said(/has daemonized as (\d+) \(Xtigervnc\)/);
    this.daemon = Number(pid);
    // Keys typed before the shell has its window would go nowhere.
    await waitFor("the shell", () => this.websockify.processes().some(({ name }) => name === "sh"));
  }

  get port() {
    return 5900 + this.#number;
  }

  /** The recording of the nth session. */
  recording(nth) {
    return `${this.directory}/recording.${nth}`;
  }

  /** Waits until this is in the file that the shell was told to write. */
  written(name, text) {
    const path = join(this.directory, name);
    let found;
    return waitFor(() => `${JSON.stringify(text)} in ${name}: ${JSON.stringify(found)}`, () => {
      try {
        found = readFileSync(path, "utf8");
      } catch {
        // Not written yet.
      }
      return found === text;
    });
  }

  /** The size of the display as other X programs see it. */
  size() {
    const environment = { ...process.env, ...this.#environment, DISPLAY: `:${this.#number}` };
    const told = execFileSync(XDPYINFO, { encoding: "utf8", env: environment });
    return told.match(/dimensions: +(\d+)x(\d+) /).slice(1).map(Number);
  }
}
