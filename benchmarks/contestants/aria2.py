"""aria2c as a BitTorrent client, unencrypted, with a tracker.

Timed: from the start of all leechers at once (about 30 ms each) until the last one calls its hook
for a complete and verified download. CPU: the seeders' processes, the tracker and the
leechers within the span.
"""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.contestants.base import Outcome, missing_program
from benchmarks.contestants.torrent_setup import Client, prepare
from benchmarks.environment import RunEnvironment
from benchmarks.processes import wait_until
from benchmarks.workloads import MIB, Workload

_COMMON = (
    "aria2c",
    "--no-conf",
    "--quiet",
    "--enable-dht=false",
    "--enable-dht6=false",
    "--enable-peer-exchange=false",
    "--bt-enable-lpd=false",
    "--disable-ipv6=true",
    "--bt-max-peers=0",
    "--bt-request-peer-speed-limit=10000M",
    "--bt-tracker-interval=1",
    "--file-allocation=none",
    "--disk-cache=64M",
    "--max-overall-upload-limit=0",
    "--seed-ratio=0",
)


class Aria2:
    """aria2c; all peers connect to all others."""

    name = "aria2"

    def skip_reason(self, workload: Workload) -> str | None:
        return missing_program("aria2c")

    def run(self, env: RunEnvironment) -> Outcome:
        def start_seeder(client: Client) -> None:
            env.processes.start(
                "aria2-seed", _argv(client, "--bt-seed-unverified=true"), quiet=True
            )

        leechers = prepare(env, 256 * 1024 if env.workload.shaped else MIB, start_seeder)
        marks = [client.scratch / "done" for client in leechers]
        hooks = [_hook(client, mark) for client, mark in zip(leechers, marks, strict=True)]
        clock = env.start_clock()
        for client, hook in zip(leechers, hooks, strict=True):
            argv = _argv(client, f"--on-bt-download-complete={hook}")
            env.processes.start("aria2-leech", argv, quiet=True)
        wait_until(lambda: all(map(os.path.exists, marks)), "aria2 to finish", timeout_s=300)
        span = clock.stop()
        outputs = tuple(client.folder / env.source.name for client in leechers)
        return Outcome(span.wall_s, span, outputs)


def _hook(client: Client, mark: Path) -> Path:
    """Write a script that makes the mark: aria2 accepts only a path, and adds arguments."""
    script = client.scratch / "hook"
    script.write_text(f"#!/bin/sh\n: >'{mark}'\n")
    script.chmod(0o700)
    return script


def _argv(client: Client, *options: str) -> list[str]:
    return client.node.argv(
        [
            *_COMMON,
            f"--interface={client.node.address}",
            f"--listen-port={client.port}",
            f"--dir={client.folder}",
            *options,
            client.torrent,
        ]
    )
