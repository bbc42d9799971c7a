"""Commands of one device, many on their way at a time, and what each costs the tracker."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import zmq

from benchmarks.processes import BenchmarkError
from benchmarks.tracker.process import TrackerProcess
from common import limits
from common.crypto.keys import KeyPair
from common.link import parse_link
from common.messages import tracker
from common.messages.base import Refusal
from common.net.codec import Decoder, pack
from common.net.sockets import TO_TRACKER, Connect, make_socket

OPEN = 20  # commands on their way
_WAIT_MS = 20_000


class Asker:
    """A device that asks one question over and over."""

    def __init__(self, context: zmq.Context[Any], process: TrackerProcess, pair: KeyPair) -> None:
        where = parse_link(process.link).first
        self._process = process
        self.socket = make_socket(
            context,
            zmq.DEALER,
            Connect(pair, where.key),
            message_bytes_max=limits.REPLY_BYTES_MAX,
            timing=TO_TRACKER,
        )
        self.socket.connect(where.endpoint)
        self._decoder: Decoder[tracker.Reply] = Decoder(tracker.Reply)
        self._number = 0

    def close(self) -> None:
        self.socket.close(linger=0)

    def request(self, command: Any) -> Any:
        """Ask once, and return the reply."""
        self.send(command)
        return self.taken(self.receive())

    def taken(self, parts: list[bytes]) -> Any:
        """Return the reply in ``parts``. Raise `BenchmarkError` for a refusal."""
        reply = self._decoder.unpack(parts).body
        if isinstance(reply, Refusal):
            raise BenchmarkError(f"the tracker refuses: {reply.message}")
        return reply

    def cost(self, command: Any, count: int) -> tuple[float, float, float]:
        """Ask ``count`` times; return a second's replies, and the CPU of each in µs.

        The latter is that of the event loop, and that of all threads.
        """
        self.request(command)
        loop_s, cpu_s, began = self._process.loop_s, self._process.cpu_s, perf_counter()
        for _ in range(min(OPEN, count)):
            self.send(command)
        for number in range(count):
            self.receive()
            if number + OPEN < count:
                self.send(command)
        took_s = perf_counter() - began
        loop_s, cpu_s = self._process.loop_s - loop_s, self._process.cpu_s - cpu_s
        return count / took_s, 1e6 * loop_s / count, 1e6 * cpu_s / count

    def send(self, command: Any) -> None:
        self._number += 1
        self.socket.send_multipart(pack(self._number.to_bytes(8, "big"), command))

    def receive(self) -> list[bytes]:
        if not self.socket.poll(_WAIT_MS):
            raise BenchmarkError("the tracker did not answer")
        return self.socket.recv_multipart()
