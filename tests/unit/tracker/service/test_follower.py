"""Follower of other trackers: writing, reading, and a database that fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from common.ids import DeviceKey, UserId
from tests.support.memory_cluster import MemoryDatabase, MemoryTables
from tracker.core.shared_presence import PresenceRow, SharedLease
from tracker.service import follower
from tracker.service.follower import Follower, PresenceOut, Report
from tracker.store.cluster_rows import TrackerRow
from tracker.store.turns import FellBehind

WAIT_S = 20.0


class Owner:
    """An owner that records its reports, and writes all of its rows when it is asked to."""

    def __init__(self, name: bytes, database: MemoryDatabase) -> None:
        self.row = TrackerRow(name, b"first", f"tcp://{name.decode()}", "1", 1, 0, 0)
        self.tables = MemoryTables(database)
        self.follower = Follower(self.tables, self.news, self)
        self.database = database
        self.fails: FellBehind | None = None
        self.rows: dict[DeviceKey, PresenceRow] = {}
        self.reports: list[Report] = []
        self.connections = 0
        self.version = 0
        self._changed = threading.Condition()

    def news(self, position: int):
        if self.fails is not None:
            raise self.fails
        return self.database.news(position)

    def own_row(self) -> TrackerRow:
        return self.row

    def connected(self) -> None:
        self.connections += 1
        self.follower.write(PresenceOut(list(self.rows.values()), b"g%d" % self.connections))
        with self._changed:
            self._changed.notify_all()

    def report(self, report: Report) -> None:
        with self._changed:
            self.reports.append(report)
            self._changed.notify_all()

    def has(self, number: int) -> None:
        """Write a row about a device."""
        device = DeviceKey(bytes([number]) * 32)
        self.version += 1
        lease = SharedLease(UserId("alice"), "tcp://192.0.2.1:9", b"", ())
        row = PresenceRow(self.row.tracker, device, self.version, 1, 0, lease)
        self.rows[device] = row
        self.follower.write(PresenceOut([row]))

    def until(self, condition: Callable[[], object], what: str) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, WAIT_S), what

    def knows(self, *numbers: int) -> Callable[[], bool]:
        """Whether it has read of these devices."""
        return lambda: (
            {
                row.device[0]
                for report in self.reports
                for each in report.presence
                for row in each.rows
            }
            >= set(numbers)
        )

    def looks(self) -> list[list[TrackerRow]]:
        """The other trackers at each look around."""
        return [report.trackers for report in self.reports if report.trackers is not None]

    def others(self) -> list[bytes]:
        looks = self.looks()
        return [row.tracker for row in looks[-1]] if looks else []


@contextmanager
def running(*owners: Owner) -> Iterator[None]:
    for owner in owners:
        owner.follower.start()
    try:
        yield
    finally:
        for owner in owners:
            owner.follower.stop(WAIT_S)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "POLL_S", 0.05)
    monkeypatch.setattr(follower, "RETRY_MAX_S", 0.2)


@pytest.fixture
def database() -> MemoryDatabase:
    return MemoryDatabase()


@pytest.fixture
def two(database: MemoryDatabase) -> tuple[Owner, Owner]:
    return Owner(b"one", database), Owner(b"two", database)


def test_a_tracker_reads_the_rows_of_another(two: tuple[Owner, Owner]) -> None:
    one, other = two
    with running(one, other):
        one.until(lambda: one.others() == [b"two"], "the other tracker")
        other.until(lambda: other.others() == [b"one"], "the other tracker")
        one.has(1)
        other.until(other.knows(1), "the device")
        other.has(2)
        one.until(one.knows(2), "the device")
        read = [each for report in other.reports for each in report.presence if each.rows]
        assert [row.device[0] for each in read for row in each.rows].count(1) == 1
        assert any(report.now_ms for report in one.reports)


def test_commits_are_read_once_and_in_order(two: tuple[Owner, Owner]) -> None:
    one, _ = two
    with running(one):
        for _ in range(3):
            one.database.commit()

        def positions() -> list[int]:
            return [commit.position for report in one.reports for commit in report.commits]

        one.until(lambda: len(positions()) >= 3, "the commits")
        one.row = replace(one.row, position=5)  # two of its own
        for _ in range(3):
            one.database.commit()
        one.until(lambda: len(positions()) >= 4, "the sixth commit")
        assert positions() == [1, 2, 3, 6]


def test_a_commit_of_its_own_is_told_to_the_others(
    two: tuple[Owner, Owner], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = two
    with running(one, other):
        one.until(lambda: one.others() and other.others(), "each other")
        # A poll would not find it within this test.
        monkeypatch.setattr(other.follower, "_poll_s", 3_600.0)
        monkeypatch.setattr(follower, "BEAT_S", 3_600.0)
        count = len(other.reports)
        other.until(lambda: len(other.reports) >= count, "the end of the last poll")
        one.database.commit()
        one.row = replace(one.row, position=1)
        one.follower.committed()
        other.until(lambda: any(report.commits for report in other.reports), "the commit")


def test_a_commit_of_another_tracker_is_not_told_again(two: tuple[Owner, Owner]) -> None:
    """The mirror's position moves by commits of others as well."""
    one, other = two
    with running(one, other):
        one.until(lambda: one.database.notified == 2, "their first rows")
        one.row = replace(one.row, position=7)
        one.has(1)
        other.until(other.knows(1), "the device")
        looks = len(one.reports)
        one.until(lambda: len(one.reports) > looks + 1, "two more looks")
        assert one.database.notified == 3


