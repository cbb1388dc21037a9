"""Installs what contrib/release has made, as people do, and runs it: release_check.py DIRECTORY AARCH64

DIRECTORY has the files, AARCH64 a QEMU with a C library and a busybox for programs of that architecture. Says of each
what was run, and what was not. Knows no more of websockify than its users.
"""

import base64
import contextlib
import errno
import os
import pathlib
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import zipfile

DEADLINE = 60
OLDEST_GLIBC = (2, 17)
# What every system with glibc has of it; later ones have the rest of these in libc.so.6.
OF_GLIBC = re.compile(r"(libc\.so\.6|lib(dl|m|pthread|rt|util)\.so\.\d|ld-linux-.*)$")

dist, aarch64 = (pathlib.Path(argument).resolve() for argument in sys.argv[1:])
QEMU = [str(aarch64 / "usr/bin/qemu-aarch64-static"), "-L", str(aarch64)]


def said_by(*command):
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=DEADLINE)
    assert run.returncode == 0, f"{command}: {run.stdout}"
    return run.stdout


def only(pattern):
    found = sorted(dist.glob(pattern))
    assert len(found) == 1, f"{pattern}: {found}"
    return found[0]


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextlib.contextmanager
def running(*command, **options):
    """websockify, from its word that it accepts to its end by SIGTERM."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, **options)
    hung = threading.Timer(DEADLINE, process.kill)
    hung.start()
    try:
        log = ""
        for line in process.stderr:
            log += line
            if "proxying from" in line:
                break
        else:
            raise AssertionError(f"{command} ended: {log}")
        # Nobody else would read what is logged from here on.
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield
        process.terminate()
        status = process.wait()
        assert status == 0, f"{command}: exit status {status}"
    finally:
        process.kill()
        process.wait()
        hung.cancel()


def session(port, sent, expected, tls=False):
    """A WebSocket session: what is sent makes the target answer with what is expected."""
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(socket.create_connection(("127.0.0.1", port), DEADLINE))
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            client = stack.enter_context(context.wrap_socket(client))
        key = base64.b64encode(os.urandom(16)).decode()
        client.sendall(
            f"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        # RFC 6455, 5.2: final, binary, masked with zeros.
        assert len(sent) < 126
        client.sendall(bytes([0x82, 0x80 | len(sent), 0, 0, 0, 0]) + sent)
        received = b""
        while expected not in received:
            chunk = client.recv(65536)
            assert chunk, f"ended after {received}"
            received += chunk
        assert received.startswith(b"HTTP/1.1 101 "), received


def bridges(*websockify, certificate=None, cwd="/"):
    """A session between a client and a server that runs already; with a certificate, in TLS."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def echo():
            connection, _ = server.accept()
            with connection:
                connection.sendall(connection.recv(64)[::-1])

        threading.Thread(target=echo, daemon=True).start()
        port = free_port()
        options = ["--cert", certificate, "--ssl-only"] if certificate else []
        with running(*websockify, *options, f"127.0.0.1:{port}", f"127.0.0.1:{server.getsockname()[1]}", cwd=cwd):
            session(port, b"hello", b"olleh", tls=bool(certificate))


def wraps(*websockify, program=("python3", "-m", "http.server", "PORT"), directory=None):
    """A web server, somebody else's by default, started by websockify, its port moved. It serves a directory's page."""
    with contextlib.ExitStack() as stack:
        directory = directory or stack.enter_context(tempfile.TemporaryDirectory())
        pathlib.Path(directory, "page").write_text("a page of the wrapped server")
        port = str(free_port())
        program = [port if word == "PORT" else word for word in program]
        with running(*websockify, port, "--", *program, cwd=directory, stdout=subprocess.DEVNULL):
            session(int(port), b"GET /page HTTP/1.0\r\n\r\n", b"a page of the wrapped server")


def moves(rebind, *server):
    """A web server with this rebind.so loaded listens on another port than the one that it asks for, on loopback."""
    with tempfile.TemporaryDirectory() as directory:
        pathlib.Path(directory, "page").write_text("a page of the moved server")
        asked, moved = str(free_port()), str(free_port())
        environment = [f"LD_PRELOAD={rebind}", f"REBIND_OLD_PORT={asked}", f"REBIND_NEW_PORT={moved}"]
        options = [word for variable in environment for word in ("-E", variable)]
        server = [asked if word == "PORT" else word for word in server]
        process = subprocess.Popen([*QEMU, *options, *server], cwd=directory)
        try:
            assert b"a page of the moved server" in page(int(moved)), f"{rebind} moves nothing"
            with socket.socket() as refused:
                assert refused.connect_ex(("127.0.0.1", int(asked))) == errno.ECONNREFUSED, f"{asked} is open"
        finally:
            process.kill()
            process.wait()


