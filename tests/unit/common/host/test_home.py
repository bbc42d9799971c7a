"""Homes, their locks, and atomic writes."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from common.errors import ConfigError, StorageError
from common.host.atomic_files import atomic_write, remove_temp_files
from common.host.clock import TrackerTime, wall_ms
from common.host.home import HomeBusy, HomeLock, lock_holder, open_home
from tests.support.paths import ROOT
from tests.support.waiting import PATIENCE_S


class TestHomes:
    def test_a_home_is_made_for_its_owner_alone(self, tmp_path: Path) -> None:
        home = open_home(tmp_path / "deep" / "home")
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        assert home.is_absolute()
        assert open_home(home) == home

    @pytest.mark.parametrize("mode", [0o750, 0o705, 0o711, 0o777])
    def test_a_home_that_others_can_read_is_refused(self, tmp_path: Path, mode: int) -> None:
        home = tmp_path / "home"
        home.mkdir()
        home.chmod(mode)
        with pytest.raises(ConfigError) as caught:
            open_home(home)
        assert caught.value.hint == f"close it: chmod 700 {home}"

    def test_a_home_that_is_no_directory_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(ConfigError, match="not a directory"):
            open_home(tmp_path / "file")
        with pytest.raises(StorageError):
            open_home(tmp_path / "file" / "home")

    def test_a_link_is_followed_and_what_it_leads_to_is_judged(self, tmp_path: Path) -> None:
        # A service manager keeps the real directory elsewhere and puts a link in its place.
        (tmp_path / "private").mkdir(mode=0o700)
        (tmp_path / "open").mkdir(mode=0o755)
        (tmp_path / "link").symlink_to(tmp_path / "private")
        (tmp_path / "leak").symlink_to(tmp_path / "open")
        assert open_home(tmp_path / "link") == tmp_path / "private"
        with pytest.raises(ConfigError, match="other users can look"):
            open_home(tmp_path / "leak")

    @pytest.mark.parametrize("depth", [1, 3])
    @pytest.mark.parametrize("there", [False, True])
    def test_h90_a_home_in_a_folder_that_all_may_write_to_is_refused(
        self, tmp_path: Path, depth: int, there: bool
    ) -> None:
        shared = tmp_path / "shared"
        home = shared.joinpath(*["f"] * depth)
        home.mkdir(parents=True)
        home.chmod(0o700)
        if not there:
            home.rmdir()
        shared.chmod(0o777)
        with pytest.raises(ConfigError, match="to which all users may write") as caught:
            open_home(home)
        assert caught.value.hint == f"chmod o-w {shared}"
        assert home.exists() == there, "nothing is made there"
        shared.chmod(0o1777)
        assert open_home(home) == home, "with the sticky bit only owners rename"

    def test_h90_so_is_one_behind_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "shared" / "home").mkdir(parents=True, mode=0o700)
        (tmp_path / "shared").chmod(0o777)
        (tmp_path / "link").symlink_to(tmp_path / "shared" / "home")
        with pytest.raises(ConfigError, match="to which all users may write"):
            open_home(tmp_path / "link")

    def test_h90_a_home_in_another_users_folder_is_refused(self, tmp_path: Path) -> None:
        if os.geteuid() != 0:
            pytest.skip("NOT SHOWN HERE: another user's folder needs root")
        theirs = tmp_path / "theirs"
        (theirs / "home").mkdir(parents=True, mode=0o700)
        os.chown(theirs, 12_345, 12_345)
        for home in (theirs / "home", theirs / "new"):
            with pytest.raises(ConfigError, match="which belongs to another user"):
                open_home(home)
        assert not (theirs / "new").exists()

    def test_h90_folders_made_above_a_home_are_private_with_any_umask(self, tmp_path: Path) -> None:
        before = os.umask(0)
        try:
            open_home(tmp_path / "a" / "b" / "home")
        finally:
            os.umask(before)
        for made in ("a", "a/b", "a/b/home"):
            assert stat.S_IMODE((tmp_path / made).stat().st_mode) == 0o700


class TestLocks:
    def test_one_process_at_a_time(self, tmp_path: Path) -> None:
        assert lock_holder(tmp_path) is None
        lock = HomeLock(tmp_path)
        assert lock_holder(tmp_path) == os.getpid()
        with pytest.raises(HomeBusy):
            HomeLock(tmp_path)
        lock.release()
        assert lock_holder(tmp_path) is None
        HomeLock(tmp_path).release()

    def test_a_lock_that_cannot_be_written_is_named_and_free(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch, pytest.raises(StorageError, match="lock: No space"):
            patch.setattr(os, "write", full)
            HomeLock(tmp_path)
        HomeLock(tmp_path).release()

    def test_a_lock_ends_with_its_process(self, tmp_path: Path) -> None:
        code = (
            "import sys; from pathlib import Path; from common.host.home import HomeLock\n"
            "HomeLock(Path(sys.argv[1])); print('locked', flush=True); sys.stdin.read()"
        )
        with subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"locked\n"
            assert lock_holder(tmp_path) == process.pid
            process.kill()
        assert lock_holder(tmp_path) is None

    def test_a_number_left_in_the_file_is_no_lock(self, tmp_path: Path) -> None:
        (tmp_path / "lock").write_text("1\n")
        assert lock_holder(tmp_path) is None


class TestFilesWrittenWhole:
    def test_the_new_content_replaces_the_old(self, tmp_path: Path) -> None:
        path = tmp_path / "record"
        for content in (b"old and long", b"new"):
            atomic_write(path, content)
            assert path.read_bytes() == content
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert [entry.name for entry in tmp_path.iterdir()] == ["record"]

    def test_threads_that_write_the_same_file_do_not_meet(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        both_are_written = threading.Barrier(2)

        def meet(old: Path, new: Path) -> None:
            both_are_written.wait(PATIENCE_S)
            os.rename(old, new)

        monkeypatch.setattr(os, "replace", meet)
        contents = [b"1" * 100, b"2" * 100]
        with ThreadPoolExecutor(2) as threads:
            writes = [threads.submit(atomic_write, tmp_path / "record", one) for one in contents]
        for write in writes:
            write.result()
        assert (tmp_path / "record").read_bytes() in contents
        assert [entry.name for entry in tmp_path.iterdir()] == ["record"]

    def test_leftovers_of_a_crash_do_no_harm_and_are_removed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "mine.new").write_bytes(b"a name that another user chose")
        self.crash_while_writing(tmp_path / "record", monkeypatch)
        atomic_write(tmp_path / "record", b"whole")
        assert len(list(tmp_path.iterdir())) == 3
        remove_temp_files(tmp_path)
        assert {entry.name for entry in tmp_path.iterdir()} == {"mine.new", "record"}
        assert (tmp_path / "record").read_bytes() == b"whole"

    def test_leftovers_are_removed_when_a_process_locks_a_home(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.crash_while_writing(tmp_path / "device.key", monkeypatch)
        lock = HomeLock(tmp_path)
        assert [entry.name for entry in tmp_path.iterdir()] == ["lock"]
        # One that is refused may be beside a process that is writing.
        self.crash_while_writing(tmp_path / "device.key", monkeypatch)
        with pytest.raises(HomeBusy):
            HomeLock(tmp_path)
        assert len(list(tmp_path.iterdir())) == 2
        lock.release()

    @staticmethod
    def crash_while_writing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        before = set(path.parent.iterdir())
        with monkeypatch.context() as dead:
            for name in ("replace", "unlink"):
                dead.setattr(os, name, lambda *_, **__: None)
            atomic_write(path, b"half of it")
        assert len(set(path.parent.iterdir()) - before) == 1
        assert path not in path.parent.iterdir()

    def test_a_link_planted_for_the_temporary_name_is_not_followed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "urandom", bytes)
        self.crash_while_writing(tmp_path / "record", monkeypatch)
        (planted,) = tmp_path.iterdir()
        planted.unlink()
        (tmp_path / "victim").write_bytes(b"mine")
        planted.symlink_to(tmp_path / "victim")
        with pytest.raises(StorageError):
            atomic_write(tmp_path / "record", b"whole")
        assert (tmp_path / "victim").read_bytes() == b"mine"
        remove_temp_files(tmp_path)
        assert [entry.name for entry in tmp_path.iterdir()] == ["victim"]

    @pytest.mark.parametrize("call", ["fsync", "replace"])
    def test_a_failure_leaves_the_old_content_and_nothing_else(
        self, call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "record"
        atomic_write(path, b"old")

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as disk:
            disk.setattr(os, call, full)
            with pytest.raises(StorageError, match="No space left"):
                atomic_write(path, b"new")
        assert path.read_bytes() == b"old"
        assert [entry.name for entry in tmp_path.iterdir()] == ["record"]
        with pytest.raises(StorageError):
            atomic_write(tmp_path / "missing" / "record", b"")


class TestTrackerTime:
    def test_before_the_first_reply_the_own_clock_is_used(self) -> None:
        time = TrackerTime(lambda: 5.0)
        before = wall_ms()
        assert before <= time.now_ms() <= wall_ms()
        assert not time.known

    def test_it_runs_on_by_the_monotonic_clock(self) -> None:
        now = 100.0
        time = TrackerTime(lambda: now)
        time.learn(1_000_000, sent_at=99.8, received_at=100.2)
        assert time.known
        assert time.now_ms() == 1_000_000
        now = 160.5
        assert time.now_ms() == 1_060_500

    def test_the_shortest_round_trip_counts(self) -> None:
        time = TrackerTime(lambda: 100.0)
        time.learn(1_000_000, sent_at=99.9, received_at=100.1)
        time.learn(1_004_000, sent_at=95.0, received_at=105.0)
        assert time.now_ms() == 1_000_000
        time.learn(1_000_050, sent_at=99.99, received_at=100.01)
        assert time.now_ms() == 1_000_050

    @pytest.mark.parametrize("jump_ms", [-3_600_000, 3_600_000])
    def test_a_clock_that_was_set_is_believed(self, jump_ms: int) -> None:
        time = TrackerTime(lambda: 100.0)
        time.learn(9_000_000, sent_at=99.99, received_at=100.01)
        time.learn(9_000_000 + jump_ms, sent_at=99.0, received_at=101.0)
        assert time.now_ms() == 9_000_000 + jump_ms

    def test_an_old_estimate_ages(self) -> None:
        time = TrackerTime(lambda: 100.0)
        time.learn(1_000_000, sent_at=100.0, received_at=100.1)
        for _ in range(100):
            time.learn(1_001_500, sent_at=99.0, received_at=101.0)
        assert abs(time.now_ms() - 1_001_500) <= 1

    def test_a_clock_that_was_set_is_believed_at_once(self) -> None:
        time = TrackerTime(lambda: 100.0)
        time.learn(10_000_000, sent_at=100.0, received_at=100.001)
        time.learn(6_400_000, sent_at=99.0, received_at=101.0)
        assert time.now_ms() == 6_400_000
