"""Many devices in one process, each with a real `TrackerLink`: they stay connected, follow their
groups and renew their leases, as peers do, and nothing else.

``python -m tests.chaos.fleet LINK KEYS`` reads pairs of keys (hex, a pair a line) and prints a line
of JSON whenever the number of those who are up changes: how many are, and how often one came up.
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import sys
from pathlib import Path
from typing import Any

import zmq

from common import limits
from common.crypto.keys import KeyPair
from common.errors import MiniTorrentError
from common.ids import DeviceKey
from common.link import Tracker, parse_link
from common.messages import tracker
from peer.tracker_client.link import TrackerLink

REPORT_S = 0.1


class Member:
    """One device."""

    def __init__(self, context: zmq.Context[Any], pair: KeyPair, where: Tracker) -> None:
        self.settled = False
        self.times_up = 0
        self._link = TrackerLink(context, pair, [where], self, rng=random.Random())
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._link.start()

    def link_up(self, welcome: tracker.Welcome) -> None:
        """Part of `Listener`. Logged in by its key alone, or something is wrong."""
        assert welcome.user
        self.times_up += 1
        self._task = asyncio.ensure_future(self._live())

    def link_down(self) -> None:
        """Part of `Listener`."""
        self.settled = False
        if self._task is not None:
            self._task.cancel()

    def published(self, topic: bytes, sealed: bytes) -> None:
        """Part of `Listener`."""

    async def _live(self) -> None:
        try:
            await self._link.request(tracker.Follow(), tracker.Following)
            while True:
                announce = tracker.Announce("tcp://127.0.0.1:9", [])
                await self._link.request(announce, tracker.Announced)
                self.settled = True
                await asyncio.sleep(limits.RENEW_S)
        except MiniTorrentError:
            self.settled = False


async def main(link: str, keys: list[str]) -> None:
    context: zmq.Context[Any] = zmq.Context()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    context.set(zmq.MAX_SOCKETS, 60_000)
    where = parse_link(link).first
    members = []
    for text in keys:
        public, secret = (bytes.fromhex(word) for word in text.split())
        members.append(Member(context, KeyPair(DeviceKey(public), secret), where))
    for member in members:
        member.start()
    before = None
    while True:
        found = (sum(m.settled for m in members), sum(m.times_up for m in members))
        if found != before:
            before = found
            print(json.dumps({"up": found[0], "times": found[1]}), flush=True)
        await asyncio.sleep(REPORT_S)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]).read_text().splitlines()))