def page(port):
    """What a web server gives that is about to listen."""
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            client = socket.create_connection(("127.0.0.1", port), DEADLINE)
            break
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, f"nobody listens on {port}"
            time.sleep(0.1)
    with client:
        client.sendall(b"GET /page HTTP/1.0\r\n\r\n")
        return b"".join(iter(lambda: client.recv(65536), b""))


def archived(files):
    """The archive that the kernel unpacks into memory, in cpio's format "newc"; a file is (path, mode, bytes)."""
    archive = b""
    for number, (path, mode, content) in enumerate([*files, ("TRAILER!!!", 0, b"")], 1):
        name = path.encode() + b"\0"
        fields = [number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name), 0]
        head = b"070701" + b"".join(b"%08x" % field for field in fields) + name
        archive += head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4)
    return archive


def machine_files(binary):
    """What the virtual machine has: this binary, a C library, and busybox twice."""
    libraries = [path for path in sorted(aarch64.glob("lib/**/*")) if re.search(r"/(ld-linux|lib)[\w-]*\.so", str(path))]
    static = aarch64 / "static/bin/busybox"
    files = {
        "init": pathlib.Path(__file__).with_name("release_init"),
        "bin/websockify": binary,
        "bin/busybox": static,
        "programs/static/busybox": static,
        "programs/dynamic/busybox": aarch64 / "bin/busybox",
        **{str(path.relative_to(aarch64)): path for path in libraries},
    }
    directories = sorted({str(parent) for name in files for parent in pathlib.PurePath(name).parents} - {"."})
    yield from ((directory, 0o40755, b"") for directory in [*directories, "etc"])
    yield from ((name, 0o100755, path.read_bytes()) for name, path in files.items())
    yield "etc/passwd", 0o100644, b"root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n"


def check_symbols(path):
    """Nothing newer than the oldest glibc is wanted, and no other library."""
    versions = re.findall(r"@GLIBC_(\d+)\.(\d+)", said_by("readelf", "--wide", "--dyn-syms", str(path)))
    newest = max((int(major), int(minor)) for major, minor in versions)
    assert newest <= OLDEST_GLIBC, f"{path} wants glibc {newest}"
    for library in re.findall(r"NEEDED.*\[(.*)\]", said_by("readelf", "--dynamic", str(path))):
        assert OF_GLIBC.match(library), f"{path} wants {library}"


