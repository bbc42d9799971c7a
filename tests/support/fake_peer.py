"""Fake peer for tests of the command line: a real control socket with answers of the test.

It holds the lock of the home, like a real peer, and runs in a thread of the test.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq

from common.host.home import HomeLock
from common.messages import control
from peer.control.server import ControlServer, Notify

LINK = "mini-torrent://127.0.0.1:5000/" + "A" * 43
STATUS = control.StatusIs(
    user="anna",
    connected=True,
    tracker=LINK,
    listen="tcp://127.0.0.1:40123",
    device="B" * 43,
    shares=3,
    downloads=1,
    pid=1234,
)

Reply = control.Answer | Exception | Callable[[control.Command, Notify], Any]


class FakePeer:
    """Peer that answers each message by its class: with a value, an exception or a function.

    ``asked`` are the messages in order; ``cancelled`` those whose command line disconnected.
    """

    def __init__(self, home: Path, replies: dict[type, Reply] | None = None) -> None:
        self.asked: list[control.Command] = []
        self.cancelled: list[control.Command] = []
        self.replies: dict[type, Reply] = {control.Status: STATUS, **(replies or {})}
        self._home = home
        self._changed = threading.Condition()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._live()), daemon=True)
        self.server: ControlServer | None = None

    async def _live(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        lock = HomeLock(self._home)
        context: zmq.Context[Any] = zmq.Context()
        self.server = ControlServer(context, self._home, self._handle)
        self._ready.set()
        await self._end.wait()
        self.server.close()
        lock.release()
        context.destroy(linger=0)

    async def _handle(self, command: control.Command, tell: Notify) -> control.Answer:
        with self._changed:
            self.asked.append(command)
            self._changed.notify_all()
        if isinstance(command, control.Down):
            self._loop.call_soon(self._end.set)
            return control.Done()
        reply = self.replies[type(command)]
        if isinstance(reply, Exception):
            raise reply
        if not callable(reply):
            return reply
        try:
            answer = reply(command, tell)
            return await answer if asyncio.iscoroutine(answer) else answer
        except asyncio.CancelledError:
            with self._changed:
                self.cancelled.append(command)
                self._changed.notify_all()
            raise

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = 10.0) -> bool:
        """Wait until messages or cancellations make ``condition`` true; return whether they did."""
        with self._changed:
            return self._changed.wait_for(condition, timeout_s)

    def __enter__(self) -> FakePeer:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """End like a peer after ``down``."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join(10)
