// Loads a recording as a page would, and prints what it holds: the encoding, then the bytes of each
// side in hexadecimal.
import { readFileSync } from "node:fs";
import vm from "node:vm";

const page = vm.createContext({});
vm.runInContext(readFileSync(process.argv[2], "utf8"), page);
const { VNC_frame_encoding: encoding, VNC_frame_data: data } = page;
const sides = { "}": [], "{": [] };
let last = 0;
for (const entry of data) {
    if (entry === "EOF") {
        break;
    }
    const side = entry[0];
    const end = entry.indexOf(side, 1);
    const time = Number(entry.slice(1, end));
    if (!(time >= last)) {
        throw new Error(`time ${time} after ${last}`);
    }
    last = time;
    const payload = entry.slice(end + 1);
    sides[side].push(Buffer.from(payload, encoding === "base64" ? "base64" : "latin1"));
}
if (data.at(-1) !== "EOF") {
    throw new Error("no end");
}
console.log(encoding);
console.log(Buffer.concat(sides["}"]).toString("hex"));
console.log(Buffer.concat(sides["{"]).toString("hex"));
