"""Several trackers on one PostgreSQL: turns, the journal, commits in doubt, lost commits."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from common import limits
from common.errors import ConfigError, StorageError
from common.ids import DeviceKey, GroupId, UserId
from tests.support.commit_eater import CommitEater
from tests.support.postgres import own_server, shared_server
from tests.support.tracker_harness import TrackerHarness, content_id
from tracker.core.changes.accounts import AccountCreated
from tracker.core.changes.groups import GroupCreated
from tracker.core.changes.shares import ManifestDropped, ManifestStored
from tracker.core.records import ManifestSummary
from tracker.store import journal, postgres_store, tables
from tracker.store import postgres_connections as pg
from tracker.store.cluster_rows import TrackerRow
from tracker.store.cluster_tables import ClusterTables
from tracker.store.postgres_store import PostgresStore
from tracker.store.turns import FellBehind, InDoubt, LogConflict, OldReader

NOBODY = DeviceKey(b"n" * 32)


def account(name: str) -> AccountCreated:
    return AccountCreated(UserId(name), "h", 1)


@pytest.fixture
def pair() -> Iterator[tuple[PostgresStore, PostgresStore]]:
    """The stores of two trackers on one database."""
    url = shared_server().database()
    stores = PostgresStore(url, b"a" * 16), PostgresStore(url, b"b" * 16)
    yield stores
    for store in stores:
        store.close()


Pair = tuple[PostgresStore, PostgresStore]


def test_the_tables_are_those_of_the_metadata(pair: Pair) -> None:
    with pair[0]._engine.connect() as db:
        context = MigrationContext.configure(db, opts={"compare_type": False})
        assert compare_metadata(context, tables.metadata) == []
        query = "SELECT relpersistence FROM pg_class WHERE relname IN ('presence', 'changes')"
        assert sorted(db.execute(sa.text(query)).scalars()) == ["p", "u"]
        query = (
            "SELECT count(*) FROM information_schema.columns WHERE table_schema = 'public'"
            " AND data_type = 'text' AND collation_name IS DISTINCT FROM 'C'"
        )
        assert db.execute(sa.text(query)).scalar_one() == 0


def test_a_turn_brings_the_commits_of_others_in_order(pair: Pair) -> None:
    here, there = pair
    assert here.turn(0).commit([account("alice")], [NOBODY]) == 1
    assert here.turn(1).commit([account("bob")], []) == 2
    turn = there.turn(0)
    assert [(news.position, news.tracker, news.nudged) for news in turn.news] == [
        (1, here.own, (NOBODY,)),
        (2, here.own, ()),
    ]
    assert [change.user for news in turn.news for change in news.changes] == ["alice", "bob"]  # type: ignore[union-attr]
    assert turn.commit([account("carol")], []) == 3
    assert [news.position for news in here.news(2)] == [3]
    assert here.load().position == there.load().position == 3


def test_a_turn_waits_for_the_turn_of_another_tracker_and_sees_its_commit(pair: Pair) -> None:
    here, there = pair
    first, seen, started = here.turn(0), list[Any](), threading.Event()

    def wait() -> None:
        started.set()
        turn = there.turn(0)
        seen.append([news.position for news in turn.news])
        turn.release()

    waiting = threading.Thread(target=wait)
    waiting.start()
    started.wait(20)
    while not _waiting_for_the_lock(here):
        pass
    assert seen == []
    first.commit([account("alice")], [])
    waiting.join(20)
    assert seen == [[1]]


def _waiting_for_the_lock(store: PostgresStore) -> bool:
    with store._engine.connect() as db:
        query = (
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        return bool(db.execute(sa.text(query)).scalar_one())


def test_a_batch_that_is_given_up_or_fails_leaves_no_number_out(pair: Pair) -> None:
    here, there = pair
    here.turn(0).release()
    here.turn(0).commit([account("alice")], [])
    with pytest.raises(StorageError, match="duplicate"):
        there.turn(1).commit([account("bob"), account("alice")], [])
    assert there.turn(1).commit([account("carol")], []) == 2
    assert list(here.load().accounts) == ["alice", "carol"]


def test_f144_the_turn_of_a_frozen_tracker_ends(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its batch is not written."""
    here, there = pair
    with monkeypatch.context() as patch:
        patch.setattr(postgres_store, "IDLE_S", 0.05)
        frozen = here.turn(0)
    assert there.turn(0).commit([account("bob")], []) == 1
    with pytest.raises(StorageError):
        frozen.commit([account("alice")], [])
    assert list(there.load().accounts) == ["bob"]
    assert [news.position for news in here.turn(0).news] == [1]


@pytest.mark.parametrize("lost", ["answer", "commit"])
def test_f142_a_lost_answer_to_a_commit_is_looked_up(pair: Pair, lost: str) -> None:
    _, there = pair
    eater, happens = CommitEater(shared_server()), lost == "answer"
    here = PostgresStore(eater.url(there.url))
    turn = here.turn(0)
    eater.eat(lost)
    with pytest.raises(InDoubt) as caught:
        turn.commit([account("alice")], [])
    assert eater.eaten == 1
    assert here.happened(caught.value) is happens
    assert bool(there.load().accounts) is happens
    position = caught.value.position if happens else 0
    assert here.turn(position).commit([account("bob")], []) == position + 1
    here.close()
    eater.close()


