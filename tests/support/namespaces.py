"""A network of namespaces: machines at one switch, whose addresses come and go as a test says.

Needs root and iproute2; `lan` skips where there is neither, and says so.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

_PREFIX = "mtf"
_CLONE_NEWNET = 0x4000_0000
_libc = ctypes.CDLL(None, use_errno=True)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr.strip()}"


class Machine:
    """A namespace with one network card, which has no address at first."""

    def __init__(self, hub: str, name: str, number: int) -> None:
        self.name = name
        port = f"port{number}"
        _ip("netns", "add", name)
        _ip("link", "add", port, "netns", hub, "type", "veth", "peer", "eth0", "netns", name)
        _ip("-n", hub, "link", "set", port, "master", "br0", "up")

    def plug(self, *addresses: str) -> None:
        """Bring the card up, with these addresses, and loopback, which comes up late as well."""
        _ip("-n", self.name, "link", "set", "lo", "up")
        _ip("-n", self.name, "link", "set", "eth0", "up")
        for address in addresses:
            _ip("-n", self.name, "address", "add", f"{address}/24", "dev", "eth0")

    def unplug(self) -> None:
        """Take the card down, and its addresses away."""
        _ip("-n", self.name, "address", "flush", "dev", "eth0")
        _ip("-n", self.name, "link", "set", "eth0", "down")

    @property
    def received_bytes(self) -> int:
        """Bytes that its card has received, with headers."""
        argv = ["ip", "-n", self.name, "-s", "-j", "link", "show", "eth0"]
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        return int(json.loads(done.stdout)[0]["stats64"]["rx"]["bytes"])

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Processes that are started within run on this machine."""
        own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        there = os.open(f"/run/netns/{self.name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(there)
            yield
        finally:
            _enter(own)
            os.close(own)
            os.close(there)


def _enter(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


class Lan:
    """Machines at one switch."""

    def __init__(self) -> None:
        self.hub = f"{_PREFIX}-{os.getpid()}-hub"
        self.machines: list[Machine] = []
        _ip("netns", "add", self.hub)
        _ip("-n", self.hub, "link", "add", "br0", "type", "bridge")
        _ip("-n", self.hub, "link", "set", "br0", "up")

    def machine(self, *addresses: str) -> Machine:
        """One more, with its card up if it has an address."""
        number = len(self.machines)
        made = Machine(self.hub, f"{_PREFIX}-{os.getpid()}-{number}", number)
        self.machines.append(made)
        if addresses:
            made.plug(*addresses)
        return made

    def close(self) -> None:
        for name in (self.hub, *(machine.name for machine in self.machines)):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def _sweep() -> None:
    """Remove what a run that was killed has left."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=False)
    for line in listed.stdout.splitlines():
        prefix, _, rest = (line.split() or [""])[0].partition("-")
        pid = rest.partition("-")[0]
        if prefix == _PREFIX and pid.isdigit() and not Path("/proc", pid).exists():
            name = line.split()[0]
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


@contextlib.contextmanager
def lans() -> Iterator[Lan]:
    """A network for one test."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("NOT SHOWN HERE: network namespaces need root and iproute2")
    _sweep()
    try:
        made = Lan()
    except AssertionError as error:
        pytest.skip(f"NOT SHOWN HERE: no network namespaces: {error}")
    try:
        yield made
    finally:
        made.close()
