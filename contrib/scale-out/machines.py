"""The machines: network namespaces on a bridge of their own where we may make these, else addresses of loopback.
Knows addresses and how a command is run on a machine; not what runs there."""

import os
import random
import socket
import subprocess

NAMES = ["front", "one", "two", "three", "redis", "targets", "clients"]


def machines():
    """As many machines as can be had, and what they are."""
    if os.geteuid() == 0:
        try:
            return Namespaces()
        except (OSError, subprocess.CalledProcessError):
            pass
    return Loopback()


class Loopback:
    """One machine with seven addresses. Each run has a network of its own."""

    kind = "addresses of loopback"

    def __init__(self):
        # Whoever has the last address of a network has all of it: numbers of processes are not unique, as containers
        # may share a network.
        self.held = socket.socket()
        for number in random.sample(range(1, 255), 254):
            self.network = f"127.84.{number}"
            if self._hold():
                return
        raise OSError("all networks in 127.84.0.0/16 are in use")

    def _hold(self):
        try:
            self.held.bind((f"{self.network}.254", 8080))
        except OSError:
            return False
        return True

    def address(self, name):
        return f"{self.network}.{NAMES.index(name) + 1}"

    def proxy(self):
        """Where the front's connections come from."""
        return "127.0.0.1"

    def settings(self, name):
        """What differs from a machine of one's own: there is another on the same ports."""
        address = self.address(name)
        return {"SOURCE": f"{address}:8080", "ADMIN": f"{address}:9100"}

    def command(self, _name, command):
        return command

    def close(self):
        self.held.close()


class Namespaces:
    """Seven machines at one switch."""

    kind = "network namespaces"

    def __init__(self):
        self.prefix = f"scale{random.randrange(1 << 24):x}"
        self.made = []
        try:
            self._make("switch")
            self._in("switch", "ip link add name bridge type bridge")
            self._in("switch", "ip link set bridge up")
            for number, name in enumerate(NAMES):
                self._plug_in(number, name)
        except (OSError, subprocess.CalledProcessError):
            self.close()
            raise

    def _make(self, name):
        run(["ip", "netns", "add", f"{self.prefix}{name}"])
        self.made.append(name)
        self._in(name, "ip link set lo up")

    def _plug_in(self, number, name):
        self._make(name)
        port = f"port{number}"
        self._in(
            "switch",
            f"ip link add name {port} type veth peer name eth0 netns {self.prefix}{name}",
        )
        self._in("switch", f"ip link set {port} master bridge up")
        self._in(name, f"ip address add {self.address(name)}/24 dev eth0")
        self._in(name, "ip link set eth0 up")

    def _in(self, name, command):
        run(self.command(name, command.split()))

    def address(self, name):
        return f"10.84.0.{NAMES.index(name) + 1}"

    def proxy(self):
        return self.address("front")

    def settings(self, _name):
        return {}

    def command(self, name, command):
        return ["ip", "netns", "exec", f"{self.prefix}{name}", *command]

    def close(self):
        for name in reversed(self.made):
            subprocess.run(["ip", "netns", "delete", f"{self.prefix}{name}"], check=False)
        self.made = []


def run(command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
