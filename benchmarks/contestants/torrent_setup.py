"""Common setup of BitTorrent clients with a tracker: torrent, announcer and seeders."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.environment import Node, RunEnvironment
from benchmarks.torrents import make_torrent

_REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Client:
    """One client to start. `folder` holds the content, or will hold it (leecher)."""

    node: Node
    port: int
    folder: Path
    scratch: Path
    torrent: Path


def prepare(
    env: RunEnvironment, piece_length: int, start_seeder: Callable[[Client], object]
) -> list[Client]:
    """Make the torrent, start announcer and seeders, and return the leechers, not yet started.

    Return after every seeder has announced that it has the whole content.
    """
    tracker = env.tracker
    port = tracker.free_port()
    torrent = env.root / "content.torrent"
    announce = f"http://{tracker.address}:{port}/announce"
    make_torrent(env.source, torrent, announce=announce, piece_length=piece_length)
    argv = [sys.executable, "-m", "benchmarks.programs.announcer", tracker.address, str(port)]
    announcer = env.processes.start("announcer", tracker.argv(argv), cwd=_REPOSITORY)
    announcer.read_line()
    for index, node in enumerate(env.seeders):
        scratch = env.folder(f"seeder{index}")
        start_seeder(Client(node, node.free_port(), env.source.parent, scratch, torrent))
    ready: set[tuple[str, int]] = set()
    while len(ready) < len(env.seeders):
        fact = json.loads(announcer.read_line())
        if fact["left"] == 0:
            ready.add((fact["address"], fact["port"]))
    return [
        Client(node, node.free_port(), env.folder(f"d{i}"), env.folder(f"leecher{i}"), torrent)
        for i, node in enumerate(env.leechers)
    ]
