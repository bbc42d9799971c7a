"""Copies on a device that are read again, with real processes."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.support.processes import Person, Swarm

TCP_ONLY = True

PIECE = 16 * 1024


def damage(path: Path, *pieces: int) -> None:
    """Change a byte of each piece, and leave the times as they were."""
    status = path.stat()
    with path.open("r+b") as file:
        for index in pieces:
            file.seek(index * PIECE)
            byte = file.read(1)
            file.seek(index * PIECE)
            file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_f126_damage_is_named_and_nothing_is_changed(
    swarm: Swarm, alice: Person, bob: Person
) -> None:
    group = alice.group_with(bob)
    path = swarm.file(10 * PIECE + 1)
    alice.share(path, group, "--piece-size", "16K")
    dest = swarm.folder()
    bob.fetch(group, path.name, dest)
    bob.ok("stop-share", group, path.name)  # a complete download, and no share
    copy = dest / path.name
    for person, place in ((alice, path), (bob, copy)):
        assert person.ok("verify", group, path.name).startswith(f"{place}: verified, ")
        damage(place, 3, 10)
        before = place.read_bytes()
        ran = person.run("verify", group, path.name)
        assert ran.code == 5
        assert "2 of 11 pieces damaged: 3, 10" in ran.err
        ran = person.run("--json", "verify", group, path.name)
        found = json.loads(ran.out)
        assert (ran.code, found["damaged"], found["pieces"]) == (5, [3, 10], 11)
        assert found["files"] == []  # a file alone has none within it
        assert json.loads(ran.err)["error"]["code"] == "corrupt"
        assert place.read_bytes() == before
    os.truncate(copy, 5)
    assert bob.run("verify", group, path.name).code != 0
    copy.unlink()
    assert bob.run("verify", group, path.name).code != 0
    assert "no copy" in bob.refused("verify", group, "nothing.bin")
