"""Contract of a store: it keeps committed changes, whole batches or nothing, and loads them."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import alembic.command
import alembic.config
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from msgspec import structs

from common import limits
from common.errors import StorageError
from common.ids import DeviceKey, GroupId, UserId
from common.invitation import key_of
from common.messages import events, tracker
from common.messages.operator import Registration
from common.net.codec import encode
from common.token_bucket import Rate
from tests.support.memory_store import MemoryStore
from tests.support.postgres import shared_server
from tests.support.random_commands import proof, random_command
from tests.support.tracker_harness import Device, TrackerHarness, content_id
from tracker.core import budgets, commands, operator
from tracker.core.budgets import Budget
from tracker.core.changes.accounts import AccountCreated
from tracker.core.changes.groups import GroupCreated, Logged, MemberJoined
from tracker.core.changes.invitations import InvitationUsed
from tracker.core.changes.shares import ManifestStored
from tracker.core.context import Caller
from tracker.core.records import Binding, Group, ManifestSummary
from tracker.core.share_names import Name, NameId, ShareId, Version
from tracker.core.state import State
from tracker.store import migrate, tables
from tracker.store.failures import DamagedDatabase
from tracker.store.postgres_store import PostgresStore
from tracker.store.sqlite_store import SqliteStore
from tracker.store.turns import LogConflict


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tracker.db"


AnyStore = SqliteStore | PostgresStore | MemoryStore
OPEN = Registration.OPEN


@pytest.fixture(params=[SqliteStore, PostgresStore, MemoryStore])
def store(path: Path, request: pytest.FixtureRequest) -> Iterator[AnyStore]:
    """Each implementation of a store."""
    opened: AnyStore
    if request.param is PostgresStore:
        opened = PostgresStore(shared_server().database())
    else:
        opened = SqliteStore(path) if request.param is SqliteStore else MemoryStore()
    yield opened
    opened.close()


def reopened(store: AnyStore) -> AnyStore:
    """Return a store as the next process opens it."""
    if isinstance(store, PostgresStore):
        return PostgresStore(store.url)
    return SqliteStore(store.path) if isinstance(store, SqliteStore) else store


@pytest.fixture
def on_disk(path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(path)
    yield opened
    opened.close()


def snapshot(state: State) -> dict[str, Any]:
    """Return a state without its caches. The ids of a user or a content have no order."""

    def tidy(value: Any) -> Any:
        if isinstance(value, Group):
            return replace(value, names_of=tidy(value.names_of))
        if isinstance(value, dict):
            return {key: tidy(each) for key, each in value.items()}
        return frozenset(value) if isinstance(value, tuple) else value

    found = {
        name: tidy(value)
        for name, value in vars(state).items()
        if name[0] != "_" and name != "undo"
    }
    # Since when, and whose, is not kept.
    del found["budgets"], found["position"]
    found["unshared_manifests"] = set(state.unshared_manifests.before(1 << 62))
    return found


def test_committed_changes_are_loaded_by_the_next_process(store: AnyStore) -> None:
    """The mirror and the tables agree after each of a thousand random commands."""
    seed = int(os.environ.get("MINI_TORRENT_SEED", random.randrange(1 << 32)))
    print(f"MINI_TORRENT_SEED={seed}")
    rng, harness, written = random.Random(seed), TrackerHarness(seed), 0
    for step in range(1_000):
        random_command(harness, rng)
        if step % 50 == 49:
            store.commit(harness.changes[written:])
            written = len(harness.changes)
            assert snapshot(store.load()) == snapshot(harness.state)
    again = reopened(store)
    assert snapshot(again.load()) == snapshot(harness.state)
    for group in harness.state.groups.values():
        entries = [entry for entry in harness.log if entry.group == group.id]
        since = max(index for index, entry in enumerate(entries) if _begins(entry))
        stored = again.entries(group.id, 0, group.seq, 10_000)
        assert stored == [(entry.seq, encode(entry)) for entry in entries[since:]]
    again.close()


def test_f50_a_trimmed_log_is_loaded_unchanged(
    store: AnyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LOG_ENTRIES_MAX", 7)
    monkeypatch.setattr(limits, "LOG_ENTRIES_KEPT", 3)
    harness = TrackerHarness()
    alice = harness.user("alice")
    harness.group("lab", alice)
    for _ in range(10):
        alice.offers("lab", "a", harness.content("a"))
        alice.does(tracker.StopShare("lab", "a"))
    store.commit(harness.changes)
    again = reopened(store)
    lab, loaded = harness.state.groups[GroupId("lab")], again.load()
    assert 3 <= lab.entries <= 7
    assert loaded.groups[lab.id].entries == lab.entries
    left = list(range(lab.seq - lab.entries + 1, lab.seq + 1))
    assert [entry.seq for entry in again.entries(lab.id, 0, lab.seq, 100)] == left
    again.close()


def test_h58_hours_of_writing_by_one_account_do_not_grow_the_tables(
    on_disk: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Groups, shares, logins and requests come and go as fast as budgets allow.

    The clock is moved by hours. Budgets and retention are small, so that both end early.
    """
    monkeypatch.setattr(limits, "TOMBSTONE_LIFE_S", 1_500)
    monkeypatch.setattr(limits, "LOG_ENTRIES_MAX", 200)
    monkeypatch.setattr(limits, "LOG_ENTRIES_KEPT", 100)
    rates = {Budget.ENTRIES: Rate(500, 0.2), Budget.GROUPS: Rate(20, 1 / 60)}
    monkeypatch.setattr(budgets, "RATES", {**budgets.RATES, **rates})
    harness, written, counts = TrackerHarness(), 0, []
    eve, owner = harness.user("eve"), harness.user("owner")
    harness.group("others", owner)
    harness.group("own", eve)
    phone = harness.device("phone")
    right = commands.PasswordRight(UserId("eve"), "hash of secret")
    for step in range(30):
        for number in range(15):
            eve.asks(tracker.CreateGroup(f"g{step}-{number}"))
            eve.asks(tracker.LeaveGroup(f"g{step}-{number}"))
            eve.asks(
                tracker.Offer("own", f"{number}", harness.content(f"{number % 9}", shown_to=eve))
            )
            eve.asks(tracker.StopShare("own", f"{number}"))
            phone.asks(right)
            phone.asks(tracker.Logout())
            eve.asks(tracker.JoinGroup("others"))
            eve.asks(tracker.LeaveGroup("others"))
            harness.wait(10.0)
        harness.decide(Caller(DeviceKey(b"")), commands.Housekeep())
        on_disk.commit(harness.changes[written:])
        written = len(harness.changes)
        counts.append(_table_sizes(on_disk))
    assert snapshot(on_disk.load()) == snapshot(harness.state)
    half = len(counts) // 2
    for table in counts[0]:
        early = max(count[table] for count in counts[:half])
        late = max(count[table] for count in counts[half:])
        # Two logs go up and down by what they lose at a time.
        assert late <= (2 * limits.LOG_ENTRIES_MAX if table == "log" else early), table


