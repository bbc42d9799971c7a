"""Several trackers on one PostgreSQL database, as processes."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.link import Link
from common.messages import events, tracker
from common.messages.base import Refusal
from common.messages.refusals import Code
from tests.support.postgres import Server, shared_server
from tests.support.tracker_process import PATIENCE_S, Device, Refused, TrackerProcess

ANSWER_S = 2.0  # then it is asked of another tracker
KEYS = ("curve.key", "signing.key", "inbox.key")


class TrackerCluster:
    """Trackers with the same keys on a database of ``server``, each in a home of its own."""

    def __init__(self, count: int, server: Server | None = None, url: str = "") -> None:
        self.server = server or shared_server()
        self.url = url or self.server.database()
        self.root = Path(tempfile.mkdtemp(prefix="mtc"))
        self.trackers: list[TrackerProcess] = []
        self._numbers = itertools.count()
        try:
            for _ in range(count):
                self.add()
        except BaseException:
            self.close()
            raise

    def add(self, url: str = "") -> TrackerProcess:
        """Start one more tracker; ``url``: another way to the same database."""
        home = self.root / str(next(self._numbers))
        if self.trackers:
            home.mkdir(mode=0o700)
            for name in KEYS:
                shutil.copy2(self.trackers[0].home / name, home / name)
        made = TrackerProcess(home, "--bind", "tcp://127.0.0.1:0", "--database", url or self.url)
        self.trackers.append(made)
        return made

    @contextlib.contextmanager
    def another(self, url: str = "") -> Iterator[TrackerProcess]:
        """One more tracker, which is gone afterwards."""
        made = self.add(url)
        try:
            yield made
        except BaseException:
            print(self.logs())
            raise
        finally:
            self.trackers.remove(made)
            if made.process.poll() is None:
                made.kill()

    @property
    def link(self) -> str:
        """The link with all trackers."""
        endpoints = tuple(each.at.endpoint for each in self.trackers)
        return Link(endpoints, self.trackers[0].at.key).text

    @property
    def database(self) -> str:
        """The name of the database."""
        return self.url.removeprefix("postgresql://tracker@/").partition("?")[0]

    def logs(self) -> str:
        return "\n".join(
            f"-- {each.at.endpoint}\n{''.join(each.errors)[-4_000:]}" for each in self.trackers
        )

    def close(self) -> None:
        for each in self.trackers:
            if each.process.poll() is None:
                each.process.kill()
            each.process.wait(PATIENCE_S)
        shutil.rmtree(self.root, ignore_errors=True)


@contextlib.contextmanager
def cluster_of(count: int, server: Server | None = None, url: str = "") -> Iterator[TrackerCluster]:
    made = TrackerCluster(count, server, url)
    try:
        yield made
    except BaseException:
        print(made.logs())
        raise
    finally:
        made.close()


class ClusterWriter(threading.Thread):
    """Offers one name after the other at a tracker, and goes to the next one if it is lost.

    ``done``: names that were acknowledged. A command without an answer is sent again under its id.
    Use it in a ``with`` statement: it would write on after a test that failed.
    """

    def __init__(
        self, cluster: TrackerCluster, device: Device, group: str, content: bytes, first: int
    ) -> None:
        super().__init__(daemon=True)
        self.cluster = cluster
        self.pair = device.pair
        self.group = group
        self.content = content
        self.at = first
        self.done: list[str] = []
        self.refused = 0
        self.error: BaseException | None = None
        self.over = threading.Event()

    def __enter__(self) -> ClusterWriter:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.join(2 * PATIENCE_S)

    def run(self) -> None:
        try:
            while not self.over.is_set():
                self._offer(self._next_name())
        except BaseException as error:
            self.error = error

    def _next_name(self) -> str:
        return f"{self.pair.public.hex()[:16]}-{len(self.done)}"

    def has_done(self, count: int) -> bool:
        """Whether so many names were acknowledged. Raise what ended the writer."""
        if self.error is not None:
            raise self.error
        return len(self.done) >= count

    def _offer(self, name: str) -> None:
        request_id = len(self.done).to_bytes(8, "big")
        command = tracker.Offer(self.group, name, self.content)
        while not self.over.is_set():
            where = self.cluster.trackers[self.at % len(self.cluster.trackers)]
            device = Device(where.at, self.pair)
            try:
                while not self.over.is_set():
                    device.send(command, request_id=request_id)
                    reply = device.receive(request_id, ANSWER_S)
                    if not isinstance(reply, Refusal):
                        self.done.append(name)
                        name = self._next_name()
                        request_id = len(self.done).to_bytes(8, "big")
                        command = tracker.Offer(self.group, name, self.content)
                    elif reply.code in (Code.READ_ONLY, Code.BUSY):
                        self.refused += 1
                        self.over.wait(0.02)
                    else:
                        raise Refused(f"{reply.code}: {reply.message}")
            except AssertionError as error:
                if isinstance(error, Refused):
                    raise
                self.at += 1
            finally:
                device.close()

    def end(self) -> None:
        self.over.set()
        self.join(2 * PATIENCE_S)
        assert not self.is_alive()
        if self.error is not None:
            raise self.error


class Listener(threading.Thread):
    """Takes the entries of a group that one tracker publishes."""

    def __init__(self, device: Device, group: str) -> None:
        super().__init__(daemon=True)
        device.subscribe()  # says Hello, so the tracker knows of the membership
        device.follow()
        self.device = device
        self.group = group
        self.entries: list[events.LogEntry] = []
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.is_set():
            with contextlib.suppress(AssertionError):
                entry: Any = self.device.next_event(
                    lambda event: isinstance(event, events.LogEntry) and event.group == self.group,
                    0.2,
                )
                self.entries.append(entry)

    def seqs(self) -> list[int]:
        return [entry.seq for entry in self.entries]

    def end(self) -> None:
        self.over.set()
        self.join(PATIENCE_S)


def log_of(device: Device, group: str) -> list[events.LogEntry]:
    """Return all entries of a group's log, as one tracker has them."""
    entries: list[events.LogEntry] = []
    while True:
        after = entries[-1].seq if entries else 0
        page: tracker.Events = device.request(tracker.EventsSince(group, after))
        entries += page.entries
        if not page.entries or entries[-1].seq >= page.head:
            return entries


def names_listed(device: Device, group: str) -> set[str]:
    """Return the names that are shared in a group."""
    names: list[str] = []
    while True:
        page: tracker.FileRows = device.request(
            tracker.ListFiles(group, names[-1] if names else "")
        )
        names += [row.name for row in page.rows]
        if not page.more:
            return set(names)


def names_in(entries: list[events.LogEntry]) -> list[str]:
    """Return the names that were shared, once for each entry about it."""
    return [entry.event.name for entry in entries if isinstance(entry.event, events.Shared)]
