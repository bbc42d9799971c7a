"""A fleet of three machines, told once: a folder and three versions of it, with kills and absence.

Each machine has a network namespace. Two join by one line each and follow. While versions appear,
one peer is killed, one machine is unplugged, and the tracker is restarted. At the end all folders
are equal in names, content, modes and times, and no more was fetched than what changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.namespaces import Lan, Machine
from tests.support.processes import Person, RunningTracker, Swarm
from tests.support.waiting import wait_for

MIB = 1 << 20
PIECE = 64 << 10
FRAME_SHARE = 0.06  # headers, acknowledgements and messages beside the pieces
BASE_BYTES = MIB  # manifests, listings and heartbeats
WAIT_S = 300


@dataclass
class Device:
    """A user at a machine, and the folder that follows."""

    person: Person
    machine: Machine
    folder: Path

    def up(self) -> None:
        with self.machine.inside():
            self.person.up()


def told(swarm: Swarm, lan: Lan, rng: random.Random, size: int) -> str:
    """Tell the story with a folder of ``size`` bytes; return what was measured."""
    place = lan.machine("10.78.0.1")
    with place.inside():
        swarm.tracker = RunningTracker(swarm, "t", "tcp://10.78.0.1:0")
    alice = _owner(swarm, lan.machine("10.78.0.2"))
    group = alice.group_with()
    said = alice.ok("invite", group, "--uses", "2")
    found = re.search(r"mini-torrent join '([^']+)'", said)
    assert found, said
    bob, carol = (
        _follower(swarm, lan.machine(f"10.78.0.{number}"), name, found[1], group)
        for number, name in ((3, "bob"), (4, "carol"))
    )
    source = swarm.folder() / "model"
    _make(source, rng, size)

    def upload(*options: str, copies: str = "all") -> list[str]:
        words = ["upload-file", "--piece-size", "64K", "--wait", copies, *options]
        return [*words, "--timeout", f"{WAIT_S}s", str(source), group]

    alice.ok(*upload())
    _equal(source, bob, carol)
    first = [device.machine.received_bytes for device in (bob, carol)]
    changed = 0

    # Version 2: one peer is killed in the middle.
    changed += _change(source, rng, 2)
    running = alice.spawn(*upload("--replace"))
    wait_for(lambda: _version(bob, group), "the next version", until=lambda found: found >= 2)
    bob.person.kill()
    bob.up()
    out, err = running.communicate(timeout=WAIT_S)
    assert running.returncode == 0, out + err
    _equal(source, bob, carol)

    # Version 3: one machine is away, and named.
    changed += _change(source, rng, 3)
    carol.machine.unplug()
    alice.ok(*upload("--replace", copies="1"))
    ran = alice.run("wait", group, source.name, "--timeout", "1s")
    assert ran.code == 6, str(ran)
    assert "missing: carol" in ran.err, str(ran)
    _equal(source, bob)

    # Version 4: the tracker restarts, and the machine returns, while it is spread.
    changed += _change(source, rng, 4)
    running = alice.spawn(*upload("--replace"))
    wait_for(lambda: _version(bob, group), "the next version", until=lambda found: found >= 4)
    with place.inside():
        swarm.tracker.restart()
    carol.machine.plug("10.78.0.4")
    out, err = running.communicate(timeout=WAIT_S)
    if running.returncode == 4:  # it was asking the tracker just then
        alice.ok("wait", group, source.name, "--timeout", f"{WAIT_S}s")
    else:
        assert running.returncode == 0, out + err
    _equal(source, bob, carol)

    rows = alice.json("who-has", group, source.name)
    assert {row["user"]: row["state"] for row in rows} == dict.fromkeys(
        ("alice", "bob", "carol"), "holds"
    )
    notes = []
    for device, before in zip((bob, carol), first, strict=True):
        fetched = device.machine.received_bytes - before
        most = changed * (1 + FRAME_SHARE) + BASE_BYTES
        assert fetched <= most, f"{device.person.name}: {fetched:,} bytes for {changed:,} changed"
        _no_alarm(device.person)
        notes.append(f"{device.person.name} {before / MIB:.1f} + {fetched / MIB:.1f}")
    return f"MiB received: {', '.join(notes)}; changed pieces {changed / MIB:.1f}"


def _owner(swarm: Swarm, machine: Machine) -> Person:
    person = Person(swarm, "alice")
    with machine.inside():
        person.up()
    person.ok("create-user", person.name, person.password)
    person.ok("login", person.name, person.password)
    return person


def _follower(swarm: Swarm, machine: Machine, name: str, link: str, group: str) -> Device:
    person = Person(swarm, name)
    with machine.inside():
        person.ok("join", link, name, person.password)
    folder = swarm.folder()
    person.ok("follow", group, folder)
    return Device(person, machine, folder)


def _version(device: Device, group: str) -> int:
    rows = json.loads(device.person.run("--json", "show-downloads").out)
    return max((row["version"] for row in rows if row["group"] == group), default=0)


def _no_alarm(person: Person) -> None:
    """A follower's own update is no change of a file by hand."""
    said = person.run("doctor").out
    assert "no longer shared" not in said, said


# -- the folder --------------------------------------------------------------------------------


def _make(folder: Path, rng: random.Random, size: int) -> None:
    """Half of it in one file, the rest in files of 64 KiB, and some of odd kinds."""
    for number in range(size // 2 // PIECE):
        _write(folder / f"small/{number % 7}/{number:05}", rng.randbytes(PIECE))
    folder.joinpath("big").write_bytes(rng.randbytes(size // 2))
    _write(folder / "bin/run", b"#!/bin/sh\n")
    folder.joinpath("bin/run").chmod(0o755)
    _write(folder / "empty", b"")


def _change(folder: Path, rng: random.Random, round: int) -> int:
    """Change, add, remove and rename; return the bytes of the pieces that differ, at most."""
    pieces = 0
    big = folder / "big"
    for _ in range(3):
        with big.open("r+b") as file:
            file.seek(rng.randrange(big.stat().st_size))
            file.write(rng.randbytes(100))
        pieces += 2  # a change may lie in two pieces
    small = sorted(path for path in folder.joinpath("small").rglob("*") if path.is_file())
    changed, removed, renamed, marked = rng.sample(small, 4)
    _write(changed, rng.randbytes(PIECE))
    removed.unlink()
    renamed.rename(renamed.with_name(f"{renamed.name}.renamed"))
    marked.chmod(0o755)
    _write(folder / f"aa{round}", rng.randbytes(20_000))  # it moves all that follow
    return (pieces + 2 + 2) * PIECE


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _tree(folder: Path) -> dict[str, Any]:
    return {
        str(path.relative_to(folder)): (
            _digest(path),
            path.stat().st_mode & 0o111,
            path.stat().st_mtime_ns,
        )
        if path.is_file()
        else None
        for path in folder.rglob("*")
    }


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()


def _equal(source: Path, *devices: Device) -> None:
    expected = _tree(source)
    for device in devices:
        found = _tree(device.folder / source.name)
        differing = [
            name
            for name in expected.keys() | found.keys()
            if expected.get(name, "none") != found.get(name, "none")
        ]
        assert not differing, f"{device.person.name}: {sorted(differing)[:5]}"
        assert os.listdir(device.folder) == [source.name]
