"""What the machines are tried with: clients that hold sessions one after the other, and count how they end; and the
server that these lead to. Standard library alone.

    load.py echo ADDRESS PORT
    load.py clients ADDRESS PORT CLIENTS TOKENS SHORTEST LONGEST

Clients print a line of JSON for each line on their standard input, with what has happened since the one before; at its
end they begin no more sessions, and print what the last ones came to.
"""

import asyncio
import base64
import json
import os
import random
import struct
import sys
import time

# How long anything may take that should come at once, in seconds.
PATIENCE = 30
# Between two messages of a session.
PAUSE = 0.1
# Between a refusal and the next attempt.
REST = 0.05


class Refused(Exception):
    """No session has come of a handshake."""


class Cut(Exception):
    """A session has ended, and not by us."""


class Counts:
    """What has happened."""

    def __init__(self):
        self.good = 0
        self.refused = {}
        self.cut = {}
        self.wrong = 0
        # For a session to begin, or a message to come back, in seconds.
        self.longest_wait = 0.0

    def waited(self, began):
        self.longest_wait = max(self.longest_wait, time.monotonic() - began)

    def note(self, kind, why):
        kind[why] = kind.get(why, 0) + 1


def masked(opcode, payload):
    """A frame of a client's (RFC 6455, section 5.2), shorter than 126 bytes."""
    key = os.urandom(4)
    body = bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))
    return bytes([0x80 | opcode, 0x80 | len(payload)]) + key + body


async def frame(reader):
    """The next frame of a server's: its opcode and payload."""
    first, length = await reader.readexactly(2)
    if length == 126:
        (length,) = struct.unpack(">H", await reader.readexactly(2))
    elif length == 127:
        (length,) = struct.unpack(">Q", await reader.readexactly(8))
    return first & 0xF, await reader.readexactly(length)


async def shake_hands(address, port, token):
    try:
        reader, writer = await asyncio.open_connection(address, port)
    except OSError as error:
        raise Refused(error.strerror or "not connected") from None
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        f"GET /?token={token} HTTP/1.1\r\nHost: {address}:{port}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
    )
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, OSError):
        writer.close()
        raise Refused("no answer") from None
    status = head.split(b" ", 2)[1].decode()
    if status != "101":
        writer.close()
        raise Refused(f"status {status}")
    return reader, writer


async def talk(reader, writer, seconds, counts):
    """Sends something now and then, which must come back, until the time is over; then closes."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    try:
        while loop.time() < end:
            sent = os.urandom(32)
            began = time.monotonic()
            writer.write(masked(2, sent))
            came = b""
            while len(came) < len(sent):
                opcode, payload = await frame(reader)
                if opcode == 8:
                    code = struct.unpack(">H", payload[:2])[0] if len(payload) > 1 else 1005
                    raise Cut(f"code {code}")
                came += payload if opcode in (0, 2) else b""
            counts.waited(began)
            if came != sent:
                counts.wrong += 1
                return
            await asyncio.sleep(PAUSE)
        writer.write(masked(8, struct.pack(">H", 1000)))
        while (await frame(reader))[0] != 8:
            pass
        counts.good += 1
    except (asyncio.IncompleteReadError, OSError):
        raise Cut("connection lost") from None


async def client(address, port, tokens, lengths, counts, is_over):
    while not is_over.is_set():
        writer = None
        try:
            async with asyncio.timeout(PATIENCE):
                token = f"token{random.randrange(tokens)}"
                began = time.monotonic()
                reader, writer = await shake_hands(address, port, token)
                counts().waited(began)
            async with asyncio.timeout(PATIENCE + lengths[1]):
                await talk(reader, writer, random.uniform(*lengths), counts())
        except Refused as why:
            counts().note(counts().refused, str(why))
            await asyncio.sleep(REST)
        except Cut as why:
            counts().note(counts().cut, str(why))
        except TimeoutError:
            kind = counts().cut if writer else counts().refused
            counts().note(kind, f"nothing for {PATIENCE} s")
        finally:
            if writer:
                writer.close()


async def clients(address, port, number, tokens, shortest, longest):
    now = [Counts()]
    is_over = asyncio.Event()
    lengths = (shortest, longest)
    all_of_them = asyncio.gather(
        *(client(address, port, tokens, lengths, lambda: now[0], is_over) for _ in range(number))
    )
    loop = asyncio.get_running_loop()
    asked = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(asked), sys.stdin)
    while await asked.readline():
        done, now[0] = now[0], Counts()
        print(json.dumps(vars(done)), flush=True)
    is_over.set()
    await all_of_them
    print(json.dumps(vars(now[0])), flush=True)


async def echo(address, port):
    async def serve(reader, writer):
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        writer.close()

    server = await asyncio.start_server(serve, address, port, backlog=1024)
    print("ready", flush=True)
    await server.serve_forever()


def main(what, address, port, *more):
    if what == "echo":
        work = echo(address, int(port))
    else:
        number, tokens, shortest, longest = more
        lengths = float(shortest), float(longest)
        work = clients(address, int(port), int(number), int(tokens), *lengths)
    try:
        asyncio.run(work)
    except KeyboardInterrupt:
        pass


main(*sys.argv[1:])
