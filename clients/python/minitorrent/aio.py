"""Asynchronous form of the client: the same methods as coroutines.

Each command runs on a thread of the event loop's pool, so that the two forms cannot differ. A
cancelled coroutine stops waiting; a command that was sent is carried out.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from typing import Any

from minitorrent import client
from minitorrent.types import (
    Download,
    Downloaded,
    Event,
    File,
    Group,
    Shared,
    Source,
    Status,
    User,
)


async def connect(
    home: str | os.PathLike[str] | None = None,
    *,
    socket: str | os.PathLike[str] | None = None,
    timeout_s: float = 60.0,
) -> AsyncPeer:
    """As `minitorrent.connect`. Raises `NotRunning`."""
    made = await asyncio.to_thread(client.connect, home, socket=socket, timeout_s=timeout_s)
    return AsyncPeer(made)


class AsyncPeer:
    """A running peer of this machine. Methods raise `Error`."""

    def __init__(self, peer: client.Peer) -> None:
        self._peer = peer

    async def __aenter__(self) -> AsyncPeer:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing is held open between two commands."""

    async def command(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Send any request of the API and return its document."""
        return await asyncio.to_thread(self._peer.command, method, path, body)

    async def status(self) -> Status:
        """Return the state of the peer."""
        return await asyncio.to_thread(self._peer.status)

    async def groups(self) -> list[Group]:
        """Return all groups."""
        return await asyncio.to_thread(self._peer.groups)

    async def members(self, group: str) -> list[User]:
        """Return the members of a group."""
        return await asyncio.to_thread(self._peer.members, group)

    async def files(self, group: str) -> list[File]:
        """Return the shares of a group."""
        return await asyncio.to_thread(self._peer.files, group)

    async def downloads(self) -> list[Download]:
        """Return the downloads of this peer."""
        return await asyncio.to_thread(self._peer.downloads)

    async def sources(self, group: str, name: str) -> list[Source]:
        """Return the sources of a running download."""
        return await asyncio.to_thread(self._peer.sources, group, name)

    async def share(self, path: str | os.PathLike[str], group: str, **options: Any) -> Shared:
        """Share a file or folder; ``on_progress`` is called in the event loop."""
        return await asyncio.to_thread(self._peer.share, path, group, **_in_loop(options))

    async def download(
        self, group: str, name: str, dest: str | os.PathLike[str] = ".", **options: Any
    ) -> Downloaded:
        """Download a share; ``on_progress`` is called in the event loop."""
        return await asyncio.to_thread(self._peer.download, group, name, dest, **_in_loop(options))

    async def start_download(
        self, group: str, name: str, dest: str | os.PathLike[str] = ".", **options: Any
    ) -> str:
        """Begin a download without waiting; return the path where it will be."""
        return await asyncio.to_thread(self._peer.start_download, group, name, dest, **options)

    async def await_download(
        self, group: str, path: str | os.PathLike[str], **options: Any
    ) -> Downloaded:
        """Wait for a download that was begun before."""
        return await asyncio.to_thread(self._peer.await_download, group, path, **_in_loop(options))

    async def pause(self, group: str, name: str) -> None:
        """Pause a download."""
        await asyncio.to_thread(self._peer.pause, group, name)

    async def resume(self, group: str, name: str) -> None:
        """Resume a download."""
        await asyncio.to_thread(self._peer.resume, group, name)

    async def cancel(self, group: str, name: str) -> None:
        """Cancel a download and delete its partial data."""
        await asyncio.to_thread(self._peer.cancel, group, name)

    async def stop_share(self, group: str, name: str) -> None:
        """Stop sharing from this device."""
        await asyncio.to_thread(self._peer.stop_share, group, name)

    async def events(self, group: str | None = None, *, last_id: str = "") -> AsyncIterator[Event]:
        """Yield events as they happen, without end."""
        loop = asyncio.get_running_loop()
        found: asyncio.Queue[Event | BaseException] = asyncio.Queue()
        stopped = threading.Event()

        def read() -> None:
            try:
                for event in self._peer.events(group, last_id=last_id):
                    if stopped.is_set():
                        return
                    loop.call_soon_threadsafe(found.put_nowait, event)
            except RuntimeError:
                return  # the event loop has ended
            except BaseException as error:
                loop.call_soon_threadsafe(found.put_nowait, error)

        # A thread of its own: one of the pool would be taken for as long as the stream is open.
        threading.Thread(target=read, name="minitorrent-events", daemon=True).start()
        try:
            while True:
                event = await found.get()
                if isinstance(event, BaseException):
                    raise event
                yield event
        finally:
            stopped.set()


def _in_loop(options: dict[str, Any]) -> dict[str, Any]:
    """The options, with ``on_progress`` called in the event loop rather than on a thread."""
    report = options.pop("on_progress", None)
    if report is None:
        return options
    loop = asyncio.get_running_loop()
    return {**options, "on_progress": lambda told: loop.call_soon_threadsafe(report, told)}