def _table_sizes(store: SqliteStore) -> dict[str, int]:
    with contextlib.closing(sqlite3.connect(store.path)) as db:
        names = tables.metadata.tables
        return {name: db.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in names}


def _begins(entry: events.LogEntry) -> bool:
    return isinstance(entry.event, events.Created)


def test_a_batch_that_fails_writes_nothing(store: AnyStore) -> None:
    store.commit([AccountCreated("alice", "h", 1)])
    with pytest.raises(StorageError, match=r"(?i)unique"):
        store.commit([AccountCreated("bob", "h", 1), AccountCreated("alice", "h", 1)])
    assert list(store.load().accounts) == ["alice"]


def _entry(seq: int) -> Logged:
    return Logged(events.LogEntry("lab", seq, 1, 1, events.Joined("u")), b"t", b"k", 1)


def test_an_entry_must_have_the_next_number(store: AnyStore) -> None:
    group = GroupCreated(GroupId("lab"), "alice", b"t" * 16, b"k" * 32, 7, 1, 1)
    store.commit([AccountCreated("alice", "h", 1), group, _entry(8)])
    for wrong in (8, 10, 7):
        with pytest.raises(LogConflict):
            store.commit([MemberJoined("lab", "alice", 1, 1), _entry(wrong)])
    store.commit([_entry(9)])
    state = store.load()
    assert state.groups["lab"].seq == 9
    assert state.groups["lab"].members == {}


