"""From the disk into memory: the pieces that are to be sent, read on worker threads.

Owns how many are read at a time, and what follows when one cannot be read: for the share that it
belongs to, and for the core that gave it out. Sending is the seeder's.

A read that fails may fail in passing. So a piece is tried a few times before it counts as not held,
and even then only for a while: it may be the only copy that there is.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import Any, TypeAlias

from common.digests import Buffer
from common.errors import MiniTorrentError
from common.ids import ContentId
from peer.files.errors import (
    Away,
    ContentChanged,
    DigestMismatch,
    PieceNotHeld,
    StorageClosed,
    TooManyOpenFiles,
)
from peer.serving.inventory import Inventory, Reader, ServedContent
from peer.swarm.serving import events as swarm
from peer.swarm.serving.events import RequesterId
from peer.workers import Workers

log = logging.getLogger(__name__)

Run: TypeAlias = list[swarm.Send]
"""Adjacent pieces of one content for one requester; never empty."""

TRIES = 4  # reads of a piece that fail before it counts as not held
AWAY_S = 60.0  # it counts as not held that long at most, before it is offered again


@dataclass(slots=True)
class _Trouble:
    """A content of which pieces could not be read. It is looked at each `AWAY_S`, and forgotten
    when no piece of it is away by then."""

    served: ServedContent
    failures: Counter[int] = field(default_factory=Counter)
    """By piece, since it was read last."""
    away: set[int] = field(default_factory=set)
    """Pieces that the core takes for not held."""
    told: bool = False
    timer: asyncio.TimerHandle | None = None


class PieceReader:
    """Reads what the serving core sends. ``channel_of`` tells on which channel a piece is sent:
    what was read for one that is no more is not. ``send`` is called with adjacent pieces of one
    content that were read for one requester, ``decide`` with what the core is to know of those
    that could not be, and ``notify`` with what the owner of the files should."""

    def __init__(
        self,
        inventory: Inventory,
        workers: Workers,
        *,
        run_bytes: Callable[[RequesterId], int],
        channel_of: Callable[[swarm.Send], object],
        send: Callable[[Run, Buffer], None],
        decide: Callable[[swarm.ServingEvent], None],
        notify: Callable[[str], None],
    ) -> None:
        self._inventory = inventory
        self._workers = workers
        self._run_bytes = run_bytes
        self._channel_of = channel_of
        self._send = send
        self._decide = decide
        self._notify = notify
        self._troubles: dict[ContentId, _Trouble] = {}
        self._closed = False

    def close(self) -> None:
        """What is being read is sent no more."""
        self._closed = True
        for content in list(self._troubles):
            self._forget(content)

    @property
    def troubled(self) -> int:
        """Of how many contents pieces could not be read a while ago."""
        return len(self._troubles)

    def read(self, given_out: Iterable[swarm.Send]) -> None:
        """Read pieces, in order."""
        for _, run in groupby(given_out, lambda send: (send.requester, send.content)):
            self._read_run(list(run))

    def take_back(self, send: swarm.Send) -> None:
        """The piece is not to be sent after all."""
        self._decide(swarm.SendDropped(send.requester, send.content, send.index))

    def _read_run(self, run: list[swarm.Send]) -> None:
        served = self._inventory.get(run[0].content)
        if served is None:
            for send in run:
                self.take_back(send)
            return
        # What is credited at once is given at once: a thread that reads several pieces costs two
        # changes of threads, one for each piece would cost as many as there are pieces.
        together = self._run_bytes(run[0].requester)
        step = max(1, together // served.manifest.piece_length)
        for at in range(0, len(run), step):
            self._submit(served, run[at : at + step])

    def _submit(self, served: ServedContent, given_out: list[swarm.Send]) -> None:
        reader, channel = served.reader, self._channel_of(given_out[0])

        def done(found: Any, error: BaseException | None) -> None:
            if error is not None:
                raise error
            for run, data, trouble in found:
                if self._closed:
                    return
                if self._channel_of(run[0]) is not channel:
                    # It was closed meanwhile. There may be a new one, which asks for itself.
                    for send in run:
                        self.take_back(send)
                elif trouble is None:
                    for send in run:
                        self._well(send)
                    self._send(run, data)
                else:
                    self._not_read(run[0], served, reader, trouble)

        self._workers.submit(done, _read_all, reader, list(_adjacent(given_out)))

    def _not_read(
        self, send: swarm.Send, served: ServedContent, reader: Reader, error: Exception
    ) -> None:
        blocked = swarm.SendBlocked(send.requester, send.content, send.index)
        match error:
            case ContentChanged() | Away():
                # Another read may have noticed it first, and the content be gone or renewed since.
                if self._inventory.get(send.content) is served:
                    log.warning("%s", error)
                    self._inventory.changed(send.content)
                self.take_back(send)
            case TooManyOpenFiles():
                self._decide(blocked)
            case DigestMismatch(pieces=pieces):
                log.warning("%s", error)
                self._inventory.damaged(send.content, pieces)
                self._decide(blocked)
            case PieceNotHeld():
                # Another read found it damaged before this one began; it is being fetched again.
                if served.have is not None and send.index not in served.have:
                    self._decide(swarm.HeldLess(send.content, (send.index,)))
                self._decide(blocked)
            case StorageClosed() if served.reader is not reader:
                self._decide(blocked)  # a part became the whole meanwhile, which is read instead
            case StorageClosed():
                self.take_back(send)
            case _:
                self._failed(send, served, error)
                self._decide(blocked)

    # -- reads that fail ------------------------------------------------------------------------

    def _well(self, send: swarm.Send) -> None:
        trouble = self._troubles.get(send.content)
        if trouble is not None:
            del trouble.failures[send.index]

    def _failed(self, send: swarm.Send, served: ServedContent, error: Exception) -> None:
        """Count a failure; after a few in a row the piece is not held for a while."""
        if self._inventory.get(send.content) is not served:
            return
        trouble = self._troubles.get(send.content)
        if trouble is None or trouble.served is not served:
            self._forget(send.content)
            trouble = self._troubles[send.content] = _Trouble(served)
            self._look_later(trouble)
        trouble.failures[send.index] += 1
        if trouble.failures[send.index] < TRIES:
            log.debug("piece %d was not read, and is tried again: %s", send.index, error)
            return
        if not trouble.told:
            # Once: a broken disk has as many failures as pieces.
            trouble.told = True
            self._notify(
                f"piece {send.index} of what is shared here cannot be read, "
                f"and is tried again every {AWAY_S:.0f} s: {error}"
            )
            if not isinstance(error, MiniTorrentError):
                log.error("a defect of ours while a piece was read", exc_info=error)
        trouble.away.add(send.index)
        self._decide(swarm.HeldLess(send.content, (send.index,)))

    def _look_later(self, trouble: _Trouble) -> None:
        loop = asyncio.get_running_loop()
        trouble.timer = loop.call_later(AWAY_S, self._look_again, trouble)

    def _look_again(self, trouble: _Trouble) -> None:
        """Offer again what is away: whoever asks for it makes us try the disk."""
        served = trouble.served
        if self._inventory.get(served.content) is not served or not trouble.away:
            self._forget(served.content)
            return
        self._look_later(trouble)
        have = served.have
        back = tuple(i for i in sorted(trouble.away) if have is None or i in have)
        trouble.away.clear()
        if back:
            log.debug("%d pieces that could not be read are offered again", len(back))
            self._decide(swarm.HeldMore(served.content, back))
            self._inventory.announce(served.content, back, served.reader)

    def _forget(self, content: ContentId) -> None:
        trouble = self._troubles.pop(content, None)
        if trouble is not None and trouble.timer is not None:
            trouble.timer.cancel()


def _adjacent(given_out: list[swarm.Send]) -> Iterator[Run]:
    """Runs of adjacent pieces, in the order of the first ones."""
    begin = 0
    for at, (send, replica) in enumerate(pairwise(given_out), start=1):
        if replica.index != send.index + 1:
            yield given_out[begin:at]
            begin = at
    yield given_out[begin:]


def _read_all(reader: Reader, runs: list[Run]) -> list[tuple[Run, Buffer, Exception | None]]:
    """On a worker thread: each run, or why it cannot be read, piece by piece."""
    found: list[tuple[Run, Buffer, Exception | None]] = []
    for run in runs:
        try:
            found.append((run, reader.read_run(run[0].index, len(run)), None))
        except Exception as error:
            bad = error.pieces if isinstance(error, DigestMismatch) else ()
            failed = [send for send in run if len(run) == 1 or send.index in bad]
            found += [([send], b"", error) for send in failed]
            found += _read_all(reader, [[send] for send in run if send not in failed])
    return found
