"""Restores of backups, on a disk that may lose unsynced writes."""

from __future__ import annotations

import os
import shutil
import sqlite3
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from common import limits
from common.errors import StorageError
from common.ids import GroupId, UserId
from common.messages.operator import Registration
from tracker.admin import backup, staged_restore
from tracker.admin.backup import back_up, restore
from tracker.admin.doctor import examine
from tracker.admin.findings import Health
from tracker.admin.home import KEY_FILES, Home
from tracker.admin.staged_restore import DATABASE
from tracker.core.changes.accounts import AccountCreated, AccountDisabled, RegistrationSet
from tracker.core.changes.groups import GroupCreated
from tracker.core.changes.invitations import InvitationMade, InvitationUsed
from tracker.core.records import Group
from tracker.store.sqlite_store import SqliteStore


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A backup of a tracker that knows alice."""
    home = Home(tmp_path / "home")
    home.secrets()
    store = SqliteStore(home.database)
    store.commit([AccountCreated("alice", "h", 1)])
    store.close()
    back_up(home.path, tmp_path / "copy")
    home.release()
    return tmp_path / "copy"


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Home]:
    """The home of another machine."""
    home = Home(tmp_path / "fresh")
    yield home
    home.release()


class Disk:
    """Records the content of each file, and the names in the home, as of the last sync.

    That is what a loss of power would leave.
    """

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.contents: dict[int, bytes] = {}
        self.names: dict[str, int] = {}
        self._home = home
        self._fsync = os.fsync
        monkeypatch.setattr(os, "fsync", self.fsync)

    def fsync(self, fd: int) -> None:
        self._fsync(fd)
        path = Path(os.readlink(f"/proc/self/fd/{fd}"))
        if path == self._home:
            self.names = {each.name: each.stat().st_ino for each in path.iterdir()}
        elif path.is_file():
            self.contents[path.stat().st_ino] = path.read_bytes()

    def kept(self, name: str) -> bytes | None:
        return self.contents.get(self.names.get(name, 0))


def test_restored_keys_are_durable_before_the_database(
    copy: Path, fresh: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the database and without its keys, the next start would be that of another tracker."""
    disk = Disk(fresh.path, monkeypatch)
    keys = {name: (copy.with_name("home") / name).read_bytes() for name in KEY_FILES}
    before: list[dict[str, bytes | None]] = []
    replace = os.replace

    def noting(source: Any, target: Any) -> None:
        if Path(target) == fresh.database:
            before.append({name: disk.kept(name) for name in KEY_FILES})
        replace(source, target)

    monkeypatch.setattr(os, "replace", noting)
    assert restore(fresh, copy) is None
    assert before == [keys]
    assert {name: disk.kept(name) for name in KEY_FILES} == keys
    assert disk.names[fresh.database.name] == fresh.database.stat().st_ino
    store = SqliteStore(fresh.database)
    assert list(store.load().accounts) == ["alice"]
    store.close()


