# Runs a class of the user's own, which knows where tokens lead or who is let in, as a helper: see HELPERS and
# PLUGINS in the manual page. As under the Python websockify, each call is made in a process of its own, a fork of
# this one: what a call does to the object is forgotten with it, and one that hangs or crashes is the only one.

import base64
import collections
import http.client
import importlib
import importlib.util
import json
import os
import select
import signal
import sys
import time
import traceback
import types

# How long a call may take, seconds.
LIMIT = 10

# The longest answer, bytes.
LONGEST = 64 * 1024

Call = collections.namedtuple("Call", "id pid pipe due said")


def main(load):
    # The class may print, and may read; neither is to touch what we say to websockify.
    questions, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.argv = ["websockify"]
    try:
        stand_in()
        module, _, name = load["class"].rpartition(".")
        plugin = getattr(importlib.import_module(module), name)(load["source"])
    except BaseException as error:
        say(answers, {"error": last_line(error)})
        os._exit(1)
    # Calls are waited for here, whatever a module has arranged for its own processes.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # What is left to be written here is not to be written again by each fork.
    flush()
    say(answers, {"ready": True})
    serve(plugin, questions, answers)


def serve(plugin, questions, answers):
    calls = {}
    unread = b""
    poll = select.poll()
    poll.register(questions, select.POLLIN)
    while True:
        # They are in the order in which they are due.
        soonest = next(iter(calls.values()), None)
        wait = max(0, soonest.due - time.monotonic()) * 1000 if soonest else None
        for ready, _ in poll.poll(wait):
            if ready == questions:
                read = os.read(questions, 65536)
                if not read:
                    os._exit(0)
                *lines, unread = (unread + read).split(b"\n")
                for line in lines:
                    begin(plugin, json.loads(line), calls, poll, answers)
            else:
                call = calls[ready]
                piece = os.read(ready, 65536)
                call.said.extend(piece)
                if not piece or piece.endswith(b"\n") or len(call.said) > LONGEST:
                    end(call, calls, poll, answers, "its process has ended")
        now = time.monotonic()
        for call in [call for call in calls.values() if call.due <= now]:
            end(call, calls, poll, answers, "no answer within %d s" % LIMIT)


def begin(plugin, ask, calls, poll, answers):
    ends = ()
    try:
        pipe, ours = ends = os.pipe()
        pid = os.fork()
    except OSError as error:
        for either in ends:
            os.close(either)
        say(answers, {"id": ask["id"], "error": last_line(error)})
        return
    if pid == 0:
        # Should the helper be killed, nobody else will end this one.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(LIMIT + 1)
        try:
            said = dict(answer(plugin, ask), id=ask["id"])
            # What the class has printed comes first: this process is killed as soon as it has answered.
            flush()
            say(ours, said)
        finally:
            os._exit(0)
    os.close(ours)
    calls[pipe] = Call(ask["id"], pid, pipe, time.monotonic() + LIMIT, bytearray())
    poll.register(pipe, select.POLLIN)


def end(call, calls, poll, answers, why):
    del calls[call.pipe]
    poll.unregister(call.pipe)
    os.close(call.pipe)
    os.kill(call.pid, signal.SIGKILL)
    os.waitpid(call.pid, 0)
    if len(call.said) > LONGEST:
        why = "its answer is longer than 64 KiB"
    elif call.said.endswith(b"\n"):
        write(answers, call.said)
        return
    say(answers, {"id": call.id, "error": why})


def answer(plugin, ask):
    try:
        if ask["ask"] == "lookup":
            return target(plugin.lookup(ask["token"]))
        plugin.authenticate(
            headers=headers(ask), target_host=ask["host"], target_port=ask["port"])
        return {"allowed": True}
    except BaseException as error:
        if is_refusal(error):
            return refusal(error)
        hidden = list(secrets(ask))
        lines = traceback.format_exception(type(error), error, error.__traceback__)
        sys.stderr.write(hide("".join(lines), hidden))
        return {"error": hide(last_line(error), hidden)}


