"""Common setup of BitTorrent clients with a tracker: torrent, announcer and seeders."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.arena import Arena, Place
from benchmarks.torrents import make_torrent

_REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Client:
    """One client to start. `folder` holds the content, or will hold it (leecher)."""

    place: Place
    port: int
    folder: Path
    scratch: Path
    torrent: Path


def prepare(
    arena: Arena, piece_length: int, start_seeder: Callable[[Client], object]
) -> list[Client]:
    """Make the torrent, start announcer and seeders, and return the leechers, not yet started.

    Return after every seeder has announced that it has the whole content.
    """
    tracker = arena.tracker
    port = tracker.free_port()
    torrent = arena.root / "content.torrent"
    announce = f"http://{tracker.address}:{port}/announce"
    make_torrent(arena.source, torrent, announce=announce, piece_length=piece_length)
    argv = [sys.executable, "-m", "benchmarks.programs.announcer", tracker.address, str(port)]
    announcer = arena.crew.start("announcer", tracker.argv(argv), cwd=_REPOSITORY)
    announcer.hear()
    for index, place in enumerate(arena.seeders):
        scratch = arena.folder(f"seeder{index}")
        start_seeder(Client(place, place.free_port(), arena.source.parent, scratch, torrent))
    ready: set[tuple[str, int]] = set()
    while len(ready) < len(arena.seeders):
        fact = json.loads(announcer.hear())
        if fact["left"] == 0:
            ready.add((fact["address"], fact["port"]))
    return [
        Client(
            place, place.free_port(), arena.folder(f"d{i}"), arena.folder(f"leecher{i}"), torrent
        )
        for i, place in enumerate(arena.leechers)
    ]