def test_a_turn_and_its_commit_take_two_round_trips(pair: Pair) -> None:
    """Other trackers wait for each of them."""
    _, there = pair
    harness = TrackerHarness()
    alice = harness.user("alice")
    harness.group("lab", alice)
    content = harness.content("a")
    there.turn(0).commit(harness.changes, [])
    harness.changes.clear()
    for number in range(20):
        alice.offers("lab", f"a{number}", content)
    eater = CommitEater(shared_server())
    here = PostgresStore(eater.url(there.url))
    here.turn(1).release()  # which connects
    before = eater.round_trips
    turn = here.turn(1)
    assert eater.round_trips - before == 1
    assert turn.commit(harness.changes, []) == 2
    assert eater.round_trips - before == 2
    here.close()
    eater.close()


def test_another_commit_of_that_number_is_not_ones_own(pair: Pair) -> None:
    here, there = pair
    there.turn(0).commit([account("bob")], [])
    assert not here.happened(InDoubt("in doubt", 1, b"x" * 16))


def test_f34_commits_that_a_standby_lacks_are_noticed(pair: Pair) -> None:
    """All groups get numbers that were never used, and both trackers load anew."""
    here, there = pair
    group = GroupCreated(GroupId("lab"), UserId("alice"), b"t" * 16, b"k" * 32, 5, 2, 1)
    here.turn(0).commit([account("alice"), group], [])
    here.turn(1).commit([account("bob")], [])
    there.load()
    with here._engine.begin() as db:  # as the standby has it
        db.execute(sa.text("DELETE FROM changes WHERE serial = 2"))
        db.execute(sa.text("DELETE FROM accounts WHERE user_id = 'bob'"))
    with pytest.raises(FellBehind, match="lost"):
        here.turn(2)
    state = here.load()
    assert list(state.accounts) == ["alice"]
    assert state.groups[GroupId("lab")].seq > 1 << 20
    assert state.groups[GroupId("lab")].epoch > 1 << 10
    assert state.groups[GroupId("lab")].key != b"k" * 32
    with pytest.raises(FellBehind):
        there.turn(2)
    assert there.load().groups == state.groups
    assert there.turn(there.load().position).commit([account("bob")], []) == state.position + 1


def test_a_journal_that_begins_later_is_noticed(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_store, "KEPT_MS", -1_000)
    monkeypatch.setattr(postgres_store, "PRUNE_S", 0.0)
    here, there = pair
    for position, name in enumerate(("alice", "bob", "carol")):
        here.turn(position).commit([account(name)], [])
    with pytest.raises(FellBehind, match="no longer"):
        there.news(1)
    assert there.load().position == 3
    assert there.turn(3).commit([account("dan")], []) == 4


def test_the_journal_of_a_later_release_is_refused_with_words(pair: Pair) -> None:
    here, there = pair
    here.turn(0).commit([account("alice")], [])
    with here._engine.begin() as db:
        db.execute(sa.text("UPDATE changes SET format = 99"))
    with pytest.raises(FellBehind, match="later release"):
        there.turn(0)


def test_two_clusters_on_one_database_are_told_apart(pair: Pair) -> None:
    here, there = pair
    assert here.tracker_id(b"1" * 16) == there.tracker_id(b"2" * 16) == b"1" * 16
    assert [here.claim(b"keys"), there.claim(b"keys")] == [True, True]
    assert not there.claim(b"others")


def test_parts_come_before_their_manifest_and_go_with_it(pair: Pair) -> None:
    here, there = pair
    body = os.urandom(5 * limits.MANIFEST_PART_BYTES + 1)
    content, other = content_id("x"), content_id("y")
    summary = ManifestSummary(content, len(body), 1, 1, 1, 16_384, "blake3", b"d" * 32, 1)
    for _ in range(2):
        here.put_parts(content, body)
    there.put_parts(other, body)
    here.turn(0).commit([ManifestStored(summary, body)], [])
    assert (
        there.manifest_part(content, limits.MANIFEST_PART_BYTES + 3)
        == (body[limits.MANIFEST_PART_BYTES + 3 : 2 * limits.MANIFEST_PART_BYTES])
    )
    for _ in range(2):  # orphans are deleted when they are seen twice
        with here._engine.begin() as db:
            here._sweep_parts(db)
    assert there.manifest_part(other, 0) == b""
    assert there.manifest_part(content, 0) != b""
    here.turn(1).commit([ManifestDropped(content)], [])
    assert there.manifest_part(content, 0) == b""


