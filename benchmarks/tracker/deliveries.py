"""Events of one group to many subscribers: deliveries a second, and the tracker's CPU of each.

Owns: the processes full of subscribers, and the pace of the events. ``python -m
benchmarks.tracker.deliveries LINK EVENTS TOPIC COUNT`` is one such process: it prints now and
then the number of messages that its subscribers have received.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from time import monotonic, perf_counter, sleep
from typing import Any

import zmq

from benchmarks.processes import BenchmarkError
from benchmarks.tracker.contents import GROUP, Plan, fill
from benchmarks.tracker.process import TrackerProcess
from benchmarks.tracker.questions import Asker
from common import limits
from common.crypto.keys import new_pair
from common.link import parse_link
from common.messages import tracker
from common.net.sockets import TO_TRACKER, Connect, make_socket
from tests.support.paths import ROOT
from tracker.store.sqlite_store import SqliteStore

PROCESSES = 2
RATES = (50, 100, 150, 200)  # events a second
LASTS_S = 8.0
SETTLE_S = 2.0
PATIENCE_S = 60.0
NAME = "file-000000.bin"


class Subscribers:
    """Subscribers to one topic, in processes of their own."""

    def __init__(self, link: str, events: str, topic: bytes, number: int) -> None:
        self._received = [0] * PROCESSES
        self._number = number
        words = [link, events, topic.hex(), str(number // PROCESSES)]
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.tracker.deliveries", *words],
                stdout=subprocess.PIPE,
                cwd=ROOT,
            )
            for _ in range(PROCESSES)
        ]
        for place, process in enumerate(self._processes):
            threading.Thread(target=self._read, args=(place, process), daemon=True).start()

    def _read(self, place: int, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._received[place] = int(line)

    @property
    def received(self) -> int:
        return sum(self._received)

    def wait(self, number: int) -> float:
        """Wait for ``number`` messages; return the time of the last one."""
        until = monotonic() + PATIENCE_S
        while self.received < number:
            if monotonic() > until:
                raise BenchmarkError(f"{number - self.received:,} deliveries are missing")
            sleep(0.01)
        return perf_counter()

    def all_there(self, event: Callable[[], object]) -> None:
        """Cause events until one has reached each subscriber."""
        until = monotonic() + PATIENCE_S
        while True:
            before = self.received
            event()
            sleep(SETTLE_S)
            if self.received >= before + self._number:
                return
            if monotonic() > until:
                raise BenchmarkError(f"only {self.received - before:,} have subscribed")

    def end(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


def deliveries(home: Path, number: int) -> Iterator[tuple[str, str]]:
    """Let one device share and unshare a file, for ``number`` subscribers of its group."""
    (pair,) = fill(SqliteStore(home / "tracker.db"), Plan())
    process, context = TrackerProcess(home, tcp=True), zmq.Context()
    asker = Asker(context, process, pair)
    subscribers: Subscribers | None = None
    try:
        welcome, following = asker.request(tracker.Hello()), asker.request(tracker.Follow())
        topic = following.groups[0].topic
        found = asker.request(tracker.FindShare(GROUP, NAME))
        commands = cycle(
            [tracker.StopShare(GROUP, NAME), tracker.Offer(GROUP, NAME, found.row.content)]
        )
        events_at = welcome.events.replace("*", "127.0.0.1")
        subscribers = Subscribers(process.link, events_at, topic, number)
        subscribers.all_there(lambda: asker.request(next(commands)))
        for rate in RATES:
            before, cpu_s = subscribers.received, process.cpu_s
            events, began = round(rate * LASTS_S), perf_counter()
            _send_paced(asker, commands, rate, events)
            took_s = subscribers.wait(before + events * number) - began
            got = subscribers.received - before  # some heads among them
            each_us = 1e6 * (process.cpu_s - cpu_s) / got
            reached = f"{got / took_s:,.0f}/s, {each_us:.1f} µs of the tracker each"
            yield f"{number:,} subscribers, {rate} events/s", reached
    finally:
        asker.close()
        context.term()
        if subscribers is not None:
            subscribers.end()
        process.end()


def _send_paced(asker: Asker, commands: Iterator[Any], rate: int, number: int) -> None:
    """Send ``number`` commands, ``rate`` a second, and receive all replies."""
    began, left = perf_counter(), number
    for sent in range(number):
        sleep(max(0.0, began + sent / rate - perf_counter()))
        asker.send(next(commands))
        while asker.socket.poll(0):
            asker.taken(asker.receive())
            left -= 1
    for _ in range(left):
        asker.taken(asker.receive())


def main(link: str, events: str, topic: str, number: int) -> None:
    """Receive for ever."""
    context = zmq.Context()
    context.set(zmq.MAX_SOCKETS, 4 * number)
    where, poller, received = parse_link(link).first, zmq.Poller(), 0
    for _ in range(number):
        socket = make_socket(
            context,
            zmq.SUB,
            Connect(new_pair(), where.key),
            message_bytes_max=limits.EVENT_BYTES_MAX,
            receive_queue=10_000,
            timing=TO_TRACKER,
        )
        socket.setsockopt(zmq.SUBSCRIBE, bytes.fromhex(topic))
        socket.connect(events)
        poller.register(socket, zmq.POLLIN)
    shown_at = monotonic()
    while True:
        for socket, _ in poller.poll(50):
            socket.recv_multipart()
            received += 1
        if monotonic() - shown_at > 0.05:
            shown_at = monotonic()
            print(received, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
