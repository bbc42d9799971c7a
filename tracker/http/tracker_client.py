"""Client of the tracker's operator socket, for the event loop of the web process.

Owns: the questions under way. Not here: the blocking client of the command line (see
tracker.operator_client).

Limits: at most `ASKED_MAX` questions at a time, far below what the tracker takes, so that commands
of the operator get their turn. Questions beyond that wait here.
"""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import zmq

from common import limits
from common.errors import MiniTorrentError, Refused
from common.host.control_socket import find_endpoint
from common.messages import operator as messages
from common.messages.refusals import Code
from common.net.codec import SIGNATURE, pack
from common.net.pump import Frames, Pump, Sent
from common.net.sockets import Private, make_socket

ASKED_MAX = 8
SILENCE_S = 60.0  # a tracker with a slow disk may take long for a change

A = TypeVar("A", bound=messages.Answer)
_decoder: msgspec.msgpack.Decoder[messages.Answer] = msgspec.msgpack.Decoder(messages.Answer)


class TrackerClient:
    """Connection to the tracker of one home. Create and use it in a running event loop."""

    def __init__(self, home: Path) -> None:
        self._context: zmq.Context[Any] = zmq.Context(io_threads=1)
        socket = make_socket(
            self._context, zmq.DEALER, Private(), message_bytes_max=limits.CONTROL_BYTES_MAX
        )
        socket.connect(find_endpoint(home))
        self._pump = Pump(socket, self._on_message)
        self._numbers = itertools.count(1)
        self._waiting: dict[bytes, asyncio.Future[messages.Answer]] = {}
        self._places = asyncio.Semaphore(ASKED_MAX)

    async def request(
        self, question: messages.Command, answer: type[A], silence_s: float = SILENCE_S
    ) -> A:
        """Return the answer of the tracker. Raise `Refused` also if it does not answer."""
        async with self._places:
            key = next(self._numbers).to_bytes(8, "big")
            waiting = self._waiting[key] = asyncio.get_running_loop().create_future()
            try:
                if self._pump.send(pack(key, question)) is not Sent.YES:
                    raise Refused(Code.BUSY, "the tracker takes no questions at the moment")
                found = await asyncio.wait_for(waiting, silence_s)
            except TimeoutError:
                raise Refused(Code.BUSY, "the tracker does not answer", "try again later") from None
            finally:
                self._waiting.pop(key, None)
        if isinstance(found, messages.Failed):
            raise Refused(found.code, found.message, found.hint)
        if not isinstance(found, answer):
            raise MiniTorrentError(f"an answer of another kind: {type(found).__name__}")
        return found

    def _on_message(self, frames: Frames) -> None:
        if len(frames) != 3 or frames[0].bytes != SIGNATURE:
            return
        waiting = self._waiting.get(frames[1].bytes)
        if waiting is not None and not waiting.done():
            waiting.set_result(_decoder.decode(frames[2].buffer))

    def close(self) -> None:
        """Give up all questions."""
        for waiting in self._waiting.values():
            waiting.cancel()
        self._pump.close()
        self._context.destroy(linger=0)