def test_no_password_is_told() -> None:
    url = "postgresql://eve:hunter2@127.0.0.1:1/nothing?connect_timeout=2"
    assert pg.has_password(url)
    assert pg.shown(url) == "postgresql://127.0.0.1:1/nothing"
    with pytest.raises(StorageError) as caught:
        PostgresStore(url)
    assert "hunter2" not in str(caught.value) + str(caught.value.hint)
    for wrong in (
        "postgresql://eve:hunter2@[h/x",
        "postgresql://eve:hunter2@h/?nonsense=1",
        "postgresql://eve@h/?dbname=postgresql://eve:hunter2@other/x",
        "postgresql://eve@h/postgresql%3A%2F%2Feve%3Ahunter2%40other%2Fx",
        "postgresql://eve@h/?dbname=host=x password=hunter2",
        "postgresql://eve@h/?host=eve:hunter2@h",
        "postgresql://eve@h:5432,other:hunter2/x",
        "postgresql://eve:a/hunter2@h/x",  # passwords with special characters
        "postgresql://eve:1/hunter2@h/x",
        "postgresql://eve:a@hunter2@h/x",
        "postgresql://eve@h/x%3Fpassword=hunter2",
    ):
        with pytest.raises(ConfigError) as refused:
            pg.shown(wrong)
        assert "hunter2" not in str(refused.value) + repr(refused.value.__cause__)


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("postgresql://eve:a%40b@db-1.example:5432/x", "postgresql://db-1.example:5432/x"),
        ("postgresql://[2001:db8::1]:5432/x", "postgresql://[2001:db8::1]:5432/x"),
        ("postgresql://a:1,b:2/x", "postgresql://a:1,b:2/x"),
        ("postgresql:///x?host=/run/postgresql&user=eve", "postgresql:///x?host=/run/postgresql"),
        ("postgresql://", "postgresql://localhost/"),
    ],
)
def test_a_plain_url_is_shown_without_its_user(url: str, seen: str) -> None:
    assert pg.shown(url) == seen


@pytest.mark.parametrize("in_log", [True, False])
def test_a_strange_entry_in_a_log_is_noticed(pair: Pair, in_log: bool) -> None:
    """By the head of its group, also where the entry itself is not there."""
    here, _ = pair
    harness = TrackerHarness()
    alice = harness.user("alice")
    harness.group("lab", alice)
    here.turn(0).commit(harness.changes, [])
    harness.changes.clear()
    alice.offers("lab", "a", harness.content("a"))
    here.turn(1).commit(harness.changes, [])
    with here._engine.begin() as db:
        db.execute(sa.text("DELETE FROM offers; DELETE FROM shares; DELETE FROM versions"))
        db.execute(sa.text("DELETE FROM manifests"))
        if not in_log:
            db.execute(sa.text("DELETE FROM log"))
    with pytest.raises(LogConflict):
        here.turn(2).commit(harness.changes, [])


def test_a_server_that_does_not_sync_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    url = shared_server().database()
    monkeypatch.delenv(pg.UNSAFE_VARIABLE)
    with pytest.raises(StorageError, match="fsync=off"):
        PostgresStore(url)


def test_f34_a_server_that_was_restarted_or_frozen_is_used_again(tmp_path: Path) -> None:
    with own_server() as server:
        store = PostgresStore(server.database())
        assert store.turn(0).commit([account("alice")], []) == 1
        for position, number in ((1, signal.SIGINT), (2, signal.SIGKILL)):
            server.end(number)
            with pytest.raises(StorageError):
                store.turn(position)
            with pytest.raises(StorageError):
                store.reach()
            server.start()
            store.reach()
            assert store.turn(position).commit([account(f"u{position}")], []) == position + 1
        group = GroupId("lab")
        assert store.entries(group, 0, 9, 9) == []  # there are connections to read as well
        server.freeze()
        calls = (
            lambda: store.turn(3),
            lambda: store.news(3),
            lambda: store.entries(group, 0, 9, 9),
        )
        with ThreadPoolExecutor(len(calls)) as threads:
            waiting = [threads.submit(call) for call in calls]
            assert wait(waiting, 0.3).done == set()
            store.interrupt()
            for each in waiting:
                assert isinstance(each.exception(20), StorageError)
        server.thaw()
        assert store.turn(3).commit([account("last")], []) == 4
        assert len(store.load().accounts) == 4
        store.close()


def test_f173_a_change_that_a_serving_tracker_cannot_read_waits_for_its_update(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other changes keep the format that all read."""
    here, there = pair
    cluster = ClusterTables(here.url)
    cluster.connect()
    old = TrackerRow(b"old", b"", "tcp://old:1", "1.0\x1b", 1, 0, 0)
    cluster.beat(old)
    monkeypatch.setattr(journal, "FORMAT", 2)
    monkeypatch.setitem(journal.SINCE, journal._TAG_OF[AccountCreated], 2)
    refused = here.turn(0)
    with pytest.raises(OldReader, match=r"tcp://old:1 of release 1.0\\x1b must be updated first"):
        refused.commit([account("alice")], [])
    assert there.turn(0).commit([], []) == 1
    cluster.beat(replace(old, format=2))
    assert here.turn(1).commit([account("alice")], []) == 2
    with here._engine.connect() as db:
        formats = sa.select(tables.changes.c.format).order_by(tables.changes.c.serial)
        assert list(db.execute(formats).scalars()) == [1, 2]
    cluster.close()