def test_a_silent_tracker_is_noticed_among_steady_notifications(two: tuple[Owner, Owner]) -> None:
    one, other = two
    with running(one):
        one.until(lambda: one.others() == [], "a look around")
        with running(other):
            one.until(lambda: one.others() == [b"two"], "the other tracker")
            over = threading.Event()
            noise = threading.Thread(target=_notify, args=(other.tables, over))
            noise.start()
            try:
                looks = len(one.looks())
                one.until(lambda: len(one.looks()) > looks + 2, "looks around")
            finally:
                over.set()
                noise.join()


def _notify(tables: MemoryTables, over: threading.Event) -> None:
    while not over.wait(0.001):
        tables.notify()


def test_f149_without_notifications_a_poll_finds_everything(two: tuple[Owner, Owner]) -> None:
    one, other = two
    one.database.notifies = False
    with running(one, other):
        one.has(1)
        other.until(other.knows(1), "the device")
        one.database.commit()
        other.until(lambda: any(report.commits for report in other.reports), "the commit")


def test_f149_a_connection_that_has_gone_deaf_is_made_anew(two: tuple[Owner, Owner]) -> None:
    one, _ = two
    with running(one):
        one.until(lambda: one.connections == 1 and one.reports, "the connection")
        one.database.notifies = False
        for number in range(1, 4):
            one.database.commit()
            found = number
            one.until(
                lambda found=found: (
                    sum(len(report.commits) for report in one.reports) >= found
                    or one.connections > 1
                ),
                "the commit",
            )
        one.until(lambda: one.connections == 2, "another connection")


def test_f148_after_a_crash_of_the_database_all_rows_are_written_again(
    two: tuple[Owner, Owner],
) -> None:
    one, other = two
    with running(one, other):
        one.has(1)
        other.until(other.knows(1), "the device")
        one.database.crash()
        one.database.start()
        one.until(lambda: one.connections == 2, "another connection")
        other.until(lambda: other.connections == 2, "another connection")
        other.until(
            lambda: any(
                each.generation == b"g2" and len(each.rows) == 1
                for report in other.reports
                for each in report.presence
            ),
            "all rows",
        )


def test_f148_after_a_loss_of_its_connection_alone_a_tracker_reads_all_rows(
    two: tuple[Owner, Owner],
) -> None:
    one, other = two

    def read() -> list[tuple[bool, set[int]]]:
        every = [each for report in one.reports for each in report.presence]
        return [(each.whole, {row.device[0] for row in each.rows}) for each in every if each.rows]

    with running(one, other):
        other.has(1)
        other.has(2)
        one.until(one.knows(1, 2), "the devices")
        with one.database.lock:  # the first device leaves, and its row is deleted before it is read
            del one.database.presence[b"two", DeviceKey(bytes([1]) * 32)]
            one.tables._connected = False
        one.until(lambda: one.connections == 2 and read()[-1] == (True, {2}), "what is left")
        other.has(3)
        one.until(lambda: read()[-1] == (False, {3}), "further rows alone")
        assert other.connections == 1


def test_a_tracker_that_ends_deletes_its_rows(two: tuple[Owner, Owner]) -> None:
    one, other = two
    with running(one):
        with running(other):
            one.until(lambda: one.others() == [b"two"], "the other tracker")
            other.has(1)
            one.until(one.knows(1), "the device")
        one.until(lambda: one.others() == [], "its end")
        assert {name for name, _ in one.database.presence} <= {b"one"}


def test_a_silent_tracker_is_forgotten(
    two: tuple[Owner, Owner], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = two
    monkeypatch.setattr(follower, "BEAT_S", 3_600.0)
    with running(one, other):
        other.has(1)
        one.until(one.knows(1), "the device")
        one.database.seen_at[b"two"] -= 3_600.0
        one.until(lambda: one.others() == [], "its end")
        assert b"two" not in one.database.trackers
        assert {name for name, _ in one.database.presence} <= {b"one"}


def test_a_tracker_that_was_forgotten_writes_all_its_rows_again(
    two: tuple[Owner, Owner], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = two
    monkeypatch.setattr(follower, "BEAT_S", 0.05)
    with running(one):
        one.has(1)
        one.until(lambda: one.connections == 1, "the connection")
        one.tables.forget([b"one"])
        one.until(lambda: one.connections == 2, "its return")
        one.until(lambda: len(one.database.presence) == 1, "its rows")


def test_the_size_of_the_database_is_read_first_and_then_seldom(
    two: tuple[Owner, Owner], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = two
    monkeypatch.setattr(follower, "BEAT_S", 0.01)
    with running(one):
        one.until(lambda: len([each for each in one.reports if each.now_ms]) > 3, "signs of life")
        assert [each.database_bytes for each in one.reports if each.now_ms][:3] == [
            4096,
            None,
            None,
        ]
        assert one.tables.sized == 1
        monkeypatch.setattr(follower, "SIZE_S", 0.0)
        one.follower._size_at = 0.0
        one.until(lambda: one.tables.sized > 2, "further looks")


def test_a_gap_in_the_journal_is_reported(two: tuple[Owner, Owner]) -> None:
    one, _ = two
    one.fails = FellBehind("the journal no longer has the next commit")
    with running(one):
        one.until(lambda: any(report.stale for report in one.reports), "the gap")
        one.fails = None
        one.database.commit()
        one.until(lambda: any(report.commits for report in one.reports), "a commit")


def test_texts_are_told_to_all_others(two: tuple[Owner, Owner]) -> None:
    one, other = two
    with running(one, other):
        one.until(lambda: one.others() and other.others(), "each other")
        for number in range(3):
            one.follower.broadcast(f"text {number}")
        other.until(
            lambda: (
                [text for report in other.reports for text in report.told]
                == [f"text {number}" for number in range(3)]
            ),
            "the texts",
        )
        assert not any(report.told for report in one.reports)
