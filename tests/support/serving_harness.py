"""A `PieceServer` and a `ConnectionPool` joined by real sockets in one loop, with a content."""

from __future__ import annotations

from typing import Any

import zmq

from common import limits, manifest
from common.crypto.keys import new_pair
from common.crypto.sealed_stream import Sealer
from common.crypto.tickets import Ticket
from common.digests import Algorithm
from common.errors import Refused
from common.ids import ContentId, DeviceKey, GroupId
from common.messages import peer
from common.messages.base import Refusal
from common.messages.refusals import Code
from common.net import zap
from peer.fetching.channel import Channel, ChannelHandler
from peer.fetching.pool import ConnectionPool
from peer.serving.access import AccessControl
from peer.serving.bulk import BulkSender
from peer.serving.inventory import Inventory
from peer.serving.server import PieceServer
from peer.swarm.pieces import Bitfield
from peer.swarm.rate_limit import RateLimit, Rates
from peer.workers import Workers
from tests.support.peer_fakes import until

FILMS, MUSIC = GroupId("films"), GroupId("music")
LENGTH = limits.PIECE_LENGTH_MIN
DATA = b"".join(bytes([at]) * LENGTH for at in range(7)) + b"the end"
COUNT = 8


def piece(index: int) -> bytes:
    return DATA[index * LENGTH : (index + 1) * LENGTH]


def content_of(data: bytes) -> tuple[ContentId, manifest.Manifest, bytes]:
    digest = Algorithm.BLAKE3.digest_of
    pieces = b"".join(digest(data[at : at + LENGTH]) for at in range(0, len(data), LENGTH))
    decoded = manifest.Manifest(
        1,
        Algorithm.BLAKE3,
        LENGTH,
        len(data),
        digest(data),
        pieces,
        (manifest.Entry("", len(data)),),
    )
    encoded = manifest.encode(decoded)
    return manifest.manifest_id(encoded), decoded, encoded


CONTENT, MANIFEST, ENCODED = content_of(DATA)


class Reader:
    """A content in memory, with pieces that cannot be read."""

    def __init__(self) -> None:
        self.errors: dict[int, Exception] = {}

    def read_run(self, first: int, count: int) -> bytes:
        pieces = range(first, first + count)
        for index in pieces:
            if index in self.errors:
                raise self.errors[index]
        return b"".join(map(piece, pieces))


class FakeAccess(AccessControl):
    """Access control that accepts tokens with the prefix ``good``, and raises ``withdrawn``."""

    def __init__(self, inventory: Inventory) -> None:
        super().__init__(None, inventory, None)  # type: ignore[arg-type]
        self.withdrawn: Refused | None = None
        self.shown: list[bytes] = []

    def authorize(self, device: DeviceKey, group: GroupId, token: bytes) -> Ticket:
        self.shown.append(token)
        if not token.startswith(b"good"):
            raise Refused(Code.TICKET_INVALID, "this ticket does not count here")
        return Ticket(1, b"t" * 16, device, "bob", group, 1, 0, 99)

    def _check(self, ticket: Ticket) -> None:
        if self.withdrawn is not None:
            raise self.withdrawn


class RecordingHandler(ChannelHandler):
    """A channel handler that records its callbacks in ``events``, ``pieces`` and ``manifest``."""

    def __init__(self, group: GroupId = FILMS, content: ContentId = CONTENT) -> None:
        self.group, self.content = group, content
        self.channel: Channel
        self.events: list[Any] = []
        self.pieces: dict[int, bytes] = {}
        self.manifest = b""

    def on_opened(self, device: DeviceKey, bitfield: bytes | None) -> None:
        self.events.append(("opened", bitfield))

    def on_have(self, device: DeviceKey, pieces: list[int]) -> None:
        self.events.append(("have", tuple(pieces)))

    def on_pieces(self, device: DeviceKey, first: int, count: int, data: memoryview) -> None:
        for n in range(count):
            self.pieces[first + n] = bytes(data[n * LENGTH : (n + 1) * LENGTH])

    def on_declined(self, device: DeviceKey, answer: peer.Declined) -> None:
        self.events.append(("declined", tuple(answer.pieces), answer.busy))

    def on_refused(self, device: DeviceKey, refusal: Refusal) -> None:
        self.events.append(("refused", refusal.code))

    def on_lost(self, device: DeviceKey, opened: bool) -> None:
        self.events.append(("lost", opened))

    def on_manifest_part(self, device: DeviceKey, total: int, offset: int, data: bytes) -> None:
        assert offset == len(self.manifest)
        self.manifest += data


class ServingHarness:
    """A piece server and a connection pool in one loop. ``bulk``: with bulk connections."""

    bulk = False

    def __init__(self, limit: RateLimit | None = None) -> None:
        self.contexts: list[zmq.Context[Any]] = [zmq.Context(), zmq.Context()]
        self.inventory, self.reader = Inventory(), Reader()
        self.access = FakeAccess(self.inventory)
        self.workers = Workers(2, "test")
        self.guard = zap.ZapHandler(self.contexts[0])
        self.server, self.client = new_pair(), new_pair()
        self.known = {self.client.public}
        self.knows_device = self.known.__contains__
        self.piece_server = PieceServer(
            self.contexts[0],
            self.server,
            "tcp://127.0.0.1:0",
            guard=self.guard,
            replica=self,  # type: ignore[arg-type]
            access=self.access,
            inventory=self.inventory,
            workers=self.workers,
            limit=limit or RateLimit(Rates()),
            bulk_port=0 if self.bulk else None,
        )
        self.ticket: bytes | None = b"good"
        self.pool = ConnectionPool(
            self.contexts[1], self.client, lambda group: self.ticket, bulk=self.bulk
        )

    def offer(self, have: Bitfield | None = None, group: GroupId = FILMS) -> None:
        self.inventory.put(group, CONTENT, MANIFEST, ENCODED, self.reader, have)

    def start_open(self, handler: RecordingHandler, endpoint: str = "") -> None:
        endpoint = endpoint or self.piece_server.endpoint
        handler.channel = self.pool.open(
            self.server.public, endpoint, handler.content, handler.group, handler
        )

    async def open(self, handler: RecordingHandler | None = None) -> RecordingHandler:
        handler = handler or RecordingHandler()
        self.start_open(handler)
        await until(lambda: handler.events, "an answer")
        return handler

    def close(self) -> None:
        self.piece_server.close()
        self.pool.close()
        self.guard.close()
        self.workers.close()
        for context in self.contexts:
            context.destroy(linger=0)


def python_sealer(sender: BulkSender, key: bytes, aegis: bool) -> Sealer:
    """Seal in Python, also for a client that opens AEGIS-128L."""
    return Sealer(key, sender._scratch, by_aegis=aegis)
