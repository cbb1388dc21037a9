// What is said of tests that are skipped.

import { appendFileSync } from "node:fs";
import { basename } from "node:path";

/** Says that this file's tests are skipped, also where the whole test run collects it (`tests/run`). */
export function skipped(reason) {
  console.log(`skipped: ${reason}`);
  const file = process.env.WEBSOCKIFY_SKIPPED;
  if (file !== undefined) appendFileSync(file, `${basename(process.argv[1])}: ${reason}\n`);
  return reason;
}
