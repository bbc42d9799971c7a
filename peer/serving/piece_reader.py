"""Piece reader: reads pieces on worker threads before they are sent.

Owns: the size of a read, and the state of contents of which pieces cannot be read. Not here:
channels, sending, and the serving machine (see ``peer.serving.server``).

A failed read may succeed later. So a piece is tried `TRIES` times before it counts as not held, and
then for `AWAY_S` only: it may be the only copy that there is.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum, unique
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

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
    errno_word,
)
from peer.serving.inventory import Inventory, Reader, ServedContent
from peer.swarm.serving import events as swarm
from peer.workers import Workers

log = logging.getLogger(__name__)

Run: TypeAlias = list[swarm.Send]
"""Adjacent pieces of one content for one client; never empty."""

TRIES = 4  # failed reads of a piece until it counts as not held
AWAY_S = 60.0  # the longest time that it counts as not held before it is offered again


@unique
class Outcome(Enum):
    """Result of a read, as far as the serving machine must know it."""

    READ = "read"
    RETRY = "retry"
    """The piece was not read: try again, or decline it if it is no longer held."""
    DROP = "drop"
    """The content is gone; its client gets a `Closed` from the inventory, or got one."""


class ReadResult(NamedTuple):
    """The outcome of reading ``run``; ``data`` holds its pieces one after another."""

    run: Run
    outcome: Outcome
    data: Buffer = b""


@dataclass(slots=True)
class _Faults:
    """Failed reads of one content. Reviewed every `AWAY_S`, and forgotten if no piece is away."""

    served: ServedContent
    failures: Counter[int] = field(default_factory=Counter)
    """By piece, since its last successful read."""
    away: set[int] = field(default_factory=set)
    """Pieces that were reported as not held."""
    notified: bool = False
    timer: asyncio.TimerHandle | None = None


class PieceReader:
    """Reads pieces of the inventory. ``notify`` reports lasting faults to the user."""

    def __init__(
        self,
        inventory: Inventory,
        workers: Workers,
        notify: Callable[[str], None],
        counts: Counter[str] | None = None,
    ) -> None:
        """Create a reader; ``counts`` gets the bytes that are read, and failed reads by
        `errno_word`."""
        self._inventory = inventory
        self._workers = workers
        self._notify = notify
        self._faults: dict[ContentId, _Faults] = {}
        self._closed = False
        self._counts: Counter[str] = Counter() if counts is None else counts

    def close(self) -> None:
        """Discard the results of reads that are under way."""
        self._closed = True
        for content in list(self._faults):
            self._forget(content)

    def read(self, run: Run, run_bytes: int, done: Callable[[ReadResult], None]) -> None:
        """Read pieces of one content in order, and call ``done`` with each result.

        Reads of up to ``run_bytes`` go to a thread together. Why: each handover to a thread costs
        two context switches, and these pieces are sent at once anyway.
        """
        served = self._inventory.get(run[0].content)
        if served is None:
            done(ReadResult(run, Outcome.DROP))
            return
        step = max(1, run_bytes // served.manifest.piece_length)
        for at in range(0, len(run), step):
            self._submit(served, run[at : at + step], done)

    def _submit(
        self, served: ServedContent, sends: list[swarm.Send], done: Callable[[ReadResult], None]
    ) -> None:
        reader = served.reader

        def finished(found: Any, error: BaseException | None) -> None:
            if error is not None:
                raise error
            for run, data, failure in found:
                if self._closed:
                    return
                if failure is None:
                    self._on_read(run)
                    self._counts["read bytes"] += memoryview(data).nbytes
                    done(ReadResult(run, Outcome.READ, data))
                else:
                    done(ReadResult(run, self._on_failure(run[0], served, reader, failure)))

        self._workers.submit(finished, _read_all, reader, list(_adjacent(sends)))

    def _on_failure(
        self, send: swarm.Send, served: ServedContent, reader: Reader, error: Exception
    ) -> Outcome:
        match error:
            case ContentChanged() | Away():
                # Another read may have found it first, and the content be gone or renewed since.
                if self._inventory.get(send.content) is served:
                    log.warning("%s", error)
                    self._inventory.changed(send.content)
                return Outcome.DROP
            case TooManyOpenFiles():
                pass
            case DigestMismatch(pieces=pieces):
                log.warning("%s", error)
                self._inventory.damaged(send.content, pieces)
            case PieceNotHeld():
                # Another read found it damaged before this one began; it is being fetched again.
                if served.have is not None and send.index not in served.have:
                    self._inventory.suspend(send.content, (send.index,))
            case StorageClosed() if served.reader is not reader:
                pass  # a part became complete meanwhile; the complete content is read instead
            case StorageClosed():
                return Outcome.DROP
            case _:
                self._count_failure(send, served, error)
        return Outcome.RETRY

    # -- reads that fail ------------------------------------------------------------------------

    def _on_read(self, run: Run) -> None:
        faults = self._faults.get(run[0].content)
        if faults is not None:
            for send in run:
                del faults.failures[send.index]

    def _count_failure(self, send: swarm.Send, served: ServedContent, error: Exception) -> None:
        """Count a failure; after `TRIES` in a row, suspend the piece."""
        self._counts[f"disk error {errno_word(error)}"] += 1
        if self._inventory.get(send.content) is not served:
            return
        faults = self._faults.get(send.content)
        if faults is None or faults.served is not served:
            self._forget(send.content)
            faults = self._faults[send.content] = _Faults(served)
            self._schedule_review(faults)
        faults.failures[send.index] += 1
        if faults.failures[send.index] < TRIES:
            log.debug("piece %d was not read, and is tried again: %s", send.index, error)
            return
        if not faults.notified:
            # Once: a broken disk has as many failures as pieces.
            faults.notified = True
            self._notify(
                f"cannot read piece {send.index} of a shared content; "
                f"trying again every {AWAY_S:.0f} s: {error}"
            )
            if not isinstance(error, MiniTorrentError):
                log.error("unexpected error while reading a piece", exc_info=error)
        faults.away.add(send.index)
        self._inventory.suspend(send.content, (send.index,))

    def _schedule_review(self, faults: _Faults) -> None:
        loop = asyncio.get_running_loop()
        faults.timer = loop.call_later(AWAY_S, self._review, faults)

    def _review(self, faults: _Faults) -> None:
        """Offer suspended pieces again: the next request tries the disk."""
        served = faults.served
        if self._inventory.get(served.content) is not served or not faults.away:
            self._forget(served.content)
            return
        self._schedule_review(faults)
        have = served.have
        back = tuple(i for i in sorted(faults.away) if have is None or i in have)
        faults.away.clear()
        if back:
            log.debug("%d pieces that could not be read are offered again", len(back))
            self._inventory.resume(served.content, back)

    def _forget(self, content: ContentId) -> None:
        faults = self._faults.pop(content, None)
        if faults is not None and faults.timer is not None:
            faults.timer.cancel()


def _adjacent(sends: list[swarm.Send]) -> Iterator[Run]:
    """Split into runs of adjacent pieces."""
    begin = 0
    for at, (send, following) in enumerate(pairwise(sends), start=1):
        if following.index != send.index + 1:
            yield sends[begin:at]
            begin = at
    yield sends[begin:]


def _read_all(reader: Reader, runs: list[Run]) -> list[tuple[Run, Buffer, Exception | None]]:
    """Read each run, and piece by piece what cannot be read at once. On a worker thread."""
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
