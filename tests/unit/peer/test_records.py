"""Records of downloads and shares, and the store of manifests."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from common.errors import StorageError
from common.ids import ContentId, GroupId
from peer.records import DownloadRecord, Manifests, Records, SourceUse, record_key
from tests.support.waiting import PATIENCE_S, wait_for

FILMS, MUSIC = GroupId("films"), GroupId("music")
ONE, TWO = ContentId(b"1" * 32), ContentId(b"2" * 32)

MEANWHILE_S = 0.2  # time for another thread, which needs next to none unless a lock stops it


def record(**changed: Any) -> DownloadRecord:
    fields: dict[str, Any] = {
        "user": "bob",
        "group": "films",
        "name": "Größe.mkv",
        "content": ONE,
        "path": b"/caf\xe9/film",
        "size": 7,
        "digest": "00",
        "pick": "rarest",
        "started_ms": 1,
        "sources": [SourceUse("alice", "tcp://192.0.2.1:1", 3)],
    }
    return DownloadRecord(**(fields | changed))


class TestRecords:
    def test_records_survive_a_restart(self, tmp_path: Path) -> None:
        records = Records(tmp_path / "downloads", DownloadRecord)
        records.put("a", record())
        records.put("b", record(state="C"))
        records.put("b", record(state="P"))
        assert Records(tmp_path / "downloads", DownloadRecord).load() == {
            "a": record(),
            "b": record(state="P"),
        }
        records.remove("a")
        records.remove("a")
        assert set(records.load()) == {"b"}

    def test_an_unreadable_record_does_not_count_as_damaged(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        records = Records(tmp_path / "shares", DownloadRecord)
        records.put("a", record())

        def fail(_: Path) -> bytes:
            raise OSError(errno.EIO, "Input/output error")

        with monkeypatch.context() as broken:
            broken.setattr(Path, "read_bytes", fail)
            with pytest.raises(StorageError, match="Input/output"):
                records.load()
        assert records.load() == {"a": record()}

    def test_a_removal_is_synced(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        records = Records(tmp_path / "shares", DownloadRecord)
        records.put("a", record())
        synced: list[tuple[bool, list[str]]] = []
        fsync = os.fsync

        def note(fd: int) -> None:
            fsync(fd)
            of_folder = os.path.sameopenfile(fd, folder)
            synced.append((of_folder, os.listdir(tmp_path / "shares")))

        folder = os.open(tmp_path / "shares", os.O_RDONLY)
        monkeypatch.setattr(os, "fsync", note)
        records.remove("a")
        os.close(folder)
        assert synced == [(True, [])]

    @pytest.mark.parametrize("noise", [b"", b"noise", b"\x80", b"\xc1" * 100])
    def test_a_damaged_record_harms_no_other(self, tmp_path: Path, noise: bytes) -> None:
        records = Records(tmp_path / "downloads", DownloadRecord)
        records.put("good", record())
        records.put("bad", record())
        for suffix in (".record", ".copy"):
            (tmp_path / "downloads" / f"bad{suffix}").write_bytes(noise)
        assert records.load() == {"good": record()}
        assert (tmp_path / "downloads" / "bad.damaged").read_bytes() == noise
        assert records.load() == {"good": record()}

    @pytest.mark.parametrize("noise", [b"", b"noise", b"\x80"])
    def test_f80_a_lost_record_returns_from_its_copy(self, tmp_path: Path, noise: bytes) -> None:
        records = Records(tmp_path / "shares", DownloadRecord)
        records.put("a", record(state="D"))
        records.put("a", record())
        (tmp_path / "shares" / "a.record").write_bytes(noise)
        for _ in range(2):
            assert records.load() == {"a": record()}
        assert records.damaged == []
        (tmp_path / "shares" / "a.copy").write_bytes(noise)
        assert records.load() == {"a": record()}

    def test_a_copy_alone_restores_nothing(self, tmp_path: Path) -> None:
        records = Records(tmp_path / "shares", DownloadRecord)
        records.put("a", record())
        (tmp_path / "shares" / "a.record").unlink()
        assert records.load() == {}
        assert list((tmp_path / "shares").iterdir()) == []

    def test_half_written_records_of_a_crash_are_removed(self, tmp_path: Path) -> None:
        records = Records(tmp_path / "downloads", DownloadRecord)
        left = tmp_path / "downloads" / "x.record.0123456789abcdef.new"
        left.write_bytes(b"half")
        assert records.load() == {}
        assert not left.exists()

    def test_a_record_removed_during_its_write_does_not_return(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        records = Records(tmp_path / "downloads", DownloadRecord)
        remover = threading.Thread(target=records.remove, args=("a",))

        def put_in_place(old: Path, new: Path) -> None:
            if new.suffix == Records.SUFFIX:
                remover.start()
                remover.join(MEANWHILE_S)
            os.rename(old, new)

        monkeypatch.setattr(os, "replace", put_in_place)
        records.put("a", record())
        remover.join()
        assert records.load() == {}

    def test_changes_to_one_record_keep_their_order(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        records = Records(tmp_path / "downloads", DownloadRecord)
        states, done = ["D", "P", "D", "P", "C"], []
        go_on = threading.Event()

        def put_in_place(old: Path, new: Path) -> None:
            if new.name == "a.record":
                assert go_on.wait(PATIENCE_S)
                done.append(msgspec.msgpack.decode(old.read_bytes(), type=DownloadRecord).state)
            os.rename(old, new)

        monkeypatch.setattr(os, "replace", put_in_place)
        threads = []
        for state in states:
            thread = threading.Thread(target=records.put, args=("a", record(state=state)))
            thread.start()
            threads.append(thread)
            wait_for(lambda: len(records._turns["a"]) == len(threads))
        records.put("b", record())  # another one does not wait for these
        go_on.set()
        for thread in threads:
            thread.join()
        assert done == states
        assert not records._turns

    def test_a_key_depends_on_every_part(self) -> None:
        parts = [("a", "b"), ("ab", ""), ("", "ab"), ("a", "b", ""), ("b", "a")]
        assert len({record_key(*some) for some in parts}) == len(parts)
        assert record_key("caf\udce9") != record_key("café")

    def test_putting_a_damaged_manifest_again_mends_it(self, tmp_path: Path) -> None:
        manifests = Manifests(tmp_path / "manifests")
        manifests.put(ONE, b"encoded")
        (path,) = (tmp_path / "manifests").iterdir()
        path.write_bytes(b"encodex")
        manifests.put(ONE, b"encoded")
        assert manifests.get(ONE) == b"encoded"

    def test_unused_manifests_are_removed(self, tmp_path: Path) -> None:
        manifests = Manifests(tmp_path / "manifests")
        for content in (ONE, TWO):
            manifests.put(content, bytes(content))
        left = tmp_path / "manifests" / f"{ONE.hex()}.manifest.0123456789abcdef.new"
        left.write_bytes(b"half")
        manifests.keep_only({ONE})
        assert manifests.get(ONE) == ONE
        assert manifests.get(TWO) is None
        assert not left.exists()

    def test_recent_manifests_are_spared(self, tmp_path: Path) -> None:
        manifests = Manifests(tmp_path / "manifests")
        three = ContentId(b"3" * 32)
        for content in (ONE, TWO, three):
            manifests.put(content, bytes(content))
            os.utime(tmp_path / "manifests" / f"{content.hex()}.manifest", (1, 1))
        manifests.put(TWO, bytes(TWO))  # its record is not written yet
        manifests.keep_only({ONE}, 3600.0)
        assert [manifests.get(c) for c in (ONE, TWO, three)] == [ONE, TWO, None]

    def test_the_wanted_set_is_iterated_once(self, tmp_path: Path) -> None:
        class Wanted(set[ContentId]):
            rounds = 0

            def __iter__(self) -> Iterator[ContentId]:
                self.rounds += 1
                return super().__iter__()

        manifests = Manifests(tmp_path / "manifests")
        wanted = Wanted(ContentId(bytes([number]) * 32) for number in range(20))
        for content in wanted:
            manifests.put(content, b"")
        wanted.rounds = 0
        manifests.keep_only(wanted)
        assert wanted.rounds == 1
        assert all(manifests.get(content) == b"" for content in wanted)

    def test_two_threads_can_put_the_same_manifest(self, tmp_path: Path) -> None:
        manifests = Manifests(tmp_path / "manifests")
        body = os.urandom(1 << 20)
        with ThreadPoolExecutor(2) as threads:
            for number in range(20):
                content = ContentId(bytes([number]) * 32)
                for put in [threads.submit(manifests.put, content, body) for _ in range(2)]:
                    put.result()
                assert manifests.get(content) == body
