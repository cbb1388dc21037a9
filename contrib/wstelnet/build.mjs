// Builds the page into dist/, or into the directory given.

import { build } from "esbuild";
import { copyFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const home = fileURLToPath(new URL(".", import.meta.url));
const out = process.argv[2] ?? join(home, "dist");
// Their licence asks that its text goes along with every copy.
const shipped = ["@xterm/xterm", "@xterm/addon-fit", "@xterm/addon-web-links"];

await mkdir(out, { recursive: true });
await build({
  absWorkingDir: home,
  entryPoints: { wstelnet: "src/page.js" },
  bundle: true,
  minify: true,
  format: "esm",
  target: ["es2022"],
  legalComments: "none",
  outdir: out,
});
await build({
  absWorkingDir: home,
  entryPoints: { wstelnet: "src/style.css" },
  bundle: true,
  minify: true,
  legalComments: "none",
  outdir: out,
});
for (const page of ["wstelnet.html", "index.html"]) {
  await copyFile(join(home, "src", page), join(out, page));
}
const licences = await Promise.all(
  shipped.map(async (name) => {
    const { version } = JSON.parse(await readFile(join(home, "node_modules", name, "package.json"), "utf8"));
    return `${name} ${version}\n\n${await readFile(join(home, "node_modules", name, "LICENSE"), "utf8")}`;
  }),
);
await writeFile(join(out, "THIRD-PARTY.txt"), licences.join("\n\n"));
