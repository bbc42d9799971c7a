"""Readers of this peer: their number, their names, and their end.

Owns: the bound on readers, the readers of the command line, which are known by a name that it
chooses, and the tidying behind all of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from common import limits
from common.errors import Refused
from common.host.clock import monotonic
from common.messages import control
from common.messages.refusals import Code
from common.names import quoted
from peer.downloads.job import DownloadServices
from peer.downloads.manager import Downloads
from peer.reading.read_downloads import ReadDownloads
from peer.reading.reader import Reader
from peer.reading.target import Target, find_target

log = logging.getLogger(__name__)

TIDY_S = 5.0
CHUNK_BYTES = 4 * limits.MIB  # of an answer on the control socket, at most


class Reading:
    """All readers. All methods run in the event loop."""

    def __init__(self, services: DownloadServices, downloads: Downloads) -> None:
        self._services = services
        self._downloads = downloads
        self._fetches = ReadDownloads(services.home, downloads, services.shares, services.workers)
        self._readers: set[Reader] = set()
        self._named: dict[str, Reader] = {}
        self._numbers = 0

    @property
    def count(self) -> int:
        """Number of readers."""
        return len(self._readers)

    async def find(self, group: str, name: str, entry: str) -> Target:
        """Return the file that is meant. Raises `MiniTorrentError`."""
        return await find_target(self._services, self._downloads, group, name, entry)

    def open(self, target: Target) -> Reader:
        """Return a reader, which the caller closes. Raises `Refused` if there are too many."""
        if len(self._readers) >= limits.READERS_MAX:
            raise Refused(
                Code.BUSY, f"read {quoted(target.name)}: {limits.READERS_MAX} readers are at work"
            )
        self._numbers += 1
        services = self._services
        reader = Reader(
            self._numbers,
            target,
            services.inventory,
            self._fetches,
            services.workers,
            self._readers.discard,
        )
        self._readers.add(reader)
        return reader

    @asynccontextmanager
    async def reader(self, target: Target) -> AsyncIterator[Reader]:
        """`open`, closed at the end."""
        made = self.open(target)
        try:
            yield made
        finally:
            made.close()

    # -- readers of the command line ------------------------------------------------------------

    async def read(
        self, command: control.ReadFile, report: Callable[[control.Progress], None]
    ) -> control.FilePart:
        """Read some bytes by a named reader, which is opened at its first use.

        Raises `MiniTorrentError`.
        """
        if command.size == 0:
            self._close_named(command.reader)
            return control.FilePart(b"", 0, command.tag)
        reader = self._open_named(command.reader)
        if reader is None:
            target = await self.find(command.group, command.name, command.entry)
            if command.tag and command.tag != target.tag:
                raise Refused(
                    Code.CHANGED, f"read {quoted(command.name)}: another version came meanwhile"
                )
            reader = self._open_named(command.reader)  # by another read meanwhile
            if reader is None:
                reader = self._named[command.reader] = self.open(target)
        target = reader.target
        report(control.Progress("reading", command.offset, target.size))
        data = await reader.read(command.offset, min(command.size, CHUNK_BYTES))
        return control.FilePart(bytes(data), target.size, target.tag)

    def _open_named(self, name: str) -> Reader | None:
        reader = self._named.get(name)
        return None if reader is None or reader.closed else reader

    def _close_named(self, name: str) -> None:
        reader = self._named.pop(name, None)
        if reader is not None:
            reader.close()

    # -- tidying --------------------------------------------------------------------------------

    async def keep_tidy(self) -> None:
        """Close readers whose program is gone, and tidy the downloads; all end when cancelled."""
        try:
            while True:
                await asyncio.sleep(TIDY_S)
                await self._tidy()
        finally:
            self.close()

    async def _tidy(self) -> None:
        for name, reader in list(self._named.items()):
            idle_s = monotonic() - reader.used_at
            if reader.closed or (not reader.busy and idle_s > limits.READER_IDLE_S):
                self._close_named(name)
        try:
            await self._fetches.tidy({reader.target.content for reader in self._readers})
        except Exception:
            log.exception("the downloads of readers are not tidied")

    def close(self) -> None:
        """Close all readers."""
        for reader in list(self._readers):
            reader.close()
