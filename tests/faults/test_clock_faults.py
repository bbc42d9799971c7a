"""F28, F29: wall clocks that jump or are wrong. Those of single processes: see ``tamper``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.support.faults import MIB, begin, faults, settle
from tests.support.processes import RunningTracker, Swarm
from tests.support.waiting import wait_for

SIZE = 8 * MIB
HOUR_S = 3600.0


class Clocks:
    """A swarm of a tracker, Alice and Bob, each with a wall clock that can be set."""

    def __init__(self) -> None:
        self.swarm = Swarm("tcp", tracker=False)
        for name in ("tracker", "alice", "bob"):
            self.set(name, 0.0)

    def file(self, name: str) -> Path:
        return self.swarm.root / f"{name}.wall"

    def set(self, name: str, off_s: float) -> None:
        fresh = self.file(name).with_suffix(".new")
        fresh.write_text(str(off_s))
        fresh.replace(self.file(name))

    def wrong(self, name: str) -> AbstractContextManager[None]:
        """Processes that are started within have this clock."""
        return faults(wall=str(self.file(name)))


@pytest.fixture
def clocks() -> Iterator[Clocks]:
    made = Clocks()
    try:
        with made.wrong("tracker"):
            made.swarm.tracker = RunningTracker(made.swarm, "t", "tcp://127.0.0.1:0")
        yield made
    finally:
        made.swarm.close()


@pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S], ids=["forward", "back"])
def test_f28_clocks_that_jump_an_hour_disturb_no_transfer(clocks: Clocks, jump_s: float) -> None:
    with clocks.wrong("alice"):
        alice = settle(clocks.swarm, "alice", "--upload-limit", "4M")
    with clocks.wrong("bob"):
        bob = settle(clocks.swarm, "bob")
    download = begin(alice, bob, SIZE)
    for part, name in enumerate(("alice", "bob", "tracker"), start=1):
        download.until(part * SIZE // 5)
        clocks.set(name, jump_s)
    download.finishes()
    # And afterwards too: what is issued by the tracker's new time counts.
    begin(alice, bob, MIB, group=download.group).finishes()
    begin(bob, alice, MIB, group=download.group).finishes()
    rows = alice.files(download.group)
    assert all(row["seeders"] == 2 for row in rows.values()), rows


def test_f29_clocks_that_are_a_day_off_are_no_hindrance(clocks: Clocks) -> None:
    clocks.set("alice", -24 * HOUR_S)
    clocks.set("bob", 24 * HOUR_S)
    with clocks.wrong("alice"):
        alice = settle(clocks.swarm, "alice")
    with clocks.wrong("bob"):
        bob = settle(clocks.swarm, "bob")
    download = begin(alice, bob, MIB).finishes()
    begin(bob, alice, MIB, group=download.group).finishes()
    row = next(row for row in bob.run("--json", "doctor").json if row["check"] == "clock")
    assert not row["ok"]
    assert "timedatectl" in row["hint"]
    wait_for(lambda: bob.status()["connected"], "the tracker")