def test_the_log_is_read_in_pages(store: AnyStore) -> None:
    group = GroupCreated(GroupId("lab"), "alice", b"t" * 16, b"k" * 32, 0, 1, 1)
    store.commit([AccountCreated("alice", "h", 1), group, *map(_entry, range(1, 11))])

    def numbers(*where: int) -> list[int]:
        return [entry.seq for entry in store.entries(GroupId("lab"), *where)]

    assert numbers(0, 10, 100) == list(range(1, 11))
    assert numbers(3, 10, 4) == [4, 5, 6, 7]
    assert numbers(8, 9, 100) == [9]
    assert numbers(10, 10, 100) == []


@pytest.mark.parametrize(
    "size", [1, limits.MANIFEST_PART_BYTES, 3 * limits.MANIFEST_PART_BYTES + 1]
)
def test_a_manifest_is_read_from_any_offset(store: AnyStore, size: int) -> None:
    content, body = content_id("x"), random.Random(size).randbytes(size)
    summary = ManifestSummary(content, size, 1, 1, 1, 16_384, "blake3", b"d" * 32, 1)
    store.commit([ManifestStored(summary, body)])
    read, offset = b"", 0
    while part := store.manifest_part(content, offset):
        assert len(part) <= limits.MANIFEST_PART_BYTES
        read, offset = read + part, offset + len(part)
    assert read == body
    middle = size // 2
    assert body[middle:].startswith(store.manifest_part(content, middle))
    assert store.manifest_part(content_id("y"), 0) == b""


def test_the_id_of_the_installation_is_created_once(store: AnyStore) -> None:
    assert store.tracker_id(b"1" * 16) == b"1" * 16
    again = reopened(store)
    assert again.tracker_id(b"2" * 16) == b"1" * 16
    again.close()


@pytest.mark.parametrize(
    "text", ["'; DROP TABLE accounts; --", '" OR 1=1', "%", "_", "\\", "a\tb", "Ω’\U0001f600"]
)
def test_h42_sql_metacharacters_are_ordinary_characters(
    store: AnyStore, town_lab: Device, text: str
) -> None:
    harness = town_lab.harness
    if text.isprintable():
        town_lab.offers("lab", text, harness.content("x"))
    for command in (
        tracker.Login(text, text),
        tracker.JoinGroup(text),
        tracker.FindShare("lab", text),
        tracker.RemoveMember("lab", text),
        tracker.ListFiles("lab", text),
        tracker.MyOffers(text),
    ):
        town_lab.asks(command)
    store.commit(harness.changes)
    assert snapshot(store.load()) == snapshot(harness.state)


@pytest.fixture
def town_lab() -> Device:
    harness = TrackerHarness()
    alice = harness.user("alice")
    harness.group("lab", alice)
    return alice


@pytest.mark.parametrize("stays", [True, False], ids=["others stay", "the last one goes"])
def test_h55_a_member_that_leaves_withdraws_many_shares_in_few_statements(
    path: Path, on_disk: SqliteStore, stays: bool
) -> None:
    """All commands wait for a transaction, so it must not have a statement for each share."""
    harness = TrackerHarness()
    alice, bob = harness.user("alice"), harness.user("bob")
    data, statements = harness.content("data"), list[str]()
    sa.event.listen(
        on_disk._engine, "before_cursor_execute", lambda *call: statements.append(call[2])
    )
    counts = []
    for group, shares in (("few", 3), ("many", 30)):
        harness.group(group, bob, *([alice] if stays else []))
        for number in range(shares):
            bob.offers(group, f"{number}", data)
            if stays and number % 3 == 0:
                alice.offers(group, f"{number}", data)
        on_disk.commit(harness.changes)
        harness.changes.clear()
        statements.clear()
        bob.does(tracker.LeaveGroup(group))
        on_disk.commit(harness.changes)
        counts.append(len(statements))
        harness.changes.clear()
        assert snapshot(on_disk.load()) == snapshot(harness.state)
    assert counts[0] == counts[1]


# -- the file -----------------------------------------------------------------------------------


def test_only_its_owner_can_read_the_database(path: Path, on_disk: SqliteStore) -> None:
    on_disk.commit([AccountCreated("alice", "h", 1)])
    for each in path.parent.iterdir():
        assert stat.S_IMODE(each.stat().st_mode) == 0o600, each