class Checks:
    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.certificate = str(self.directory / "self.pem")
        said_by("openssl", "req", "-new", "-x509", "-days", "2", "-nodes", "-subj", "/CN=localhost", "-batch",
                "-out", self.certificate, "-keyout", self.certificate)

    def ran(self, path, *what):
        print(f"{path.name}: {', '.join(what)}", flush=True)

    def extracted(self, deb, binary):
        """The package's files; the program among them is the released one, and has their rebind.so inside."""
        root = self.directory / deb.name
        said_by("dpkg-deb", "--extract", str(deb), str(root))
        program, rebind = root / "usr/bin/websockify", root / "usr/lib/websockify/rebind.so"
        assert program.read_bytes() == binary.read_bytes(), deb
        assert rebind.read_bytes() in binary.read_bytes(), deb
        check_symbols(program)
        check_symbols(rebind)
        return program

    def installed(self, wheel, binary, *options):
        """The wheel in a fresh environment, or in a directory of another architecture's."""
        place = self.directory / wheel.name
        said_by(sys.executable, "-m", "venv", str(place))
        said_by(str(place / "bin/pip"), "install", "--quiet", "--no-index", *options, str(wheel))
        program = place / "bin/websockify"
        assert program.read_bytes() == binary.read_bytes(), wheel
        return program

    def glibc(self):
        binary = only("*-x86_64-linux-glibc2.17")
        said_by(str(binary), "--version")
        bridges(str(binary))
        bridges(str(binary), certificate=self.certificate)
        for engine in ("preload", "seccomp"):
            wraps(str(binary), f"--rebind-engine={engine}")
        self.ran(binary, "bridges", "in TLS", "wraps under both engines", "wants glibc 2.17 at most")
        deb, wheel = only("*_amd64.deb"), only("*x86_64.whl")
        wraps(str(self.extracted(deb, binary)))
        self.ran(deb, "unpacked", "wraps")
        place = self.installed(wheel, binary).parent
        # By its name, as whoever has activated the environment.
        wraps("/usr/bin/env", f"PATH={place}:{os.environ['PATH']}", "websockify")
        self.ran(wheel, "installed by pip", "found in PATH", "wraps")

    def aarch64(self):
        """QEMU's user mode has no child subreapers (prctl(2)), without which nothing is wrapped: rebind.so is run alone."""
        binary = only("*-aarch64-linux-glibc2.17")
        said_by(*QEMU, str(binary), "--version")
        bridges(*QEMU, str(binary))
        bridges(*QEMU, str(binary), certificate=self.certificate)
        self.ran(binary, "bridges", "in TLS", "wants glibc 2.17 at most")
        self.in_a_machine(binary)
        deb, wheel = only("*_arm64.deb"), only("*aarch64.whl")
        rebind = self.extracted(deb, binary).parents[1] / "lib/websockify/rebind.so"
        moves(rebind, str(aarch64 / "bin/busybox"), "httpd", "-f", "-p", "PORT")
        self.ran(deb, "unpacked", "its rebind.so moves a port", "wraps nothing here (QEMU runs no supervisor)")
        with zipfile.ZipFile(wheel) as files:
            program = [name for name in files.namelist() if name.endswith("scripts/websockify")]
            assert len(program) == 1 and files.read(program[0]) == binary.read_bytes(), program
        self.ran(wheel, "has the same binary (pip installs none of another architecture's)")

    def in_a_machine(self, binary):
        """With a kernel of that architecture, all is run; its processor is QEMU's."""
        qemu = shutil.which("qemu-system-aarch64")
        if not qemu:
            self.ran(binary, "wraps nothing here: there is no qemu-system-aarch64 (Debian: qemu-system-arm)")
            return
        (kernel,), memory, console = aarch64.glob("boot/vmlinuz-*"), self.directory / "memory", self.directory / "console"
        memory.write_bytes(archived(machine_files(binary)))
        machine = ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine", "virt", "-m", "1024"]
        machine += ["-cpu", "max,pauth-impdef=on", "-accel", "tcg", "-kernel", str(kernel), "-initrd", str(memory)]
        machine += ["-append", "console=ttyAMA0 quiet panic=-1 random.trust_cpu=on", "-serial", f"file:{console}"]
        subprocess.run([qemu, *machine], stdin=subprocess.DEVNULL, check=True, timeout=30 * DEADLINE)
        said = console.read_text(errors="replace")
        wrapped = said.count("\nwraps: ")
        assert wrapped == 30 and "does not wrap" not in said, said
        kernel = said.split("\n", 1)[0].strip()
        self.ran(binary, f"wraps under both engines in a virtual machine, {wrapped} times of {wrapped} ({kernel})")

    def static(self):
        binary = only("*-x86_64-linux-static")
        assert "NEEDED" not in said_by("readelf", "--dynamic", str(binary)), binary
        bridges(str(binary))
        bridges(str(binary), certificate=self.certificate)
        for engine in ("preload", "seccomp"):
            wraps(str(binary), f"--rebind-engine={engine}")
        self.ran(binary, "bridges", "in TLS", "wraps a program of glibc's under both engines", "wants no library")
        image = only("*-image.tar")
        if os.geteuid() != 0:
            self.ran(image, "not run (only root may change the root directory)")
            return
        root = self.directory / "image"
        with tarfile.open(image) as files, tarfile.open(fileobj=files.extractfile("layer.tar")) as layer:
            layer.extractall(root)
        bridges("chroot", "--userspec=65534:65534", str(root), "/usr/bin/websockify")
        # As a container has it: with /proc and /dev. No other program is there to be wrapped.
        for place in ("proc", "dev", "srv"):
            (root / place).mkdir()
        (root / "dev/null").touch()
        entered = """mount -t proc proc "$0/proc" && mount --bind /dev/null "$0/dev/null" &&
                     exec chroot --userspec=65534:65534 "$0" "$@\""""
        contained = ("unshare", "--mount", "sh", "-c", entered, str(root), "/usr/bin/websockify")
        wraps(*contained, program=("/usr/bin/websockify", "PORT", "--web=/srv", "127.0.0.1:1"), directory=root / "srv")
        self.ran(image, "bridges in a root directory with nothing else, as nobody", "wraps its own websockify there")


def main():
    with tempfile.TemporaryDirectory(prefix="websockify-check-") as directory:
        # Others than us are to get at what is installed there.
        os.chmod(directory, 0o755)
        checks = Checks(directory)
        checks.glibc()
        checks.aarch64()
        checks.static()


main()
