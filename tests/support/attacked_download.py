"""A download with a liar among its sources."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from tests.support.attackers import AttackSwarm, Liar, Send, lying
from tests.support.faults import frozen
from tests.support.waiting import PATIENCE_S, wait_for

PIECES = 48


class AttackedDownload:
    """A file of Alice's that Bob fetches while a liar offers it too.

    Alice's honest peer stands still until `lie` was called, so that each lie is truly told.
    """

    def __init__(self, arena: AttackSwarm) -> None:
        self.arena = arena
        self.bob = arena.bob
        group = arena.group()
        arena.alice.let_in(group, self.bob)
        self.shared = arena.shared(group, PIECES)
        self._lied = threading.Event()

    def lie(self) -> None:
        """The liar has lied; others may give what is right."""
        self._lied.set()

    def run(self, behave: Callable[[Any, Send], None]) -> Liar:
        """Download while ``behave`` answers; returns the liar when the file is whole and right."""
        group, name = self.shared.group, self.shared.name
        folder = self.arena.swarm.folder()
        with lying(self.arena, self.shared, behave) as liar:
            with frozen(self.arena.alice.pid):
                self.bob.ok("download-file", group, name, folder, "--no-wait")
                assert self._lied.wait(PATIENCE_S), "the liar was never asked"
                assert self.bob.state_of(group, name) == "downloading"
            wait_for(
                lambda: self.bob.state_of(group, name),
                "the end",
                until=lambda s: s in ("complete", "failed"),
            )
            assert self.bob.state_of(group, name) == "complete", self.bob.downloads()
            assert (folder / name).read_bytes() == self.shared.bytes
        return liar

    @property
    def log(self) -> str:
        """The log of Bob's peer."""
        return (self.bob.home / "peer.log").read_text()
