"""Moves between SQLite and PostgreSQL, backups of either, and the keys that trackers share."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from common.crypto.signing_keys import NEXT_KEY, marks
from common.errors import ConfigError, MiniTorrentError, StorageError
from common.ids import GroupId
from tests.support.postgres import shared_server
from tests.support.tracker_harness import TrackerHarness
from tracker.admin import moving
from tracker.admin.backup import back_up, restore
from tracker.admin.database_choice import REMEMBERED, chosen, open_shared, open_store, remember
from tracker.admin.home import KEY_FILES, SIGNING_KEY, Home
from tracker.admin.rotation import rotate
from tracker.core.state import State
from tracker.store import tables
from tracker.store.cluster_rows import TrackerRow
from tracker.store.cluster_tables import ClusterTables
from tracker.store.sqlite_store import SqliteStore

Opened = Callable[[str], Home]


@pytest.fixture
def home_at(tmp_path: Path) -> Opened:
    def make(name: str) -> Home:
        (tmp_path / name).mkdir(mode=0o700)
        home = Home(tmp_path / name)
        home.secrets()
        return home

    return make


def town(home: Home) -> TrackerHarness:
    """Fill the database of ``home``; return what it holds."""
    harness = TrackerHarness()
    alice, bob = harness.user("alice"), harness.user("bob")
    harness.group("lab", alice, bob)
    alice.offers("lab", "a", harness.content("a"))
    store = SqliteStore(home.database)
    store.tracker_id(b"1" * 16)
    store.commit(harness.changes)
    store.close()
    return harness


def same(found: State, expected: State) -> bool:
    names = ("accounts", "devices", "groups", "offers_of", "manifests", "receipts")
    return all(getattr(found, name) == getattr(expected, name) for name in names)


def test_a_tracker_moves_to_postgresql_and_keeps_its_keys(home_at: Opened) -> None:
    home = home_at("home")
    harness, url = town(home), shared_server().database()
    keys = {name: (home.path / name).read_bytes() for name in KEY_FILES}
    rows, aside = moving.migrate_to(home, url)
    assert rows > 10
    assert not home.database.exists()
    assert aside.exists()
    assert keys == {name: (home.path / name).read_bytes() for name in KEY_FILES}
    assert stat.S_IMODE((home.path / REMEMBERED).stat().st_mode) == 0o600
    store = open_store(home, chosen(home.path, None), home.secrets(), lambda: False)
    assert same(store.load(), harness.state)
    assert store.tracker_id(b"2" * 16) == b"1" * 16
    store.close()
    with pytest.raises(ConfigError, match="already"):
        moving.migrate_to(home, url)


def test_a_database_that_is_not_empty_is_left_alone(home_at: Opened) -> None:
    home, other = home_at("home"), home_at("other")
    url = shared_server().database()
    town(home)
    town(other)
    moving.migrate_to(home, url)
    with pytest.raises(ConfigError, match="not empty"):
        moving.migrate_to(other, url)
    assert other.database.exists()
    assert chosen(other.path, None) is None


def test_a_backup_of_postgresql_is_restored_into_either(home_at: Opened, tmp_path: Path) -> None:
    home, backup = home_at("home"), tmp_path / "backup.db"
    harness = town(home)
    moving.migrate_to(home, shared_server().database())
    back_up(home.path, backup)
    with sqlite3.connect(backup) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        for table in tables.SHARED_ALONE:
            assert db.execute(f"SELECT count(*) FROM {table.name}").fetchone() == (0,)
    for name, url in (("file", None), ("shared", shared_server().database())):
        fresh = home_at(name)
        for key in KEY_FILES:
            (fresh.path / key).unlink()
        restore(fresh, backup, url)
        store = open_store(fresh, chosen(fresh.path, None), fresh.secrets(), lambda: False)
        state = store.load()
        assert state.accounts == harness.state.accounts
        assert state.groups[GroupId("lab")].seq > 1 << 20
        assert fresh.secrets().pair == home.secrets().pair
        store.close()


def test_trackers_with_other_keys_are_refused_and_join_by_a_file(
    home_at: Opened, tmp_path: Path
) -> None:
    first, second, file = home_at("first"), home_at("second"), tmp_path / "keys.json"
    url = shared_server().database()
    open_store(first, url, first.secrets(), lambda: False).close()
    with pytest.raises(ConfigError, match="other keys"):
        open_store(second, url, second.secrets(), lambda: False)
    moving.export_keys(first.path, file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with pytest.raises(StorageError, match="already exists") as found:
        moving.export_keys(first.path, file)
    assert found.value.hint == f"replace it: mini-torrent-tracker export-keys --replace {file}"
    moving.join(second, file)
    assert second.secrets().pair == first.secrets().pair
    open_store(second, url, second.secrets(), lambda: False).close()


def test_join_keeps_the_keys_of_a_tracker_with_a_database(home_at: Opened, tmp_path: Path) -> None:
    first, second, file = home_at("first"), home_at("second"), tmp_path / "keys.json"
    moving.export_keys(first.path, file)
    town(second)
    before = second.secrets().pair
    with pytest.raises(ConfigError, match="other keys"):
        moving.join(second, file)
    assert second.secrets().pair == before


def test_f172_the_key_for_tickets_is_rotated_while_other_trackers_serve(
    home_at: Opened, tmp_path: Path
) -> None:
    """At no step is there a tracker that signs with a key that another one does not know."""
    url = shared_server().database()
    open_shared(url).close()
    one, two, old, new = home_at("one"), home_at("two"), tmp_path / "old", tmp_path / "new"
    moving.export_keys(one.path, old)
    moving.join(two, old)
    for home in (one, two):
        remember(home.path, url)

    def step(home: Home, *, at_once: bool = False) -> int | None:
        return rotate(home.path / SIGNING_KEY, url, at_once=at_once)

    former = one.secrets().signing
    with serving(url, two):
        for _ in range(2):  # also if the first call was interrupted
            assert (one.path / NEXT_KEY).exists() or step(one) is None
            assert one.secrets().signing[:-1] == former
            with pytest.raises(ConfigError, match="cannot check tickets"):
                step(one)
        with pytest.raises(ConfigError, match="1 other tracker would go on"):
            step(one, at_once=True)
    moving.export_keys(one.path, new)
    with serving(url, one):
        moving.join(two, new)
        open_store(two, url, two.secrets(), lambda: False).close()
    with serving(url, two):
        assert step(one) == 2
        open_store(one, url, one.secrets(), lambda: False).close()
    with serving(url, one):
        assert step(two) == 2
    assert one.secrets().signing == two.secrets().signing != former
    assert one.secrets().signing[1:] == former
    with serving(url, one):
        moving.join(two, old)
        with pytest.raises(ConfigError, match="does not have"):
            open_store(two, url, two.secrets(), lambda: False)
        with pytest.raises(ConfigError, match="does not have"):
            step(two)
    assert step(one, at_once=True) == 1
    with serving(url, two), pytest.raises(ConfigError, match="does not have"):
        open_store(one, url, one.secrets(), lambda: False)


@contextmanager
def serving(url: str, home: Home) -> Iterator[None]:
    """A tracker with the keys of ``home`` serves the database."""
    tables = ClusterTables(url)
    tables.connect()
    keys = marks(home.secrets().signing)
    tables.beat(TrackerRow(b"t" * 16, b"", "tcp://192.0.2.1:5000", "1", 1, 0, 0, keys=keys))
    try:
        yield
    finally:
        tables.forget([b"t" * 16])
        tables.close()


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\x00", b"x" * 100_000])
def test_a_file_without_keys_changes_nothing(
    home_at: Opened, tmp_path: Path, content: bytes
) -> None:
    home, file = home_at("home"), tmp_path / "keys.json"
    file.write_bytes(content)
    before = home.secrets().pair
    with pytest.raises(MiniTorrentError, match="not a file of keys"):
        moving.join(home, file)
    assert home.secrets().pair == before


def test_a_damaged_key_changes_nothing(home_at: Opened, tmp_path: Path) -> None:
    first, second, file = home_at("first"), home_at("second"), tmp_path / "keys.json"
    moving.export_keys(first.path, file)
    file.write_text(file.read_text().replace('key": "', 'key": "AAAA'))
    before = second.secrets().pair
    with pytest.raises(MiniTorrentError, match="not a file of keys"):
        moving.join(second, file)
    assert second.secrets().pair == before


def test_a_home_has_one_database(home_at: Opened) -> None:
    home = home_at("home")
    town(home)
    with pytest.raises(ConfigError, match="a database of its own"):
        open_store(home, shared_server().database(), home.secrets(), lambda: False)
    remember(home.path, shared_server().database())
    with pytest.raises(ConfigError, match="a database of its own"):
        open_store(home, chosen(home.path, None), home.secrets(), lambda: False)


def test_an_empty_shared_database_is_made_by_the_first_tracker() -> None:
    url = shared_server().database()
    store = open_shared(url)
    assert store.load().accounts == {}
    store.close()
