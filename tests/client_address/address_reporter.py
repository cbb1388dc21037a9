"""Tells each client who it is taken for: the address of accept(2), and that of getpeername(2).

address_reporter.py PORT [v4|v6|dual|both|one] [blocking|select|nonblocking|level|edge]
    [fork|exec|check|daemon|user=UID|chroot=DIR|also=PORT|first=FILE|prefork=N]...

The first instance that is started with first=FILE makes that file, accepts nobody, and ends when FILE.end is there.
"""
import errno, os, select, socket, subprocess, sys

port, words = int(sys.argv[1]), sys.argv[2:]


def listener():
    if "v6" in words or "dual" in words or "one" in words:
        s = socket.socket(socket.AF_INET6)
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int("v6" in words))
        address = ("::1" if "one" in words else "::", port)
    else:
        s, address = socket.socket(), ("0.0.0.0", port)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(address)
    s.listen(1000)
    return s


def shown(address):
    return "%s %d%s" % (address[0], address[1], " %d" % address[3] if len(address) > 3 and address[3] else "")


def serve(c, address):
    c.setblocking(True)
    if "check" in words:
        return check(c, address)
    text = shown(address) + "\n" + shown(c.getpeername()) + "\n"
    if "fork" in words:
        if os.fork() == 0:
            again = socket.socket(fileno=os.dup(c.fileno()))
            again.sendall((shown(address) + "\n" + shown(again.getpeername()) + "\n").encode())
            os._exit(0)
        os.wait()
    elif "exec" in words:
        # Another program, which has the connection from this one.
        asks = "import socket; a = socket.socket(fileno=0).getpeername(); print(a[0], a[1])"
        known = subprocess.run([sys.executable, "-c", asks], stdin=c, stdout=subprocess.PIPE).stdout
        c.sendall((shown(address) + "\n").encode() + known)
    else:
        try:
            c.sendall(text.encode())
        except OSError:
            pass
    c.close()


def check(c, address):
    """Compares the client's own word for who it is with ours. A client that leaves without a word is not compared."""
    c.settimeout(20)
    try:
        said = c.recv(64).decode()
        if said and (said != shown(address) or said != shown(c.getpeername())):
            print("MISTAKEN", said, shown(address), flush=True)
        c.sendall(b"seen\n")
    except OSError:
        pass
    c.close()


def accept(s):
    """Accepts a connection; None if there is none to accept."""
    try:
        return s.accept()
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.ECONNABORTED):
            return None
        raise


s = listener()
for word in words:
    if word == "daemon" and (os.fork() or os.setsid() or os.fork()):
        os._exit(0)
    if word.startswith("chroot="):
        os.chroot(word[7:])
        os.chdir("/")
    if word.startswith("user="):
        os.setgroups([])
        os.setgid(int(word[5:]))
        os.setuid(int(word[5:]))
    if word.startswith("also="):
        import threading
        other = socket.create_server(("127.0.0.1", int(word[5:])))
        threading.Thread(target=lambda: serve(*other.accept()), daemon=True).start()

    if word.startswith("first=") and not os.path.exists(word[6:]):
        open(word[6:], "w").close()
        import time
        while not os.path.exists(word[6:] + ".end"):
            time.sleep(0.01)
        os._exit(0)
    if word.startswith("prefork="):
        for _ in range(int(word[8:]) - 1):
            if os.fork() == 0:
                break

if "both" in words:
    # As Xtigervnc does: a socket for each family.
    words.append("v6")
    six = listener()

    def serve_six():
        while True:
            serve(*six.accept())

    import threading
    threading.Thread(target=serve_six, daemon=True).start()
    print("listens for both", file=sys.stderr, flush=True)

how = next((w for w in words if w in ("select", "nonblocking", "level", "edge")), "blocking")
if how == "blocking":
    while True:
        one = accept(s)
        if one:
            serve(*one)
if how == "select":
    # The listener is a blocking socket, as that of many servers.
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    while True:
        select.select([s], [], [])
        fd = libc.accept(s.fileno(), None, None)
        if fd < 0:
            # It goes on with its other clients.
            print("accept", errno.errorcode[ctypes.get_errno()], flush=True)
            continue
        c = socket.socket(fileno=fd)
        serve(c, c.getpeername())
s.setblocking(False)
epoll = select.epoll()
epoll.register(s, select.EPOLLIN | (select.EPOLLET if how == "edge" else 0))
while True:
    epoll.poll()
    one = accept(s)
    while one:
        serve(*one)
        one = accept(s) if how != "level" else None