def test_a_partly_written_key_is_restored_by_the_next_attempt(
    copy: Path, fresh: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", _full)
        with pytest.raises(StorageError, match="No space left"):
            restore(fresh, copy)
    assert not [name for name in KEY_FILES if (fresh.path / name).exists()]
    restore(fresh, copy)
    for name in KEY_FILES:
        path = fresh.path / name
        assert path.read_bytes() == (copy.with_name("home") / name).read_bytes()
        assert path.stat().st_mode & 0o777 == 0o600


def _full(_: int) -> None:
    raise OSError(28, "No space left on device")


def test_existing_keys_of_the_home_stay(copy: Path, fresh: Home) -> None:
    own = fresh.secrets()
    restore(fresh, copy)
    assert fresh.secrets() == own


def test_a_busy_tracker_is_copied_in_one_snapshot(
    tmp_path: Path, fresh: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tracker commits after each step of the copy; the copy has none of these commits."""
    database = tmp_path / "busy" / DATABASE
    database.parent.mkdir()
    store = SqliteStore(database)
    store.commit([AccountCreated(f"user{n:05}", "h" * 200, n) for n in range(2_000)])
    steps: list[int] = []

    class Stepping(sqlite3.Connection):
        def backup(self, target: sqlite3.Connection, **_: Any) -> None:
            def written(*_: int) -> None:
                assert len(steps) < 1_000, "the copy begins anew after each commit"
                store.commit([AccountCreated(f"late{len(steps)}", "h", 1)])
                steps.append(0)

            super().backup(target, pages=32, progress=written)

    connect = sqlite3.connect
    with monkeypatch.context() as patch:
        patch.setattr(
            sqlite3, "connect", lambda *args, **kw: connect(*args, factory=Stepping, **kw)
        )
        back_up(database.parent, tmp_path / "copy of it")
    assert len(steps) > 3
    assert len(store.load().accounts) == 2_000 + len(steps)
    store.close()
    restore(fresh, tmp_path / "copy of it")
    copied = SqliteStore(fresh.database)
    assert len(copied.load().accounts) == 2_000
    copied.close()


def lab(home: Home) -> Group:
    store = SqliteStore(home.database)
    group = store.load().groups[GroupId("lab")]
    store.close()
    return group


def test_a_restore_repeats_no_number_that_peers_have_seen(
    copy: Path, fresh: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No number used after the backup, or after an earlier restore of it, is repeated."""
    home = copy.with_name("home")
    store = SqliteStore(home / DATABASE)
    store.commit([GroupCreated(GroupId("lab"), UserId("alice"), b"t" * 16, b"k" * 32, 7, 3, 1)])
    store.close()
    back_up(home, copy, replace=True)
    numbers, keys = [(7, 3)], {b"k" * 32}
    for now_ms in (0, 2_000_000_000_000, 2_000_000_000_000 + 3_600_000, 1 << 50):
        monkeypatch.setattr(backup, "wall_ms", lambda at=now_ms: at)
        restore(fresh, copy)
        group = lab(fresh)
        assert group.seq > numbers[-1][0] + 5_000
        assert group.epoch > numbers[-1][1] + 500
        assert group.key not in keys
        numbers.append((group.seq, group.epoch))
        keys.add(group.key)
    assert numbers[-1][1] < 1 << 32  # it has four bytes on the wire


def test_a_backup_from_before_invitations_is_restored(copy: Path, fresh: Home) -> None:
    with closing(sqlite3.connect(copy)) as old:
        old.execute(
            "INSERT INTO groups (group_id, owner, topic, event_key, seq, epoch, at_ms)"
            " SELECT 'lab', user_id, x'01', x'02', 7, 3, 1 FROM accounts LIMIT 1"
        )
        old.execute("DROP TABLE invitations")
        old.commit()
    restore(fresh, copy)
    with closing(sqlite3.connect(fresh.database)) as restored:
        seq, epoch, key = restored.execute("SELECT seq, epoch, event_key FROM groups").fetchone()
    assert (seq > 7, epoch > 3, len(key)) == (True, True, limits.EVENT_KEY_BYTES)


# -- interrupted--------------------------------------------------------------------------------


def dies_after(steps: int, work: Callable[[], object]) -> bool:
    """Do ``work`` in a process that is killed after ``steps`` calls that change files.

    Return whether it ended before ``work`` was done.
    """
    pid = os.fork()
    if pid == 0:
        left = [steps]

        def dying(call: Callable[..., Any]) -> Callable[..., Any]:
            def counted(*args: Any, **kw: Any) -> Any:
                if not left[0]:
                    os._exit(9)
                left[0] -= 1
                return call(*args, **kw)

            return counted

        try:
            for name in ("replace", "unlink", "fsync"):
                setattr(os, name, dying(getattr(os, name)))
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, 9)
    return code == 9


def accounts(path: Path) -> list[str]:
    store = SqliteStore(path)
    found = sorted(store.load().accounts)
    store.close()
    return found


@pytest.fixture
def killed(copy: Path, tmp_path: Path) -> Path:
    """Home of a killed tracker; bob was created after the backup and is only in the journal."""
    store = SqliteStore(copy.with_name("home") / DATABASE)
    store.commit([AccountCreated("bob", "h", 1)])
    home = shutil.copytree(copy.with_name("home"), tmp_path / "killed")
    home.chmod(0o700)
    store.close()
    assert (home / f"{DATABASE}-wal").stat().st_size
    return home


def test_f26_an_interrupted_restore_has_not_happened_or_is_finished(
    copy: Path, killed: Path, tmp_path: Path
) -> None:
    """Restore and its repetitions are killed at each step; the databases are never mixed."""
    warm = shutil.copytree(killed, tmp_path / "warm")
    warm.chmod(0o700)
    restore(Home(warm), copy)  # imports what each forked process would import again
    found, steps, cut = [], 0, True
    while cut:
        home = shutil.copytree(killed, tmp_path / f"{steps}")
        home.chmod(0o700)
        cut = dies_after(steps, lambda at=home: restore(Home(at), copy))  # type: ignore[misc]
        more = 0
        while dies_after(more, lambda at=home: Home(at).release()):  # type: ignore[misc]
            more += 1
        Home(home).release()
        found.append(accounts(home / DATABASE))
        if found[-1] == ["alice"]:
            (former,) = {
                each.name.removesuffix("-wal") for each in home.glob(f"{DATABASE}.before-*")
            }
            assert accounts(home / former) == ["alice", "bob"]
        assert not [each.name for each in home.iterdir() if "part" in each.name]
        shutil.rmtree(home)
        steps += 1
    both = [["alice", "bob"], ["alice"]]
    assert [each for index, each in enumerate(found) if each not in found[:index]] == both
    assert found == sorted(found, key=len, reverse=True)


def test_f26_a_backup_finishes_an_interrupted_restore_first(copy: Path, killed: Path) -> None:
    """It is the only command that does not lock the home."""
    steps = 0
    while not staged_restore.pending(killed):
        assert dies_after(steps, lambda: restore(Home(killed), copy))
        steps += 1
    (finding,) = [each for each in examine(killed, "ipc:///x") if each.subject == "database"]
    assert finding.health is Health.WARNING
    assert "interrupted" in finding.text
    assert staged_restore.pending(killed)
    back_up(killed, copy.with_name("second"))
    assert not staged_restore.pending(killed)
    assert accounts(copy.with_name("second")) == ["alice"]


def test_f26_the_old_journal_is_durably_removed_before_the_restored_database_comes(
    copy: Path, killed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without syncs a disk may keep renames in any order after a loss of power."""
    home = Home(killed)
    disk, replace = Disk(killed, monkeypatch), os.replace
    seen: list[list[str]] = []

    def noting(source: Any, target: Any) -> None:
        if Path(target) == home.database:
            seen.append(sorted(name for name in disk.names if name.startswith(DATABASE)))
            assert disk.kept(Path(source).name) == Path(source).read_bytes()
        replace(source, target)

    monkeypatch.setattr(os, "replace", noting)
    former = restore(home, copy)
    assert former is not None
    (names,) = seen
    assert names[:2] == [former.name, f"{former.name}-wal"]
    assert [name for name in names[2:] if ".next-" not in name] == []
    home.release()


def test_f115_a_restore_ends_all_invitations(tmp_path: Path) -> None:
    """One that was used up, or revoked, after the backup is open in the backup."""
    home = Home(tmp_path / "home")
    home.secrets()
    store = SqliteStore(home.database)
    lab = GroupCreated(GroupId("lab"), UserId("alice"), b"t" * 16, b"k" * 32, 0, 1, 1)
    made = InvitationMade(GroupId("lab"), b"h" * 32, UserId("alice"), 1, 1 << 50, 1)
    closed = RegistrationSet(Registration.CLOSED)
    out = AccountDisabled(UserId("bob"), True)
    store.commit(
        [AccountCreated("alice", "h", 1), AccountCreated("bob", "h", 1), out, lab, made, closed]
    )
    back_up(home.path, tmp_path / "copy")
    store.commit([InvitationUsed(GroupId("lab"), b"h" * 32)])
    store.close()
    restore(home, tmp_path / "copy")
    store = SqliteStore(home.database)
    state = store.load()
    assert (state.invited_by, state.groups[GroupId("lab")].invitations) == ({}, {})
    assert state.registration is Registration.CLOSED
    assert [user for user, each in state.accounts.items() if each.disabled] == ["bob"]
    store.close()
    home.release()
