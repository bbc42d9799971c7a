"""Events in great numbers, and those who watch them."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from typing import Any

from common.link import parse_link
from common.messages import tracker
from common.messages.base import Refusal
from common.messages.refusals import Code
from tests.support.paths import ROOT
from tests.support.processes import Person
from tests.support.tracker_process import Device
from tests.support.waiting import wait_for

DEVICES = 6
EXAMPLE = ROOT / "examples" / "watch_events.py"


class Watcher:
    """A process that prints events as JSON; keeps the numbers that it tells of a group, those of
    a gap included."""

    def __init__(self, process: subprocess.Popen[str], group: str) -> None:
        self.seqs: list[int] = []
        self.pid = process.pid
        self._process = process
        self._group = group
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for text in self._process.stdout:
            event = json.loads(text)
            if event["group"] == self._group:
                self.seqs += range(event.get("first", event["seq"]), event["seq"] + 1)


class Noise:
    """Devices of a user who makes events in a group with ``people``."""

    def __init__(self, alice: Person, *others: Person) -> None:
        self.group = alice.group_with(*others)
        at = parse_link(alice.swarm.tracker.link).first
        self._devices = [Device(at).enter("noise")]
        self._devices += [Device(at) for _ in range(DEVICES - 1)]
        for device in self._devices[1:]:
            device.request(tracker.Login("noise", "a password"))
        self._devices[0].request(tracker.JoinGroup(self.group))
        alice.ok("accept-request", self.group, "noise")
        self._content = self._devices[0].share(self.group, "first")

    def make(self, count: int) -> None:
        """Shares come and go. By several devices, for one may not ask so much."""

        def work(number: int, device: Device) -> None:
            name = f"n{number}"
            for _ in range(-(-count // (2 * DEVICES))):
                _insist(device, tracker.Offer(self.group, name, self._content))
                _insist(device, tracker.StopShare(self.group, name))

        threads = [threading.Thread(target=work, args=each) for each in enumerate(self._devices)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def watched_by(self, who: Person) -> Watcher:
        """Return ``watch`` once it has received something."""
        return self._tuned_in(who.spawn("--json", "watch", self.group))

    def followed_by(self, who: Person) -> Watcher:
        """The example of a monitoring script, as a further device of that user."""
        link, key = who.swarm.tracker.link, who.swarm.folder() / "watcher.key"
        process = subprocess.Popen(
            [sys.executable, EXAMPLE, link, who.name, "--key", key],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        who.swarm.spawned.append(process)
        assert process.stdin is not None
        process.stdin.write(f"{who.password}\n")
        process.stdin.flush()
        return self._tuned_in(process)

    def _tuned_in(self, process: subprocess.Popen[str]) -> Watcher:
        watcher = Watcher(process, self.group)

        def heard() -> int:
            self.make(1)
            return len(watcher.seqs)

        wait_for(heard, "the first event")
        return watcher

    def heard_by(self, watcher: Watcher) -> None:
        """All was heard since the first, each once and in order, or told as a gap."""
        head = self._devices[0].request(tracker.EventsSince(self.group, 1 << 40)).head
        wait_for(lambda: head in watcher.seqs[-5:], "the last event", patience_s=120.0)
        seqs = watcher.seqs
        assert seqs == list(range(seqs[0], head + 1))

    def close(self) -> None:
        for device in self._devices:
            device.close()


def _insist(device: Device, command: Any) -> None:
    """Repeat the request until the tracker no longer says that it is too much."""

    def asked() -> bool:
        reply = device.try_(command)
        busy = isinstance(reply, Refusal) and reply.code is Code.BUSY
        assert busy or not isinstance(reply, Refusal), reply
        return not busy

    wait_for(asked, "an answer")
