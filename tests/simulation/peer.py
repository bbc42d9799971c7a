"""Simulated peer: the real machines with a driver in virtual time, and faults.

Owns: the translation between effects and messages, which the product does with sockets. Messages
to a source are flushed by the product's rule (see peer.swarm.fetching.flush).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from math import inf
from random import Random
from typing import TYPE_CHECKING

from common.ids import ContentId, DeviceKey, UserId
from common.limits import PIECES_PER_REQUEST_MAX
from peer.swarm.fetching import events as fetching
from peer.swarm.fetching.flush import FlushDelay
from peer.swarm.fetching.machine import Download
from peer.swarm.fetching.settings import DownloadSettings
from peer.swarm.pieces import Bitfield, PieceLayout
from peer.swarm.serving import events as serving
from peer.swarm.serving.machine import Serving
from peer.swarm.serving.settings import ServingSettings
from tests.simulation.network import Clock, Flow, Link, Network

if TYPE_CHECKING:
    from tests.simulation.swarm import Swarm

CONTENT = ContentId(b"content".ljust(32, b"."))


class Fault(Enum):
    """Fault of a serving peer."""

    NONE = auto()
    LIAR = auto()
    """It serves wrong bytes."""
    TARPIT = auto()
    """It accepts requests and never completes a piece."""
    EMPTY = auto()
    """It offers every piece and declines every request."""


@dataclass(slots=True)
class Connection:
    """Requester to source: requests up, notices down, and pieces on a flow of their own."""

    requester: SimPeer
    source: SimPeer
    id: serving.RequesterId
    up: Flow
    down: Flow
    bulk: Flow
    received: int = 0
    acked: int = 0
    pending: list[int] = field(default_factory=list)
    """Pieces to be requested with the next flush."""
    cancelled: list[int] = field(default_factory=list)
    flush: FlushDelay = field(default_factory=FlushDelay)
    flush_at: float = inf
    alive: bool = True


class SimPeer:
    """One node of a swarm."""

    def __init__(
        self,
        swarm: Swarm,
        number: int,
        link: Link,
        layout: PieceLayout,
        rng: Random,
        *,
        seeder: bool,
        download_settings: DownloadSettings,
        serving_settings: ServingSettings,
    ) -> None:
        self.swarm = swarm
        self.clock: Clock = swarm.clock
        self.network: Network = swarm.network
        self.number = number
        self.key = DeviceKey(number.to_bytes(32, "big"))
        self.user = UserId(f"user{number}")
        self.link = link
        self.layout = layout
        self.rng = rng
        self.seeder = seeder
        self.fault = Fault.NONE
        self.lost_sends: set[int] = set()
        """Sends that are lost, by their sequence number."""
        self.alive = True
        self.frozen = False
        self._backlog: list[tuple[object, tuple[object, ...]]] = []
        self.started_at: float | None = None
        self.completed_at: float | None = None
        alike = swarm.scenario.alike
        self.download = (
            None if seeder else Download(layout, rng, settings=download_settings, alike=alike)
        )
        self.serving = Serving(serving_settings)
        have = None if seeder else Bitfield(layout.count)
        self.serving.handle(
            serving.ContentAdded(CONTENT, layout.piece_length, layout.size, have), 0.0
        )
        self.to_sources: dict[DeviceKey, Connection] = {}
        self.from_requesters: dict[serving.RequesterId, Connection] = {}
        self._connections = 0
        self._sends = 0
        self._download_timer = float("inf")
        self._serving_timer = float("inf")
        self._carry = {
            fetching.Request: self._request,
            fetching.Verify: self._verify,
            fetching.CancelRequest: self._cancel,
            fetching.Announce: self._announce,
            fetching.Open: self._open,
            fetching.Close: self._close,
            fetching.Discard: self._discard,
            fetching.Complete: self._complete,
            fetching.Make: self._make,
        }

    # -- events to the machines -------------------------------------------------------------------

    def fetch(self, event: fetching.DownloadEvent) -> None:
        """Pass the download an event and carry out its effects."""
        download = self.download
        if download is None or not self.alive:
            return
        if self.frozen:
            self._backlog.append((self.fetch, (event,)))
            return
        now = self.clock.now
        effects = download.handle(event, now)
        if self.swarm.checked:
            download.check_invariants()
        for effect in effects:
            self._carry[type(effect)](effect)
        due = download.next_wakeup(now)
        if due is not None and due < self._download_timer:
            self._download_timer = due
            self.clock.at(due, self._download_tick, due)

    def _download_tick(self, due: float) -> None:
        if due == self._download_timer:
            self._download_timer = float("inf")
            self._report_moves()
            self.fetch(fetching.Tick())

    def _report_moves(self) -> None:
        if self.download is not None and self.alive and not self.frozen:
            for source in self.download.silent_sources(self.clock.now):
                if (connection := self.to_sources.get(source)) is not None:
                    self.fetch(fetching.SourceMoves(source, connection.bulk.moved_at))

    def serve(self, event: serving.ServingEvent) -> None:
        """Pass the serving machine an event and carry out its effects."""
        if not self.alive:
            return
        if self.frozen:
            self._backlog.append((self.serve, (event,)))
            return
        now = self.clock.now
        effects = self.serving.handle(event, now)
        if self.swarm.checked:
            self.serving.check_invariants()
        for effect in effects:
            match effect:
                case serving.Send():
                    self._send(effect)
                case serving.Decline():
                    self._decline(effect)
                case serving.Drop():
                    self._drop(effect)
        due = self.serving.next_wakeup(now)
        if due is not None and due < self._serving_timer:
            self._serving_timer = due
            self.clock.at(due, self._serving_tick, due)

    def _serving_tick(self, due: float) -> None:
        if due == self._serving_timer:
            self._serving_timer = float("inf")
            self.serve(serving.Tick())

    # -- effects of the download ------------------------------------------------------------------

    def _open(self, effect: fetching.Open) -> None:
        source = self.swarm.peers[int.from_bytes(effect.source, "big")]
        self._connections += 1
        name = f"{self.number}-{source.number}-{self._connections}".encode()
        down = Flow(source.link, self.link)
        bulk = Flow(source.link, self.link) if self.swarm.scenario.bulk else down
        up = Flow(self.link, source.link)
        connection = Connection(self, source, serving.RequesterId(name), up, down, bulk)
        self.to_sources[effect.source] = connection
        self.network.send(connection.up, 0, source.accept, connection)

    def accept(self, connection: Connection) -> None:
        """Accept a requester that opens the content."""
        if not self.alive:
            connection.requester.lost(connection, fetching.SourceUnreachable(self.key))
            return
        if self.frozen:
            self._backlog.append((self.accept, (connection,)))
            return
        self.from_requesters[connection.id] = connection
        have = None
        if self.download is not None and not self.download.complete:
            have = self.download.pieces.held.copy()
        self.network.send(
            connection.down,
            0,
            connection.requester.from_source,
            connection,
            fetching.Opened(self.key, have),
        )

    def from_source(self, connection: Connection, event: fetching.DownloadEvent) -> None:
        """Receive a message of a source."""
        if connection.alive and self.alive:
            self.fetch(event)

    def receive_piece(self, connection: Connection, index: int, size: int) -> None:
        if connection.alive and self.alive:
            connection.received += size
            self._flush_soon(connection)
            self.fetch(fetching.PieceReceived(connection.source.key, index, size))

    def lost(self, connection: Connection, event: fetching.DownloadEvent) -> None:
        """Lose a connection."""
        if connection.alive and self.alive:
            connection.alive = False
            self.to_sources.pop(connection.source.key, None)
            self.fetch(event)

    def _request(self, effect: fetching.Request) -> None:
        connection = self.to_sources[effect.source]
        connection.pending.extend(effect.pieces)
        self._flush_soon(connection)

    def _cancel(self, effect: fetching.CancelRequest) -> None:
        connection = self.to_sources[effect.source]
        unsent = set(connection.pending).intersection(effect.pieces)
        connection.pending = [i for i in connection.pending if i not in unsent]
        connection.cancelled.extend(i for i in effect.pieces if i not in unsent)
        self._flush_soon(connection)

    def _flush_soon(self, connection: Connection) -> None:
        """Schedule the waiting messages to a source, as the product does: see `FlushDelay`."""
        now = self.clock.now
        due = now + connection.flush.delay_s(connection.received - connection.acked, now)
        if due < connection.flush_at:
            connection.flush_at = due
            self.clock.at(due, self._flush, connection, due)

    def _flush(self, connection: Connection, due: float) -> None:
        if due != connection.flush_at or not connection.alive:
            return
        connection.flush_at = inf
        connection.flush.flushed(self.clock.now)
        cancelled, connection.cancelled = connection.cancelled, []
        for pieces in _messages(cancelled):
            self.swarm.cancels += 1
            self._up(connection, serving.RequestCancelled(connection.id, CONTENT, pieces))
        pending, connection.pending = connection.pending, []
        for pieces in _messages(pending):
            self.swarm.requests += 1
            received = connection.acked = connection.received
            request = serving.RequestReceived(connection.id, self.user, CONTENT, pieces, received)
            self._up(connection, request)
        if connection.acked < connection.received:
            self.swarm.acks += 1
            connection.acked = connection.received
            self._up(connection, serving.Acknowledged(connection.id, connection.received))

    def _up(self, connection: Connection, event: serving.ServingEvent) -> None:
        source = connection.source
        self.network.send(connection.up, 0, source.from_requester, connection, event)

    def from_requester(self, connection: Connection, event: serving.ServingEvent) -> None:
        """Receive a message of a requester."""
        if connection.alive:
            self.serve(event)

    def _verify(self, effect: fetching.Verify) -> None:
        source = self.swarm.peers[int.from_bytes(effect.source, "big")]
        wrong = source.fault is Fault.LIAR
        event: fetching.DownloadEvent
        if wrong:
            event = fetching.PieceCorrupt(effect.source, effect.index)
        else:
            event = fetching.PieceVerified(effect.source, effect.index)
        self.clock.at(self.clock.now + self.swarm.verify_s, self._verified, event)

    def _verified(self, event: fetching.PieceVerified | fetching.PieceCorrupt) -> None:
        if isinstance(event, fetching.PieceVerified):
            self.serve(serving.HeldMore(CONTENT, (event.index,)))
        self.fetch(event)

    def _make(self, effect: fetching.Make) -> None:
        assert self.download is not None
        assert effect.like is None or effect.like in self.download.pieces.held
        self.swarm.made += 1
        at = self.clock.now + self.swarm.verify_s
        self.clock.at(at, self._made, fetching.PieceMade(effect.index))

    def _made(self, event: fetching.PieceMade) -> None:
        self.serve(serving.HeldMore(CONTENT, (event.index,)))
        self.fetch(event)

    def _announce(self, effect: fetching.Announce) -> None:
        for connection in list(self.from_requesters.values()):
            self.swarm.haves += 1
            self.network.send(
                connection.down,
                0,
                connection.requester.from_source,
                connection,
                fetching.HaveMore(self.key, effect.pieces),
            )

    def _close(self, effect: fetching.Close) -> None:
        connection = self.to_sources.pop(effect.source, None)
        if connection is not None:
            connection.alive = False
            self.network.send(connection.up, 0, connection.source.forget, connection)

    def forget(self, connection: Connection) -> None:
        """Forget a requester that closed."""
        if self.frozen:
            self._backlog.append((self.forget, (connection,)))
            return
        self.from_requesters.pop(connection.id, None)
        connection.bulk.messages.clear()
        self.serve(serving.RequesterGone(connection.id))

    def _discard(self, effect: fetching.Discard) -> None:
        if effect.why is fetching.DiscardReason.DUPLICATE:
            self.swarm.duplicate_bytes += self.layout.size_of(effect.index)

    def _complete(self, effect: fetching.Complete) -> None:
        self.completed_at = self.clock.now
        self.swarm.completed(self)

    # -- effects of the serving machine -----------------------------------------------------------

    def _send(self, effect: serving.Send) -> None:
        connection = self.from_requesters.get(effect.requester)
        if connection is None:
            return
        self.swarm.sends += 1
        if effect.notify:
            self.swarm.notices += 1
            notice = fetching.OnItsWay(self.key, (effect.index,))
            to = connection.requester.from_source
            self.network.send(connection.down, 0, to, connection, notice)
        if self.fault is Fault.TARPIT:
            return
        if self.fault is Fault.EMPTY:
            self.network.send(
                connection.down,
                0,
                connection.requester.from_source,
                connection,
                fetching.PiecesRefused(self.key, (effect.index,)),
            )
            return
        self._sends += 1
        if self._sends - 1 in self.lost_sends:
            return
        size = self.layout.size_of(effect.index)
        self.network.send(
            connection.bulk,
            size,
            connection.requester.receive_piece,
            connection,
            effect.index,
            size,
        )

    def _decline(self, effect: serving.Decline) -> None:
        connection = self.from_requesters.get(effect.requester)
        if connection is None:
            return
        event: fetching.DownloadEvent
        if effect.why is serving.DeclineReason.BUSY:
            event = fetching.SourceBusy(self.key, effect.retry_after_s, effect.pieces)
        else:
            event = fetching.PiecesRefused(self.key, effect.pieces)
        self.network.send(connection.down, 0, connection.requester.from_source, connection, event)

    def _drop(self, effect: serving.Drop) -> None:
        connection = self.from_requesters.pop(effect.requester, None)
        if connection is not None:
            connection.requester.lost(connection, fetching.SourceClosed(self.key))

    # -- faults -----------------------------------------------------------------------------------

    def crash(self, noticed_after_s: float = 0.0) -> None:
        """Stop at once; connections break when others notice."""
        self.alive = False
        at = self.clock.now + noticed_after_s
        for connection in self.from_requesters.values():
            connection.bulk.messages.clear()
            self.clock.at(
                at, connection.requester.lost, connection, fetching.SourceClosed(self.key)
            )
        for connection in self.to_sources.values():
            connection.alive = False
            self.clock.at(at, connection.source.forget, connection)

    def freeze(self) -> None:
        """Accept messages without handling them, like a stopped process."""
        self.frozen = True

    def thaw(self) -> None:
        self.frozen = False
        backlog, self._backlog = self._backlog, []
        for action, args in backlog:
            action(*args)  # type: ignore[operator]


def _messages(pieces: list[int]) -> list[tuple[int, ...]]:
    step = PIECES_PER_REQUEST_MAX
    return [tuple(pieces[at : at + step]) for at in range(0, len(pieces), step)]
