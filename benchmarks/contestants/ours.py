"""Mini-Torrent through its command line: a tracker, and one peer for each node. Encrypted.

Two contestants:

- `mini-torrent`, comparable with programs whose session is already running. Timed: from typing
  `download-file` at running prompts (`mini-torrent shell`), at all leechers at once, until the last
  verified content has its final name. Ticket, manifest and sources are fetched within the span.
- `mini-torrent, one command`, the wait of a user in a shell script. Timed: from the start of
  `mini-torrent download-file` until its exit, the start of its interpreter included. Its own
  `elapsed_s` is noted.

CPU: the tracker and all peers within the span, and the commands or prompts.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.contestants.base import Outcome
from benchmarks.environment import Node, RunEnvironment
from benchmarks.processes import BenchmarkError, ChildProcess, Span, wait_until
from benchmarks.report import OURS
from benchmarks.workloads import Workload

GROUP = "bench"
_PASSWORD = "correct horse battery staple"
_READY = "tracker ready: "


@dataclass(frozen=True, slots=True)
class UserPeer:
    """A running peer and its user."""

    user: str
    home: Path
    node: Node


class BenchmarkSwarm:
    """A tracker, and peers in one group; the seeders share the content."""

    def __init__(
        self,
        env: RunEnvironment,
        *,
        share: bool = True,
        piece_size: str | None = None,
        native: bool = True,
    ) -> None:
        """Create a contestant. ``native``: with the compiled data path, if it is installed."""
        self._env = env
        self._native = native
        self._tracker = _program("mini-torrent-tracker")
        self._peer = _program("mini-torrent")
        link = self._start_tracker()
        self.seeders = [self._start(f"s{i}", p, link) for i, p in enumerate(env.seeders)]
        self.leechers = [self._start(f"l{i}", p, link) for i, p in enumerate(env.leechers)]
        peers = [*self.seeders, *self.leechers]
        for peer in peers:
            wait_until(partial(self._connected, peer), f"{peer.user} to meet the tracker")
        self._all([(peer, "create-user", peer.user, _PASSWORD) for peer in peers])
        self._all([(peer, "login", peer.user, _PASSWORD) for peer in peers])
        owner, others = peers[0], peers[1:]
        self._all([(owner, "create-group", GROUP)])
        self._all([(peer, "join-group", GROUP) for peer in others])
        self._all([(owner, "accept-request", GROUP, peer.user) for peer in others])
        size = () if piece_size is None else ("--piece-size", piece_size)
        for seeder in self.seeders if share else ():
            self.share(seeder, env.source, *size)

    def share(self, seeder: UserPeer, path: Path, *options: str) -> None:
        """Share a content; raise `BenchmarkError` if that fails."""
        self._all([(seeder, "upload-file", "--yes", path, GROUP, *options)])

    def fetch(self, peer: UserPeer, name: str, folder: Path) -> None:
        """Download a content; raise `BenchmarkError` if that fails."""
        self._all([(peer, "download-file", GROUP, name, f"{folder}/")])

    def command(self, peer: UserPeer, *words: str | Path) -> ChildProcess:
        """Start one command as the user of `peer`."""
        argv = peer.node.argv([self._peer, "--home", peer.home, *words])
        return self._env.processes.start(f"{peer.user}-{words[0]}", argv)

    def prompt(self, peer: UserPeer) -> ChildProcess:
        """Return a prompt that has answered once, so that it certainly runs."""
        prompt = self.command(peer, "shell")
        prompt.write_line("show-downloads --json")
        prompt.read_json()
        return prompt

    def upload_line(self) -> str:
        """Return the command line that shares the content."""
        return f"upload-file --yes {self._env.source} {GROUP} --json"

    def _start_tracker(self) -> str:
        node = self._env.tracker
        argv: list[str | Path] = [self._tracker, "run", "--home", self._env.root / "t"]
        argv += ["--bind", f"tcp://{node.address}:0"]
        line = self._env.processes.start("tracker", node.argv(argv)).read_line()
        if not line.startswith(_READY):
            raise BenchmarkError(f"the tracker output {line!r} first")
        return line.removeprefix(_READY)

    def _start(self, user: str, node: Node, link: str) -> UserPeer:
        peer = UserPeer(user, self._env.root / user, node)
        peer.home.mkdir(mode=0o700)
        (peer.home / "peer.toml").write_text(f"native = {str(self._native).lower()}\n")
        argv: list[str | Path] = [self._peer, "--home", peer.home, "up", "--foreground"]
        argv += ["--listen", f"tcp://{node.address}:0", "--tracker", link]
        self._env.processes.start(f"{user}-up", node.argv(argv), quiet=True)
        return peer

    def _connected(self, peer: UserPeer) -> bool:
        status = self.command(peer, "status", "--json")
        output = status.read_all()
        return status.wait() == 0 and bool(json.loads(output)["connected"])

    def _all(self, commands: Sequence[tuple[UserPeer, *tuple[str | Path, ...]]]) -> None:
        """Run commands side by side; raise `BenchmarkError` if one fails."""
        for child in [self.command(peer, *words) for peer, *words in commands]:
            child.read_all()
            child.check_exit()


class PromptDownload:
    """The command is typed at a running prompt of a running peer."""

    def __init__(
        self, name: str = OURS, *, piece_size: str | None = None, native: bool = True
    ) -> None:
        self.name = name
        self._piece_size = piece_size
        self._native = native

    def skip_reason(self, workload: Workload) -> str | None:
        if self._piece_size is not None and workload.shaped:
            return "large pieces bring nothing on slow links"
        return not_installed()

    def run(self, env: RunEnvironment) -> Outcome:
        swarm = BenchmarkSwarm(env, piece_size=self._piece_size, native=self._native)
        prompts = [swarm.prompt(peer) for peer in swarm.leechers]
        outputs = [env.folder(f"d{i}") / env.source.name for i in range(len(prompts))]
        clock = env.start_clock()
        for prompt, output in zip(prompts, outputs, strict=True):
            prompt.write_line(f"download-file {GROUP} {env.source.name} {output.parent}/")
        wait_until(
            lambda: all(map(os.path.exists, outputs)), f"{self.name} to finish", timeout_s=300
        )
        span = clock.stop()
        return Outcome(span.wall_s, span, tuple(outputs))


class CommandDownload:
    """The command is started beside a running peer."""

    name = f"{OURS}, one command"

    def skip_reason(self, workload: Workload) -> str | None:
        if workload.leechers > 1:
            return "the start of eight interpreters would dominate the time"
        return not_installed()

    def run(self, env: RunEnvironment) -> Outcome:
        swarm = BenchmarkSwarm(env)
        folder = env.folder("d")
        words = ("download-file", GROUP, env.source.name, f"{folder}/", "--json")
        clock = env.start_clock()
        command = swarm.command(swarm.leechers[0], *words)
        output = command.read_all()
        command.check_exit()
        span: Span = clock.stop()
        notes = {"elapsed_s": float(json.loads(output)["elapsed_s"])}
        return Outcome(span.wall_s, span, (folder / env.source.name,), notes)


def not_installed() -> str | None:
    """Return a reason that names our missing program, or None."""
    for name in ("mini-torrent", "mini-torrent-tracker"):
        if _find(name) is None:
            return f"{name} is not installed"
    return None


def _program(name: str) -> str:
    found = _find(name)
    if found is None:
        raise BenchmarkError(f"{name} is not installed")
    return found


def _find(name: str) -> str | None:
    """Return the program in this interpreter's environment, or on the search path."""
    beside = Path(sys.executable).parent
    return shutil.which(name, path=f"{beside}{os.pathsep}{os.environ.get('PATH', os.defpath)}")
