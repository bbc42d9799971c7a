"""From the disk into memory: the pieces that are to be sent, read on worker threads.

Owns how many are read at a time, and what follows when one cannot be read: for the share that it
belongs to, and for the core that gave it out. Sending is the seeder's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any

from common import limits
from common.digests import Buffer
from common.errors import StorageError
from peer.files.errors import BadContent, ContentChanged, OutOfHandles, StorageClosed
from peer.shelf import Reader, Served, Shelf
from peer.swarm import events as swarm
from peer.workers import Workers

log = logging.getLogger(__name__)

RUN_BYTES = 2 * limits.MIB  # read by one thread before any of it is sent


class PieceReader:
    """Reads what the serving core sends. ``send`` is called with each piece that was read, and
    ``decide`` with what the core is to know of those that could not be."""

    def __init__(
        self,
        shelf: Shelf,
        workers: Workers,
        *,
        send: Callable[[swarm.Send, Buffer], None],
        decide: Callable[[swarm.ServingEvent], None],
    ) -> None:
        self._shelf = shelf
        self._workers = workers
        self._send = send
        self._decide = decide
        self._closed = False

    def close(self) -> None:
        """What is being read is sent no more."""
        self._closed = True

    def read(self, given_out: Iterable[swarm.Send]) -> None:
        """Read pieces, in order."""
        for _, run in groupby(given_out, lambda send: (send.requester, send.content)):
            self._read_run(list(run))

    def take_back(self, send: swarm.Send) -> None:
        """The piece is not to be sent after all."""
        self._decide(swarm.Blocked(send.requester, send.content, send.index))
        self._decide(swarm.Withdrawn(send.requester, send.content, (send.index,)))

    def _read_run(self, run: list[swarm.Send]) -> None:
        served = self._shelf.get(run[0].content)
        if served is None:
            for send in run:
                self.take_back(send)
            return
        # What is credited at once is given at once: a thread that reads several pieces costs two
        # changes of threads, one for each piece would cost as many as there are pieces.
        step = max(1, RUN_BYTES // served.manifest.piece_length)
        for at in range(0, len(run), step):
            self._submit(served, run[at : at + step])

    def _submit(self, served: Served, run: list[swarm.Send]) -> None:
        reader = served.reader

        def done(pieces: Any, error: BaseException | None) -> None:
            if error is not None:
                raise error
            for send, (data, trouble) in zip(run, pieces, strict=True):
                if self._closed:
                    return
                if trouble is None:
                    self._send(send, data)
                else:
                    self._not_read(send, served, reader, trouble)

        self._workers.submit(done, _read_all, reader, [send.index for send in run])

    def _not_read(self, send: swarm.Send, served: Served, reader: Reader, error: Exception) -> None:
        blocked = swarm.Blocked(send.requester, send.content, send.index)
        match error:
            case ContentChanged():
                # Another read may have noticed it first, and the content be gone or renewed since.
                if self._shelf.get(send.content) is served:
                    log.warning("%s", error)
                    self._shelf.changed(send.content)
                self.take_back(send)
            case OutOfHandles():
                self._decide(blocked)
            case BadContent(pieces=pieces):
                log.warning("%s", error)
                self._shelf.damaged(send.content, pieces)
                self._decide(blocked)
            case StorageClosed() if served.reader is not reader:
                self._decide(blocked)  # a part became the whole meanwhile, which is read instead
            case StorageClosed():
                self.take_back(send)
            case StorageError():
                log.warning("piece %d cannot be read: %s", send.index, error)
                self._decide(swarm.HeldLess(send.content, (send.index,)))
                self._decide(blocked)
            case _:
                log.error("piece %d cannot be read", send.index, exc_info=error)
                self._decide(swarm.HeldLess(send.content, (send.index,)))
                self._decide(blocked)


def _read_all(reader: Reader, indexes: list[int]) -> list[tuple[Buffer | None, Exception | None]]:
    """On a worker thread: each piece, or why it cannot be read."""
    pieces: list[tuple[Buffer | None, Exception | None]] = []
    for index in indexes:
        try:
            pieces.append((reader.read_piece(index), None))
        except Exception as error:
            pieces.append((None, error))
    return pieces
