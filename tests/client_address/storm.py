#!/usr/bin/env python3
"""Sessions that come and go, a thousand a second: is a client ever shown as another (A2)?

WEBSOCKIFY=target/release/websockify tests/client_address/storm.py [SECONDS [RATE [PROCESSES]]]

Wraps address_reporter.py under --client-address=socket. A quarter of the clients leave without a word, a quarter when they
have said who they are, half of either by a reset; the others wait for the answer. Prints what came of them, and fails if one
was taken for another or was not served (exit status 1), or if the rate was not reached (3). That wants a machine that does
nothing else.
"""
import json, os, shlex, socket, struct, subprocess, sys, tempfile, time

SECONDS, RATE, PROCESSES = (int(word) for word in (sys.argv[1:] + ["60", "1000", "8"][len(sys.argv) - 1:]))
HEAD = (b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
HERE = os.path.dirname(os.path.abspath(__file__))


def free_port():
    with socket.socket() as s:
        s.bind(("0.0.0.0", 0))
        return s.getsockname()[1]


def leave(s, by_reset):
    if by_reset:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()


def read(s, is_enough, got=b""):
    while not is_enough(got):
        more = s.recv(4096)
        if not more:
            raise OSError("closed too soon")
        got += more
    return got


def client(port, number, process):
    """One client, and what came of it."""
    s = socket.socket()
    s.settimeout(20)
    s.bind(("127.9.%d.%d" % (1 + process, 1 + number % 200), 0))
    s.connect(("127.0.0.1", port))
    s.sendall(HEAD)
    rest = read(s, lambda got: b"\r\n\r\n" in got).split(b"\r\n\r\n", 1)[1]
    if number % 4 == 3:
        leave(s, number % 8 == 3)
        return "left without a word"
    word = ("%s %d" % s.getsockname()).encode()
    s.sendall(bytes([0x82, 0x80 | len(word), 0, 0, 0, 0]) + word)
    if number % 4 == 1:
        leave(s, number % 8 == 1)
        return "left after its word"
    answer = read(s, lambda got: len(got) >= 7, rest)
    s.close()
    return "served" if answer[2:7] == b"seen\n" else "wrong answer %r" % answer


def clients(port, process, began):
    """The clients of one process, each at its time."""
    came = {}
    for number in range(SECONDS * RATE // PROCESSES):
        time.sleep(max(0, began + number * PROCESSES / RATE - time.monotonic()))
        try:
            what = client(port, number, process)
        except OSError as error:
            what = "failed: %s" % error
        came[what] = came.get(what, 0) + 1
    return came


def main():
    port, said = free_port(), tempfile.TemporaryFile()
    line = [os.environ["WEBSOCKIFY"], "--client-address=socket", str(port), "--", sys.executable,
            os.path.join(HERE, "address_reporter.py"), str(port), "edge", "check", "prefork=4"]
    print(shlex.join(line))
    websockify = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while True:
        try:
            client(port, 0, 99)
            break
        except OSError:
            if time.monotonic() > deadline or websockify.poll() is not None:
                sys.exit("it does not serve")
            time.sleep(0.05)
    began, total, pipes = time.monotonic(), {}, []
    for process in range(PROCESSES):
        ours, theirs = os.pipe()
        if os.fork() == 0:
            os.write(theirs, json.dumps(clients(port, process, began)).encode())
            os._exit(0)
        os.close(theirs)
        pipes.append(open(ours, "rb"))
    for pipe in pipes:
        for what, number in json.loads(pipe.read()).items():
            total[what] = total.get(what, 0) + number
    took = time.monotonic() - began
    websockify.terminate()
    websockify.wait()
    said.seek(0)
    mistaken = said.read().count(b"MISTAKEN")
    number = sum(total.values())
    for what in sorted(total):
        print("%7d %s" % (total[what], what))
    print("%d in %.1f s: %.0f/s; %d taken for another" % (number, took, number / took, mistaken))
    good = {"served", "left without a word", "left after its word"}
    if mistaken or not set(total) <= good:
        sys.exit(1)
    if number / took < 0.95 * RATE:
        sys.exit(3)


main()
