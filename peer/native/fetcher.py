"""Fetching thread of the compiled data path, as the event loop uses it.

Owns: the thread, its lines (bulk connections) and targets (files of downloads), and the delivery of
its events. Not here: sockets and their monitors (see peer.fetching.compiled_bulk), and the files
(see peer.files.direct_part).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import weakref
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from common.manifest import Manifest
from peer.native.digests import PLACE_BYTES
from peer.native.library import Event, Library, address_of, mover

log = logging.getLogger(__name__)

PAUSE_MS = 2  # between two wake-ups of the loop, while messages arrive
STUCK_MS = 500  # in one write: other sources then use Python
END_MS = 2_000  # for the end of the thread
_BATCH = 256  # events taken at once
_STORED, _OPENED, _BROKEN, _RELEASED = 1, 2, 3, 4
_TRUNCATED, _SLOW = 1, 2


class Target:
    """The file of a download that the thread may write to. ``places`` gets those of its pieces."""

    def __init__(self, found: Library, manifest: Manifest, fd: int, places: bytearray) -> None:
        """The descriptor is duplicated. Raises `OSError`."""
        self._call = found.call
        self.pieces = manifest.piece_count
        self._exported = (ctypes.c_char * len(places)).from_buffer(places)
        digests = b"".join(map(manifest.piece_digest, range(manifest.piece_count)))
        with address_of(digests) as address:
            self.handle = self._call.mt_target_new(
                fd,
                manifest.size,
                manifest.piece_length,
                manifest.piece_count,
                address,
                ctypes.addressof(self._exported),
            )
        if not self.handle:
            raise OSError("no memory or no descriptor for a compiled target")
        self._finalizer = weakref.finalize(self, self._call.mt_target_free, self.handle)

    def close(self) -> None:
        """Wait for a write that is under way, and have nothing more written."""
        self._call.mt_target_close(self.handle)


@dataclass(frozen=True, slots=True)
class StoredRun:
    """Requested pieces that were verified and written. ``wrong`` are those with another digest.

    ``errno``: that of a write that failed, so that none of them counts. ``truncated``: the file was
    found shorter than it was made. ``slow``: the write took long.
    """

    first: int
    count: int
    size: int
    wrong: frozenset[int] = frozenset()
    errno: int = 0
    truncated: bool = False
    slow: bool = False


class LineCallbacks(Protocol):
    """One bulk connection, as its thread reports to it."""

    def on_stored_runs(self, channel: int, runs: list[StoredRun], source_fd: int) -> None:
        """Requested pieces arrived and were stored."""

    def on_opened_message(self, head: bytes, data: memoryview, source_fd: int) -> None:
        """Another message arrived: its head and data, opened."""

    def on_broken(self) -> None:
        """A message arrived that the source cannot have sent."""

    def on_released(self) -> None:
        """The thread uses the socket no longer."""


class Line:
    """One bulk connection of the thread."""

    def __init__(self, fetcher: Fetcher, number: int) -> None:
        self._fetcher = fetcher
        self._call = fetcher.call
        self.number = number

    def start(self, socket: int, key: bytes) -> bool:
        """Hand over the socket at that address; its messages are opened with ``key``."""
        return not self._call.mt_line_start(self._fetcher.handle, self.number, socket, key)

    def expect(self, channel: int, target: Target, pieces: Sequence[int]) -> None:
        """Have requested pieces of a channel written to ``target``."""
        numbers, count = _numbers(pieces)
        self._call.mt_line_expect(
            self._fetcher.handle, self.number, channel, target.handle, numbers, count
        )

    def forget(self, channel: int, pieces: Sequence[int]) -> None:
        """Have cancelled pieces of a channel handed on, if they arrive."""
        numbers, count = _numbers(pieces)
        self._call.mt_line_forget(self._fetcher.handle, self.number, channel, numbers, count)

    def close_channel(self, channel: int) -> None:
        """Have all pieces of a channel handed on, if they arrive."""
        self._call.mt_line_close_channel(self._fetcher.handle, self.number, channel)

    def end(self) -> None:
        """Give the socket back; `on_released` follows if it was handed over."""
        if self._fetcher.handle:
            self._call.mt_line_end(self._fetcher.handle, self.number)


def _numbers(pieces: Sequence[int]) -> tuple[ctypes.Array[ctypes.c_uint32], int]:
    return (ctypes.c_uint32 * len(pieces)).from_buffer(array("I", pieces)), len(pieces)


class Fetcher:
    """The thread, and its events in the running loop. One for each peer."""

    def __init__(self, found: Library) -> None:
        """Start the thread. Raises `OSError`."""
        self.call = found.call
        self._lines: dict[int, LineCallbacks] = {}
        self._events = (Event * _BATCH)()
        self._loop = asyncio.get_running_loop()
        self._event_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.handle: int | None = self.call.mt_fetcher_new(self._event_fd, PAUSE_MS)
        if not self.handle:
            os.close(self._event_fd)
            raise OSError("the thread of the compiled data path cannot be started")
        self._loop.add_reader(self._event_fd, self._drain)

    @property
    def stuck(self) -> bool:
        """Whether one write takes very long: a disk does not answer."""
        return bool(self.handle) and self.call.mt_fetcher_busy_ms(self.handle) > STUCK_MS

    def line(self, callbacks: LineCallbacks) -> Line:
        """Return a new line. Raises `OSError`."""
        number = self.call.mt_line_new(self.handle)
        if not number:
            raise OSError("no memory for a bulk connection")
        self._lines[number] = callbacks
        return Line(self, number)

    def forget(self, line: Line) -> None:
        """Report nothing more about a line."""
        self._lines.pop(line.number, None)

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._event_fd)
        while self.handle:
            count = self.call.mt_fetcher_events(self.handle, self._events, _BATCH)
            self._deliver(count)
            if count < _BATCH:
                return

    def _deliver(self, count: int) -> None:
        at = 0
        while at < count:
            event = self._events[at]
            at += 1
            callbacks = self._lines.get(event.line)
            try:
                if event.kind == _STORED:
                    runs = [_run_of(event)]
                    while at < count and _continues(event, self._events[at]):
                        runs.append(_run_of(self._events[at]))
                        at += 1
                    if callbacks is not None:
                        callbacks.on_stored_runs(event.channel, runs, event.source_fd)
                elif event.kind == _OPENED:
                    head, data = _message_of(self.call, event)
                    if callbacks is not None:
                        callbacks.on_opened_message(head, data, event.source_fd)
                elif callbacks is not None and event.kind == _BROKEN:
                    callbacks.on_broken()
                elif callbacks is not None and event.kind == _RELEASED:
                    callbacks.on_released()
            except Exception:
                log.exception("an event of the compiled data path could not be handled")

    def close(self) -> None:
        """End the thread; a line that it still has is released."""
        if not self.handle:
            return
        self._loop.remove_reader(self._event_fd)
        if self.call.mt_fetcher_end(self.handle, END_MS):
            log.error("the thread of the compiled data path does not end: a disk does not answer")
            return
        self.handle = None
        os.close(self._event_fd)
        for callbacks in list(self._lines.values()):
            callbacks.on_released()
        self._lines.clear()


def _continues(event: Event, following: Event) -> bool:
    return bool(
        following.kind == _STORED
        and following.line == event.line
        and following.channel == event.channel
    )


def _run_of(event: Event) -> StoredRun:
    first, wrong = event.first, event.wrong
    return StoredRun(
        first,
        event.count,
        event.size,
        frozenset(first + bit for bit in range(event.count) if wrong >> bit & 1),
        event.error,
        bool(event.flags & _TRUNCATED),
        bool(event.flags & _SLOW),
    )


def _message_of(call: ctypes.CDLL, event: Event) -> tuple[bytes, memoryview]:
    """Head and data of a message, in memory that is freed with its last view."""
    whole = (ctypes.c_char * (event.count + event.size)).from_address(event.data)
    weakref.finalize(whole, call.mt_free, event.data)
    view = memoryview(whole).cast("B")
    return bytes(view[: event.count]), view[event.count :]


def start() -> Fetcher | None:
    """Start the thread, if the library is used and can receive pieces."""
    found = mover()
    if found is None:
        return None
    try:
        return Fetcher(found)
    except OSError as error:
        log.warning("Python receives pieces: %s", error)
        return None


def new_places(manifest: Manifest) -> bytearray:
    """Memory for the places of all pieces of a content."""
    return bytearray(PLACE_BYTES * manifest.piece_count)
