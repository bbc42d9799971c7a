"""Syncthing: two instances that share one folder, connected over TCP with TLS.

Timed: from the request to scan the changed folder at the sender until the receiver needs nothing
more and is idle. The earlier content is at both ends, scanned and in agreement, before that. Noted:
bytes received and sent by the receiver, with all headers.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.contestants.base import Outcome, missing_program
from benchmarks.environment import Node, RunEnvironment
from benchmarks.network import bytes_of
from benchmarks.processes import BenchmarkError, wait_until
from benchmarks.updates import copy_earlier
from benchmarks.workloads import MIB, Workload

_FOLDER = "bench"
_KEY = "benchmark"
_GUI_PORT, _SYNC_PORT = 20_100, 20_101


class _Instance:
    """One instance with its own home, controlled over its REST interface."""

    def __init__(self, env: RunEnvironment, node: Node, name: str) -> None:
        self.node = node
        self.shared = env.folder(name)
        self._gui = f"http://{node.address}:{_GUI_PORT}"
        home = env.root / f"{name}-home"
        self.id = _generate(home)
        argv: list[str | Path] = ["syncthing", "serve", "--home", home, "--no-browser"]
        argv += ["--no-restart", f"--gui-address={self._gui}", f"--gui-apikey={_KEY}"]
        env.processes.start(name, node.argv(argv), quiet=True, env={"STNOUPGRADE": "1"})
        wait_until(self._answers, f"{name} to answer")
        self.rest("PATCH", "config/options", _OPTIONS | {"listenAddresses": [self.address]})

    @property
    def address(self) -> str:
        return f"tcp://{self.node.address}:{_SYNC_PORT}"

    def share_with(self, other: _Instance) -> None:
        """Share the folder with another instance."""
        self.rest("PUT", f"config/devices/{other.id}", _device(other))
        devices = [{"deviceID": self.id}, {"deviceID": other.id}]
        folder = {"id": _FOLDER, "path": str(self.shared), "devices": devices, "rescanIntervalS": 0}
        self.rest("PUT", f"config/folders/{_FOLDER}", folder | {"fsWatcherEnabled": False})

    def agrees(self, other: _Instance) -> bool:
        """Whether both have the same, as far as this one knows, and nothing is to be done."""
        done = self.rest("GET", f"db/completion?folder={_FOLDER}&device={other.id}")
        found = [one.rest("GET", f"db/status?folder={_FOLDER}") for one in (self, other)]
        idle = all(one["state"] == "idle" and one["localFiles"] for one in found)
        return bool(idle and not done["needItems"] and not done["needDeletes"])

    def rest(self, method: str, path: str, body: Any = None) -> Any:
        """One request; its answer, decoded."""
        argv = ["curl", "-sf", "-X", method, "-H", f"X-API-Key: {_KEY}", f"{self._gui}/rest/{path}"]
        if body is not None:
            argv += ["-d", json.dumps(body)]
        done = subprocess.run(self.node.argv(argv), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BenchmarkError(f"syncthing: {method} {path}: {done.stderr}{done.stdout}")
        return json.loads(done.stdout) if done.stdout.strip() else None

    def _answers(self) -> bool:
        try:
            self.rest("GET", "system/ping")
        except BenchmarkError:
            return False
        return True


class Syncthing:
    """A sender and a receiver; every change of the folder is scanned, then pulled by blocks."""

    name = "syncthing"

    def skip_reason(self, workload: Workload) -> str | None:
        return missing_program("syncthing", "curl")

    def run(self, env: RunEnvironment) -> Outcome:
        assert env.earlier is not None
        sender = _Instance(env, env.seeders[0], "sender")
        receiver = _Instance(env, env.leechers[0], "receiver")
        copy_earlier(env.earlier, sender.shared)
        copy_earlier(env.earlier, receiver.shared)
        sender.share_with(receiver)
        receiver.share_with(sender)
        wait_until(
            lambda: sender.agrees(receiver) and receiver.agrees(sender),
            "syncthing to agree on the earlier content",
            timeout_s=300,
        )
        target = sender.shared / env.source.name
        shutil.rmtree(target) if target.is_dir() else target.unlink()
        copy_earlier(env.source, sender.shared)
        before = bytes_of(receiver.node)
        clock = env.start_clock()
        sender.rest("POST", f"db/scan?folder={_FOLDER}")
        wait_until(lambda: sender.agrees(receiver), "syncthing to finish", timeout_s=300)
        span = clock.stop()
        notes = {"network_MiB": (bytes_of(receiver.node) - before) / MIB}
        return Outcome(span.wall_s, span, (receiver.shared / env.source.name,), notes)


_OPTIONS: dict[str, Any] = {
    "globalAnnounceEnabled": False,
    "localAnnounceEnabled": False,
    "relaysEnabled": False,
    "natEnabled": False,
    "urAccepted": -1,
    "crashReportingEnabled": False,
}


def _generate(home: Path) -> str:
    argv = ["syncthing", "generate", "--home", os.fspath(home), "--no-default-folder"]
    subprocess.run(argv, capture_output=True, check=True)
    argv = ["syncthing", "--home", os.fspath(home), "--device-id"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def _device(other: _Instance) -> dict[str, Any]:
    return {"deviceID": other.id, "addresses": [other.address], "compression": "never"}