def test_a_commit_is_synced_to_the_disk(path: Path, on_disk: SqliteStore) -> None:
    with on_disk._engine.connect() as db:
        assert db.execute(sa.text("PRAGMA synchronous")).scalar() == 2
        assert db.execute(sa.text("PRAGMA journal_mode")).scalar() == "wal"
        assert db.execute(sa.text("PRAGMA foreign_keys")).scalar() == 1


def test_f26_a_damaged_database_is_not_opened(path: Path) -> None:
    store = SqliteStore(path)
    store.commit([AccountCreated(f"u{n}", "h" * 100, 1) for n in range(500)])
    store.close()
    whole = path.read_bytes()
    for damaged in (b"no database at all" * 100, whole[:4096] + os.urandom(len(whole) - 4096)):
        path.write_bytes(damaged)
        with pytest.raises(DamagedDatabase) as caught:
            SqliteStore(path)
        assert "restore" in str(caught.value.hint)
        assert path.read_bytes() == damaged


def test_the_database_of_a_later_release_is_not_changed(path: Path) -> None:
    SqliteStore(path).close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StorageError, match="9999"):
        SqliteStore(path)


def test_the_migrations_create_the_tables(on_disk: SqliteStore) -> None:
    with on_disk._engine.connect() as db:
        assert compare_metadata(MigrationContext.configure(db), tables.metadata) == []
    migrations = ScriptDirectory(str(Path(migrate.__file__).with_name("migrations")))
    assert migrations.get_current_head() == migrate.HEAD


@contextlib.contextmanager
def schema(path: Path, revision: str) -> Iterator[sa.Connection]:
    """A database of an earlier release."""
    engine = sa.create_engine(f"sqlite:///{path}")
    config = alembic.config.Config()
    folder = Path(migrate.__file__).with_name("migrations")
    config.set_main_option("script_location", str(folder))
    with engine.begin() as db:
        config.attributes["connection"] = db
        alembic.command.upgrade(config, revision)
        account = "INSERT INTO accounts (user_id, password_hash, at_ms) VALUES ('alice', 'h', 1)"
        db.execute(sa.text(account))
        yield db
    engine.dispose()


def test_a_device_of_the_first_schema_was_last_seen_when_it_logged_in(path: Path) -> None:
    with schema(path, "0001") as db:
        db.execute(sa.text("INSERT INTO devices VALUES (:key, 'alice', 7)"), {"key": b"d" * 32})
    store = SqliteStore(path)
    assert store.load().bindings == {b"d" * 32: Binding(7, 7)}
    store.close()


def test_all_groups_of_the_second_schema_have_a_pending_rekey(path: Path) -> None:
    with schema(path, "0002") as db:
        row = "INSERT INTO groups VALUES (:name, 'alice', 'topic', 'key', 7, 3, 1, :dissolved)"
        db.execute(
            sa.text(row), [{"name": "lab", "dissolved": None}, {"name": "a", "dissolved": 1}]
        )
    store = SqliteStore(path)
    state = store.load()
    assert {group.id: group.rekey_pending for group in state.groups.values()} == {"lab": True}
    assert list(state.tombstones) == ["a"]
    store.commit([GroupCreated(GroupId("a"), UserId("alice"), b"t" * 16, b"k" * 32, 8, 4, 1)])
    assert not store.load().groups["a"].rekey_pending
    store.close()


def test_an_account_of_the_third_schema_is_enabled_and_registration_open(path: Path) -> None:
    with schema(path, "0003"):
        pass
    store = SqliteStore(path)
    state = store.load()
    assert not state.accounts["alice"].disabled  # type: ignore[index]
    assert (state.registration, state.invited_by) == (OPEN, {})
    store.close()


def test_the_kind_of_a_content_of_the_seventh_schema_is_not_known(path: Path) -> None:
    content, later = content_id("x"), content_id("y")
    with schema(path, "0007") as db:
        row = "INSERT INTO manifests VALUES (:content, 9, 1, 1, 1, 16384, 'blake3', :content, 1)"
        db.execute(sa.text(row), {"content": content})
    store = SqliteStore(path)
    summary = structs.replace(store.load().manifests[content], content=later, folder=True)
    store.commit([ManifestStored(summary, b"m")])
    manifests = store.load().manifests
    assert (manifests[content].folder, manifests[later].folder) == (None, True)
    store.close()