def refusal(error):
    return {
        "allowed": False,
        "code": error.code,
        "headers": [[name, str(value)] for name, value in dict(error.headers or {}).items()],
        "message": None if error.msg is None else str(error.msg),
        "reason": str(error),
    }


def target(found):
    if found is None:
        return {}
    host, port = found
    if host == "unix_socket":
        return {"unix": os.fspath(port)}
    return {"host": str(host), "port": str(port)}


# As the Python websockify has them: the name in the client's certificate stands where Apache has it, and no client
# can put it there.
def headers(ask):
    message = http.client.HTTPMessage()
    for name, value in ask["headers"]:
        if not name.upper().startswith("SSL_"):
            message[name.title()] = value
    if ask["certificate"] is not None:
        message["SSL_CLIENT_S_DN_CN"] = ask["certificate"]
    return message


def is_refusal(error):
    plugins = sys.modules.get("websockify.auth_plugins")
    return plugins is not None and isinstance(error, plugins.AuthenticationError)


# What the log must not show whole.
SECRET = ("token", "pass", "pwd", "secret", "auth", "jwt", "key", "cookie")


def secrets(ask):
    if ask["ask"] == "lookup":
        yield ask["token"]
        return
    for name, value in ask["headers"]:
        if any(word in name.lower() for word in SECRET):
            yield value
            yield from password(value)
            parts = value.replace("=", " ").replace(";", " ").replace(",", " ").split()
            yield from (part for part in parts if len(part) >= 8)


def password(value):
    scheme, _, credentials = value.partition(" ")
    if scheme.lower() == "basic":
        try:
            yield base64.b64decode(credentials).decode("utf-8", "replace").partition(":")[2]
        except ValueError:
            pass


def hide(text, hidden):
    for secret in hidden:
        for form in (secret, repr(secret)[1:-1]):
            if len(form) > 4:
                text = text.replace(form, form[:4] + "\u2026")
    return text


def last_line(error):
    lines = "".join(traceback.format_exception_only(type(error), error)).strip().splitlines()
    return lines[-1] if lines else type(error).__name__


def say(to, answer):
    # No text of Python's makes a line that is none of JSON's.
    write(to, json.dumps(answer, ensure_ascii=False).encode("utf-8", "replace") + b"\n")


def write(to, line):
    line = memoryview(line)
    while line:
        line = line[os.write(to, line):]


def flush():
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass


# Classes may derive from websockify's own, which need not be installed. A directory of that name in the current one
# is none.
def stand_in():
    found = importlib.util.find_spec("websockify")
    if found is not None and found.origin not in (None, "namespace"):
        return

    class TokenPlugin:
        def __init__(self, src):
            self.source = src

        def lookup(self, token):
            return None

    class AuthPlugin:
        def __init__(self, src=None):
            self.source = src

        def authenticate(self, headers, target_host, target_port):
            pass

    class AuthenticationError(Exception):
        def __init__(self, log_msg=None, response_code=403, response_headers={}, response_msg=None):
            self.code, self.headers, self.msg = response_code, response_headers, response_msg
            reason = response_msg if log_msg is None else log_msg
            super().__init__("{} {}".format(response_code, reason))

    class InvalidOriginError(AuthenticationError):
        def __init__(self, expected, actual):
            self.expected_origin, self.actual_origin = expected, actual
            reason = "origin {!r} is none of {}".format(actual, expected)
            super().__init__(log_msg=reason, response_msg="Invalid Origin")

    TokenPlugin.__name__ = AuthPlugin.__name__ = "BasePlugin"
    package = types.ModuleType("websockify")
    package.__path__ = []
    package.token_plugins = types.ModuleType("websockify.token_plugins")
    package.token_plugins.BasePlugin = TokenPlugin
    package.auth_plugins = types.ModuleType("websockify.auth_plugins")
    package.auth_plugins.BasePlugin = AuthPlugin
    package.auth_plugins.AuthenticationError = AuthenticationError
    package.auth_plugins.InvalidOriginError = InvalidOriginError
    for module in (package, package.token_plugins, package.auth_plugins):
        sys.modules[module.__name__] = module


main(load)
