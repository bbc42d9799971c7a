"""Events in great numbers, and those who watch them."""

from __future__ import annotations

import json
import threading

from people import Person
from tracker_fixtures import Device
from waiting import wait_for

from common.link import parse_link
from common.messages import tracker

PIPELINED = 100


class Watcher:
    """``watch --json`` in a process of its own; keeps the numbers that it tells of a group."""

    def __init__(self, who: Person, group: str) -> None:
        self.seqs: list[int] = []
        self._process = who.spawn("--json", "watch", group)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for text in self._process.stdout:
            self.seqs.append(json.loads(text)["seq"])


class Noise:
    """A device that makes events in a group of its own with ``people``."""

    def __init__(self, alice: Person, *others: Person) -> None:
        self.group = alice.group_with(*others)
        self._device = Device(parse_link(alice.swarm.tracker.link)).enter("noise")
        self._device.ask(tracker.JoinGroup(self.group))
        alice.ok("accept-request", self.group, "noise")
        self._content = self._device.share(self.group, "first")

    def make(self, count: int) -> None:
        """Shares come and go: two events for each pair of commands, many commands at a time."""
        made = 0
        while made < count:
            sent = []
            for number in range(PIPELINED // 2):
                offer = tracker.Offer(self.group, f"n{number}", self._content)
                sent += [
                    self._device.send(offer),
                    self._device.send(tracker.StopShare(self.group, f"n{number}")),
                ]
            for request_id in sent:
                self._device.receive(request_id)
            made += PIPELINED

    def watched_by(self, who: Person) -> Watcher:
        """A watcher that has heard something."""
        watcher = Watcher(who, self.group)

        def heard() -> int:
            self.make(1)
            return len(watcher.seqs)

        wait_for(heard, "the first event")
        return watcher

    def heard_by(self, watcher: Watcher) -> None:
        """All was heard since the first: each once, and in order."""
        head = self._device.ask(tracker.EventsSince(self.group, 1 << 40)).head
        wait_for(lambda: head in watcher.seqs[-5:], "the last event", patience_s=120.0)
        seqs = watcher.seqs
        assert seqs == list(range(seqs[0], head + 1))

    def close(self) -> None:
        self._device.close()
