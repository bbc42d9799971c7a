"""A line between two processes that can be made bad while they speak: a TCP proxy in a thread.

`FaultyLink` forwards what comes to its own address to a target. Both ways of it can be delayed,
held back or slowed down, and all its connections can be reset. Held bytes go on when the line
heals, as TCP would send them again. Whole frames can be left out (``swallowing``), as an attacker
on the way could who knows ZMTP; less than a frame would only break the connection at once.

`TrackerLine` and `SourceLine` put such links before a tracker and before a peer. All of 127.0.0.0/8
is this machine, so a link takes the process's own ports at another of these addresses, and what
goes to a port of which only the number is told, events and pieces in bulk, comes the same way.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.suppressed_messages import Frames, Swallow

CHUNK_BYTES = 16 * 1024
RETRANSMISSION_S = 0.4  # how long a lost packet holds up what comes after it
_hosts = itertools.count(2)


@dataclass
class Way:
    """One direction. The connecting side sends ``up`` and receives ``down``."""

    delay_s: float = 0.0
    loss: float = 0.0
    """The part of the chunks that are held up for a retransmission."""
    rate: float = 0.0
    """Bytes a second, 0 for no limit."""
    held: bool = False
    swallow: Swallow | None = None
    """Frames that are left out of it, on connections that begin from now on."""
    bytes: int = 0
    open: asyncio.Event = field(default_factory=asyncio.Event)


class FaultyLink:
    """Forwards from ``host`` (port 0: any) to ``target``, maybe a Unix socket, until closed."""

    def __init__(
        self,
        target: tuple[str, int] | Path | None = None,
        at: tuple[str, int] = ("127.0.0.1", 0),
        seed: int = 0,
    ) -> None:
        self.target = target
        self.connections = 0
        """Number of connections that were made, for counting storms of them."""
        self._rng = random.Random(seed)
        self._refusing = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.up, self.down = Way(), Way()
        self._server: asyncio.Server = self._do(lambda: asyncio.start_server(self._serve, *at))
        self.host, self.port = self._server.sockets[0].getsockname()[:2]

    @property
    def endpoint(self) -> str:
        return f"tcp://{self.host}:{self.port}"

    def _do(self, make):  # type: ignore[no-untyped-def]
        return asyncio.run_coroutine_threadsafe(make(), self._loop).result(10.0)

    # -- what can be done to it ----------------------------------------------------------------

    def slow(self, *, delay_s: float = 0.0, loss: float = 0.0, rate: float = 0.0) -> None:
        """Make both ways long, lossy or narrow."""
        for way in (self.up, self.down):
            way.delay_s, way.loss, way.rate = delay_s, loss, rate

    def hold(self, *ways: Way) -> None:
        """Let nothing through from now on, in these directions or in both."""
        for way in ways or (self.up, self.down):
            way.held = True
            self._loop.call_soon_threadsafe(way.open.clear)

    def heal(self) -> None:
        """Let everything through again, beginning with what was held."""
        self._refusing = False
        for way in (self.up, self.down):
            way.held = False
            self._loop.call_soon_threadsafe(way.open.set)

    def reset(self) -> int:
        """Reset all connections (RST); returns how many there were."""

        async def reset() -> int:
            for writer in self._writers:
                with contextlib.suppress(OSError):
                    raw = writer.get_extra_info("socket")
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
            return len(self._writers)

        count: int = self._do(reset)
        return count

    def refuse(self) -> None:
        """Reset all connections, and every new one, until `heal`."""
        self._refusing = True
        self.reset()

    def close(self) -> None:
        async def end() -> None:
            self._server.close()
            for task in asyncio.all_tasks():
                if task is not asyncio.current_task():
                    task.cancel()

        self.reset()
        self._do(end)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10.0)
        self._loop.close()

    # -- forwarding ----------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self._refusing or self.target is None:
            writer.transport.abort()
            return
        try:
            other_reader, other_writer = await (
                asyncio.open_unix_connection(self.target)
                if isinstance(self.target, Path)
                else asyncio.open_connection(*self.target)
            )
        except OSError:
            writer.transport.abort()
            return
        both = {writer, other_writer}
        self._writers |= both
        try:
            await asyncio.wait(
                [
                    asyncio.ensure_future(self._forward(reader, other_writer, self.up)),
                    asyncio.ensure_future(self._forward(other_reader, writer, self.down)),
                ],
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            self._writers -= both
            for each in both:
                each.transport.abort()

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way
    ) -> None:
        """Two tasks: a long way must not become a narrow one by waiting for each chunk in turn."""
        line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(64)
        delivering = asyncio.ensure_future(self._deliver(line, writer, way))
        frames = None if way.swallow is None else Frames(way.swallow)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            while data := await reader.read(CHUNK_BYTES):
                if frames is not None:
                    data = frames.passing(data)
                if way.rate:
                    await asyncio.sleep(len(data) / way.rate)
                await line.put((self._loop.time() + way.delay_s, data))
        delivering.cancel()

    async def _deliver(
        self, line: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter, way: Way
    ) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            while True:
                due, data = await line.get()
                if self._rng.random() < way.loss:
                    due = max(due, self._loop.time() + RETRANSMISSION_S)
                await asyncio.sleep(max(0.0, due - self._loop.time()))
                if way.held:
                    await way.open.wait()
                writer.write(data)
                way.bytes += len(data)
                await writer.drain()


@contextlib.contextmanager
def links() -> Iterator[Callable[..., FaultyLink]]:
    """Makes links, and closes them all."""
    made: list[FaultyLink] = []

    def make(target: tuple[str, int] | Path | None = None, **options: object) -> FaultyLink:
        made.append(FaultyLink(target, **options))  # type: ignore[arg-type]
        return made[-1]

    try:
        yield make
    finally:
        for link in made:
            link.close()


class Line:
    """Several links that go bad together."""

    def __init__(self) -> None:
        self.host = f"127.{random.randrange(1, 250)}.{random.randrange(1, 250)}.{next(_hosts)}"
        self.links: list[FaultyLink] = []

    def slow(self, *, delay_s: float = 0.0, loss: float = 0.0, rate: float = 0.0) -> None:
        for link in self.links:
            link.slow(delay_s=delay_s, loss=loss, rate=rate)

    def hold(self) -> None:
        for link in self.links:
            link.hold()

    def hold_down(self) -> None:
        """Messages to there arrive; messages from there do not."""
        for link in self.links:
            link.hold(link.down)

    def heal(self) -> None:
        for link in self.links:
            link.heal()

    def refuse(self) -> None:
        for link in self.links:
            link.refuse()

    def reset(self) -> int:
        return sum(link.reset() for link in self.links)

    @property
    def connections(self) -> int:
        return sum(link.connections for link in self.links)

    @property
    def bytes_down(self) -> int:
        return sum(link.down.bytes for link in self.links)


class TrackerLine(Line):
    """The links through which one peer reaches the tracker: commands and events together."""

    def __init__(self, make: Callable[..., FaultyLink], link: str, events_port: int) -> None:
        super().__init__()
        address, _, key = link.removeprefix("mini-torrent://").partition("/")
        real_host, _, port = address.rpartition(":")
        self.links = [
            make((real_host, number), at=(self.host, number)) for number in (int(port), events_port)
        ]
        self.link = f"mini-torrent://{self.host}:{port}/{key}"


class SourceLine(Line):
    """The links through which others reach one peer: its port, and that for bulk connections.

    ``announced`` is what the peer is to announce; `lead_to` it when it runs.
    """

    def __init__(self, make: Callable[..., FaultyLink], seed: int = 0) -> None:
        super().__init__()
        self._make, self._seed = make, seed
        self.links = [make(at=(self.host, 0), seed=seed)]
        self.announced = self.links[0].endpoint

    def lead_to(self, port: int, bulk_port: int | None) -> None:
        self.links[0].target = ("127.0.0.1", port)
        if bulk_port is not None:
            target, at = ("127.0.0.1", bulk_port), (self.host, bulk_port)
            self.links.append(self._make(target, at=at, seed=self._seed + 1))
