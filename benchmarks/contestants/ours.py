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

from benchmarks.arena import Arena, Place
from benchmarks.contestants.base import Outcome
from benchmarks.crew import BenchmarkError, Span, Worker, wait_until
from benchmarks.report import OURS
from benchmarks.workloads import Workload

_GROUP = "bench"
_PASSWORD = "correct horse battery staple"
_READY = "tracker ready: "


@dataclass(frozen=True, slots=True)
class Node:
    """A running peer and its user."""

    user: str
    home: Path
    place: Place


class Team:
    """A tracker, and peers in one group; the seeders share the content."""

    def __init__(self, arena: Arena, *, share: bool = True, piece_size: str | None = None) -> None:
        self._arena = arena
        self._tracker = _program("mini-torrent-tracker")
        self._peer = _program("mini-torrent")
        link = self._start_tracker()
        self.seeders = [self._start(f"s{i}", p, link) for i, p in enumerate(arena.seeders)]
        self.leechers = [self._start(f"l{i}", p, link) for i, p in enumerate(arena.leechers)]
        nodes = [*self.seeders, *self.leechers]
        for node in nodes:
            wait_until(partial(self._connected, node), f"{node.user} to meet the tracker")
        self._all([(node, "create-user", node.user, _PASSWORD) for node in nodes])
        self._all([(node, "login", node.user, _PASSWORD) for node in nodes])
        owner, others = nodes[0], nodes[1:]
        self._all([(owner, "create-group", _GROUP)])
        self._all([(node, "join-group", _GROUP) for node in others])
        self._all([(owner, "accept-request", _GROUP, node.user) for node in others])
        for seeder in self.seeders if share else ():
            size = () if piece_size is None else ("--piece-size", piece_size)
            self._all([(seeder, "upload-file", "--yes", arena.source, _GROUP, *size)])

    def command(self, node: Node, *words: str | Path) -> Worker:
        """Start one command as the user of `node`."""
        argv = node.place.argv([self._peer, "--home", node.home, *words])
        return self._arena.crew.start(f"{node.user}-{words[0]}", argv)

    def prompt(self, node: Node) -> Worker:
        """Return a prompt that has answered once, so that it certainly runs."""
        prompt = self.command(node, "shell")
        prompt.say("show-downloads --json")
        prompt.hear_json()
        return prompt

    def upload_line(self) -> str:
        """Return the command line that shares the content."""
        return f"upload-file --yes {self._arena.source} {_GROUP} --json"

    def _start_tracker(self) -> str:
        place = self._arena.tracker
        argv: list[str | Path] = [self._tracker, "run", "--home", self._arena.root / "t"]
        argv += ["--bind", f"tcp://{place.address}:0"]
        line = self._arena.crew.start("tracker", place.argv(argv)).hear()
        if not line.startswith(_READY):
            raise BenchmarkError(f"the tracker said {line!r} first")
        return line.removeprefix(_READY)

    def _start(self, user: str, place: Place, link: str) -> Node:
        node = Node(user, self._arena.root / user, place)
        argv: list[str | Path] = [self._peer, "--home", node.home, "up", "--foreground"]
        argv += ["--listen", f"tcp://{place.address}:0", "--tracker", link]
        self._arena.crew.start(f"{user}-up", place.argv(argv), quiet=True)
        return node

    def _connected(self, node: Node) -> bool:
        status = self.command(node, "status", "--json")
        said = status.rest()
        return status.wait() == 0 and bool(json.loads(said)["connected"])

    def _all(self, commands: Sequence[tuple[Node, *tuple[str | Path, ...]]]) -> None:
        """Run commands side by side; raise `BenchmarkError` if one fails."""
        for worker in [self.command(node, *words) for node, *words in commands]:
            worker.rest()
            worker.finish()


class AtThePrompt:
    """The command is typed at a running prompt of a running peer."""

    def __init__(self, name: str = OURS, *, piece_size: str | None = None) -> None:
        self.name = name
        self._piece_size = piece_size

    def unfit(self, workload: Workload) -> str | None:
        if self._piece_size is not None and workload.shaped:
            return "large pieces bring nothing on slow links"
        return not_installed()

    def run(self, arena: Arena) -> Outcome:
        team = Team(arena, piece_size=self._piece_size)
        prompts = [team.prompt(node) for node in team.leechers]
        outputs = [arena.folder(f"d{i}") / arena.source.name for i in range(len(prompts))]
        clock = arena.start_clock()
        for prompt, output in zip(prompts, outputs, strict=True):
            prompt.say(f"download-file {_GROUP} {arena.source.name} {output.parent}/")
        wait_until(
            lambda: all(map(os.path.exists, outputs)), f"{self.name} to finish", timeout_s=300
        )
        span = clock.stop()
        return Outcome(span.wall_s, span, tuple(outputs))


class OneCommand:
    """The command is started beside a running peer."""

    name = f"{OURS}, one command"

    def unfit(self, workload: Workload) -> str | None:
        if workload.leechers > 1:
            return "the start of eight interpreters would dominate the time"
        return not_installed()

    def run(self, arena: Arena) -> Outcome:
        team = Team(arena)
        folder = arena.folder("d")
        words = ("download-file", _GROUP, arena.source.name, f"{folder}/", "--json")
        clock = arena.start_clock()
        command = team.command(team.leechers[0], *words)
        said = command.rest()
        command.finish()
        span: Span = clock.stop()
        notes = {"elapsed_s": float(json.loads(said)["elapsed_s"])}
        return Outcome(span.wall_s, span, (folder / arena.source.name,), notes)


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
