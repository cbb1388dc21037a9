// H4: dist/ is committed; it must be what the sources build.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { fileURLToPath } from "node:url";

const HOME = fileURLToPath(new URL("..", import.meta.url));

test("dist is what the sources build", (t) => {
  const fresh = mkdtempSync(join(tmpdir(), "wstelnet-dist-"));
  t.after(() => rmSync(fresh, { recursive: true }));
  execFileSync(process.execPath, [join(HOME, "build.mjs"), fresh]);
  const committed = join(HOME, "dist");
  assert.deepEqual(readdirSync(committed).sort(), readdirSync(fresh).sort());
  for (const name of readdirSync(fresh)) {
    const same = readFileSync(join(fresh, name)).equals(readFileSync(join(committed, name)));
    assert.ok(same, `dist/${name} is stale: npm run build`);
  }
});
