// A line server as games have it (MUD): offers that a terminal does not take, prompts that end with
// GA or EOR, colours, a password that is not shown, CR NUL, text in pieces. It sends GA although it
// has announced SGA, and never echoes.
//
//   node mud.mjs PORT

import { createServer } from "node:net";

const [IAC, WILL, WONT, DO, SB, SE, GA, EOR] = [255, 251, 252, 253, 250, 240, 249, 239];
const [NUL, LF, CR] = [0, 10, 13];
const [ECHO, SGA, TTYPE, END_OF_RECORD, NAWS, CHARSET, MSSP, MCCP2, MXP, GMCP] = [1, 3, 24, 25, 31, 42, 70, 86, 91, 201];

const OFFERS = [
  IAC, WILL, SGA, IAC, WILL, END_OF_RECORD, IAC, WILL, MSSP, IAC, WILL, MCCP2, IAC, WILL, MXP, IAC, WILL, GMCP,
  IAC, WILL, CHARSET, IAC, DO, TTYPE, IAC, DO, NAWS, IAC, DO, CHARSET,
];

createServer((socket) => {
  const write = (...parts) => parts.forEach((part) => socket.write(Buffer.from(part)));
  const prompt = (text, end = GA) => write(text, [IAC, end]);
  const lines = [];
  const told = [];
  let pending = [];
  let answer = name;

  write(OFFERS, "\x1b[1;32mThe Cellar\x1b[0m\r\nKeller, süß und \x1b[33mdunkel\x1b[0m. ");
  // The line goes on, byte by byte: cut in the middle of letters, colours and commands.
  for (const byte of Buffer.from("Ein Krug \x1b[36mMet\x1b[0m für 3 €.\r\n")) write([byte]);
  write([IAC], [SB], [GMCP], 'Room.Info {"num":1}', [IAC, SE]);
  prompt("Name: ");

  socket.on("error", () => {});
  socket.on("data", (data) => data.forEach(take));

  // What the client agrees to and refuses is kept for "told".
  function take(byte) {
    pending.push(byte);
    if (pending[0] === IAC) {
      const done = pending[1] === SB ? byte === SE && pending.at(-2) === IAC : pending.length === 3;
      if (!done) return;
      if (pending[1] !== SB) told.push(pending);
      pending = [];
    } else if (byte === LF || (byte === NUL && pending.at(-2) === CR)) {
      // RFC 1123, section 3.3.1: Enter is CR LF or CR NUL.
      const line = Buffer.from(pending).toString().replace(/[\r\n\0]+$/, "");
      pending = [];
      answer(line);
    }
  }

  function name(line) {
    lines.push(line);
    write([IAC, WILL, ECHO]);
    prompt("Password: ");
    answer = password;
  }

  function password(line) {
    write([IAC, WONT, ECHO], `\r\n${line.length} letters. Welcome, ${lines[0]}.\r\n`);
    // A bare carriage return, as RFC 854 has it: the line is written over.
    write("loading 10%\r\0loading 99%\r\0ready.     \r\n");
    prompt("<10hp> ", EOR);
    answer = command;
  }

  function command(line) {
    if (line === "told") write(`${told.map((command) => command.slice(1).join(" ")).join("; ")}\r\n`);
    else if (line === "quit") return socket.end("Bye.\r\n");
    else write(`You say: ${line}\r\n`);
    prompt("<10hp> ", EOR);
    // A rat comes while somebody may be typing.
    if (line === "wait") setTimeout(() => write("\r\nA rat bites you.\r\n<9hp> ", [IAC, EOR]), 300);
  }
}).listen(Number(process.argv[2]), "127.0.0.1");
