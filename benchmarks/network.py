"""Network of nodes: one namespace for each, and a bridge between them.

Owns: namespaces, links, rate limits of the shaped workload, and counts of bytes. The bridge has a
namespace too: nothing is added to the machine's own network, and removing the namespaces removes
everything. The next run removes the namespaces of a run that was killed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.environment import Node
from benchmarks.processes import BenchmarkError
from benchmarks.workloads import Workload

Nodes = tuple[Node, tuple[Node, ...], tuple[Node, ...]]
"""Nodes of the tracker, of the seeders and of the leechers."""

UP_MBIT = 80
# A queue of 0.1 s at each rate. Why the burst (bytes that tbf sends at once): it must hold one
# large packet of the kernel's offloading. With less, tbf cuts such packets to pieces, and the CPU
# for that would be timed instead of the link. 128 KiB are 13 ms of the slower rate.
_BURST = ("burst", "128kb", "latency", "100ms")
_PREFIX = "mtb"


def network_unavailable() -> str | None:
    """Return the reason for which no namespaces can be made, or None if they can."""
    for tool in ("ip", "tc"):
        if shutil.which(tool) is None:
            return f"{tool} (iproute2) is not installed"
    if os.geteuid() != 0:
        return "network namespaces and rate limits need root"
    try:
        with _namespaces(1) as (name,):
            _shape(name, "lo", UP_MBIT)
    except BenchmarkError as error:
        return str(error)
    return None


@contextmanager
def network(workload: Workload) -> Iterator[Nodes]:
    """Nodes in namespaces of their own, all behind rate limits."""
    count = 1 + workload.seeders + workload.leechers
    with _namespaces(1 + count) as (hub, *names):
        _in(hub, "link", "add", "br0", "type", "bridge")
        _in(hub, "link", "set", "br0", "up")
        down = workload.down_mbit if workload.shaped else None
        nodes = [_join(hub, name, index, down) for index, name in enumerate(names)]
        yield (
            nodes[0],
            tuple(nodes[1 : 1 + workload.seeders]),
            tuple(nodes[1 + workload.seeders :]),
        )


def bytes_of(node: Node) -> int:
    """Return the bytes that a node in a namespace of its own has received and sent, with their
    headers."""
    argv = ["ip", "-n", str(node.namespace), "-s", "-j", "link", "show", "eth0"]
    found = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    counts = json.loads(found)[0]["stats64"]
    return int(counts["rx"]["bytes"]) + int(counts["tx"]["bytes"])


def _join(hub: str, node: str, index: int, down_mbit: int | None) -> Node:
    """Connect `node` to the bridge; its own end limits the uplink, the other the downlink."""
    address, port = f"10.77.0.{10 + index}", f"port{index}"
    _ip("link", "add", port, "netns", hub, "type", "veth", "peer", "name", "eth0", "netns", node)
    _in(hub, "link", "set", port, "master", "br0", "up")
    _in(node, "address", "add", f"{address}/24", "dev", "eth0")
    _in(node, "link", "set", "eth0", "up")
    _in(node, "link", "set", "lo", "up")
    if down_mbit is not None:
        _shape(node, "eth0", UP_MBIT)
        _shape(hub, port, down_mbit)
    return Node(address, node)


@contextmanager
def _namespaces(count: int) -> Iterator[list[str]]:
    _sweep()
    names = [f"{_PREFIX}-{os.getpid()}-{index}" for index in range(count)]
    try:
        for name in names:
            _ip("netns", "add", name)
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def _sweep() -> None:
    """Remove the namespaces of runs whose process has ended."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=False)
    for line in listed.stdout.splitlines():
        name = line.split()[0] if line.split() else ""
        prefix, _, rest = name.partition("-")
        pid = rest.partition("-")[0]
        if prefix == _PREFIX and pid.isdigit() and not Path("/proc", pid).exists():
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def _shape(namespace: str, device: str, mbit: int) -> None:
    limit = ("rate", f"{mbit}mbit", *_BURST)
    _run("tc", "-n", namespace, "qdisc", "add", "dev", device, "root", "tbf", *limit)


def _in(namespace: str, *words: str) -> None:
    _ip("-n", namespace, *words)


def _ip(*words: str) -> None:
    _run("ip", *words)


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchmarkError(f"{' '.join(argv)}: {done.stderr.strip()}")