def test_a_deleted_account_with_a_tombstone_can_be_made_again(store: AnyStore) -> None:
    """The tombstone of a group refers to its owner's row for a day."""
    harness = TrackerHarness()
    alice = harness.user("alice")
    harness.group("lab", alice)
    harness.decide(Caller(DeviceKey(b"")), operator.DeleteUser("alice"))
    harness.decide(Caller(DeviceKey(b"")), operator.SetRegistration(Registration.CLOSED))
    store.commit(harness.changes)
    assert snapshot(store.load()) == snapshot(harness.state)
    harness.changes.clear()
    harness.decide(Caller(DeviceKey(b"")), operator.SetRegistration(OPEN))
    again = harness.user("alice", "another device")
    harness.decide(Caller(DeviceKey(b"")), operator.DeleteUser("alice"))
    harness.wait(limits.TOMBSTONE_LIFE_S + 1)
    harness.decide(Caller(DeviceKey(b"")), commands.Housekeep())
    store.commit(harness.changes)
    loaded = reopened(store)
    assert snapshot(loaded.load()) == snapshot(harness.state)
    assert again.user is None
    loaded.close()


def test_h112_the_last_use_is_checked_in_the_transaction(store: AnyStore) -> None:
    """Another writer, with a mirror of its own, has taken it."""
    if not isinstance(store, SqliteStore):
        pytest.skip("one writer only")
    harness = TrackerHarness()
    alice, bob = harness.user("alice"), harness.user("bob")
    harness.group("lab", alice)
    alice.does(tracker.Invite("lab", key_of(proof(1))))
    store.commit(harness.changes)
    harness.changes.clear()
    bob.does(tracker.Redeem(proof(1)))
    store.commit(harness.changes)
    used = [InvitationUsed(GroupId("lab"), key_of(proof(1)))]
    with pytest.raises(LogConflict):
        store.commit(used)
    assert list(store.load().groups["lab"].members) == ["alice", "bob"]


def test_a_pending_rekey_survives_a_restart(store: AnyStore) -> None:
    """A user logs out on many devices within a minute; the last rekeys are pending."""
    harness = TrackerHarness()
    alice = harness.user("alice")
    harness.group("lab", alice)
    for number in range(limits.REKEYS_MAX + 2):
        harness.user("alice", f"{number}").does(tracker.Logout())
    epoch = harness.state.groups["lab"].epoch  # type: ignore[index]
    store.commit(harness.changes)
    again = reopened(store)
    harness.context.state = again.load()
    harness.changes.clear()
    harness.wait(limits.REKEYS_S)
    alice.does(commands.Housekeep())
    again.commit(harness.changes)
    group = again.load().groups["lab"]  # type: ignore[index]
    assert group.epoch == epoch + 1
    assert not group.rekey_pending
    again.close()


def test_f104_each_share_of_the_third_schema_is_version_1_of_its_name(path: Path) -> None:
    """The user of the oldest offer may replace it."""
    key = {"content": b"c" * 32, "one": b"1" * 32, "two": b"2" * 32}
    with schema(path, "0003") as db:
        for statement in (
            "INSERT INTO accounts VALUES ('bob', 'h', 1)",
            "INSERT INTO groups VALUES ('lab', 'bob', 'topic', 'key', 7, 3, 1, NULL, false)",
            "INSERT INTO manifests VALUES (:content, 9, 5, 1, 1, 16384, 'blake3', x'64', 1)",
            "INSERT INTO shares VALUES ('lab', 'data', 'Data', :content, 5)",
            "INSERT INTO offers VALUES ('lab', 'data', 'bob', :one, 9)",
            "INSERT INTO offers VALUES ('lab', 'data', 'alice', :two, 6)",
        ):
            db.execute(sa.text(statement), key)
    store = SqliteStore(path)
    state = store.load()
    lab, share = state.groups[GroupId("lab")], ShareId(NameId("data"), 1)
    assert lab.names.by_id == {
        share.name: Name("Data", 1, 0, (Version(1, key["content"], "alice", 5, offered=True),))
    }
    assert lab.names.listed == ["data"]
    assert lab.shares[share].offers == {("alice", key["two"]): 6, ("bob", key["one"]): 9}
    store.close()
