// Certificates that sign themselves, for one test.

import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { OPENSSL } from "./programs.mjs";

/** Makes a certificate of this common name and its key in `directory`; gives the paths of the two. */
export function selfSigned(directory, name) {
  const [cert, key] = ["cert", "key"].map((kind) => join(directory, `${name}.${kind}.pem`));
  const of = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", `/CN=${name}`];
  const is = ["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", key, "-out", cert];
  execFileSync(OPENSSL, ["req", "-x509", ...of, ...is], { stdio: "ignore" });
  return { cert, key };
}
