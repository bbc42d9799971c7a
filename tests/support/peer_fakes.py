"""Fakes of the tracker for tests of the peer, with answers that a test gives."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from common.errors import Refused, TransportError
from common.ids import GroupId, UserId
from common.messages import tracker
from common.messages.refusals import Code
from peer.tracker_client.group_replica import GroupReplica
from peer.tracker_client.link import Answer
from tests.support.waiting import PATIENCE_S


async def until(condition: Callable[[], object], what: str = "it") -> None:
    """Run the loop until the condition holds."""
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"{what} did not happen"
        await asyncio.sleep(0.002)


async def turns(count: int = 20) -> None:
    """Run the loop for so many turns."""
    for _ in range(count):
        await asyncio.sleep(0)


class FakeLink:
    """Link to a tracker that answers commands by their class, and records topics.

    An answer is a value, an exception, or a function of the command, which may be a coroutine.
    """

    def __init__(self, **answers: Any) -> None:
        self.answers: dict[str, Any] = answers
        self.asked: list[Any] = []
        self.topics: set[bytes] = set()
        self.data: Any = None
        """Data of the last command."""
        self.connected = True

    def subscribe(self, topic: bytes) -> None:
        self.topics.add(topic)

    def unsubscribe(self, topic: bytes) -> None:
        self.topics.discard(topic)

    async def reachable(self) -> None:
        if not self.connected:
            raise TransportError("away")

    async def request(
        self, command: Any, answer: type[Any], *, data: Any = None, timeout_s: float = 0.0
    ) -> Any:
        self.asked.append(command)
        self.data = data
        if not self.connected:
            raise TransportError("away")
        reply = self.answers.get(type(command).__name__, Refused(Code.INTERNAL, "no answer"))
        if callable(reply):
            reply = reply(command)
            if isinstance(reply, Awaitable):
                reply = await reply
        if isinstance(reply, Exception):
            raise reply
        assert type(reply) is Answer or isinstance(reply, answer), reply
        return reply

    async def manifest_part(self, group: str, content: bytes, offset: int = 0) -> Any:
        return await self.request(tracker.GetManifest(group, content, offset), tracker.ManifestPart)

    def asked_for(self, kind: type[Any]) -> list[Any]:
        return [command for command in self.asked if isinstance(command, kind)]


class Membership:
    """Groups of a user, as the tracker reported them."""

    def __init__(self, user: UserId, *groups: GroupId) -> None:
        self.user: UserId | None = user
        self.known = True
        self.groups: dict[GroupId, None] = dict.fromkeys(groups)
        self.topics: dict[GroupId, bytes] = {}

    async def sync(self) -> None:
        await asyncio.sleep(0)

    def topic_of(self, group: GroupId) -> bytes:
        return self.topics.get(group, b"topic") if group in self.groups else b""

    has_left = GroupReplica.has_left

    def follow_share(self, *_: object) -> None:
        pass

    unfollow_share = follow_share
