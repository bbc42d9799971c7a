"""Downloads that take pieces from local files."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from common.ids import ContentId
from common.manifest import Manifest, encode, manifest_id
from common.messages import control
from peer.downloads import piece_writer, reuse
from peer.files import sharing
from peer.files.errors import AlreadyExists, DiskFull, Unreadable
from peer.files.partial_content import PartialContent
from peer.records import DownloadRecord, ShareRecord
from tests.support.peer_fakes import turns, until
from tests.support.waiting import PATIENCE_S
from tests.unit.peer.downloads.test_lifecycle import ALICE, PIECE, Stage


@pytest.mark.parametrize("pieces", [8])
async def test_pieces_of_named_files_are_taken_before_a_source_is_asked(
    tmp_path: Path, stage: Stage
) -> None:
    downloads = await stage.start()
    old = tmp_path / "old" / "film"
    old.parent.mkdir()
    old.write_bytes(b"x" * PIECE + stage.data[PIECE:])
    command = control.DownloadFile("films", "film", str(stage.place), reuse=[str(old.parent)])
    key = await downloads.begin(command, lambda _: None)
    job = downloads._jobs[key]
    await until(lambda: job.part is not None and job.part.held_count == 7)
    await until(lambda: job.transfer is not None and not job.transfer.copying)
    assert job.transfer is not None
    assert not job.transfer.part.has(0)
    assert list(job.transfer._core.pieces.held) == list(range(1, 8))
    job.part.write_piece(0, stage.piece(0))
    await downloads.deactivate()
    # The rest of a resumed download is looked for as well, and the last piece ends it.
    old.write_bytes(stage.data)
    await downloads.activate(ALICE)
    await until(lambda: job.complete)
    assert stage.path.read_bytes() == stage.data


@pytest.mark.parametrize("pieces", [8])
async def test_f107_a_full_disk_pauses_a_download_that_reuses_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: Stage
) -> None:
    monkeypatch.setattr(piece_writer, "STORAGE_RETRY_S", 0.01)
    monkeypatch.setattr(reuse, "STORAGE_RETRY_S", 0.01)
    downloads = await stage.start()
    (tmp_path / "old").write_bytes(stage.data)
    real, full = PartialContent.write_run, [True]

    def write_run(self: PartialContent, first: int, *rest: Any) -> set[int]:
        if full[0] and first > 3:
            raise DiskFull("no space left")
        return real(self, first, *rest)

    monkeypatch.setattr(PartialContent, "write_run", write_run)
    command = control.DownloadFile("films", "film", str(stage.place), reuse=[str(tmp_path / "old")])
    job = downloads._jobs[await downloads.begin(command, lambda _: None)]
    await until(lambda: job.record.reason == "no space left")
    assert job.record.state == "P"
    full[0] = False
    await until(lambda: job.complete)
    assert stage.path.read_bytes() == stage.data


@pytest.mark.parametrize("pieces", [32])
async def test_a_pause_of_the_user_ends_the_search_and_a_resume_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: Stage
) -> None:
    downloads = await stage.start()
    (tmp_path / "old").write_bytes(stage.data)
    real, gate = PartialContent.write_run, threading.Event()

    def write_run(self: PartialContent, first: int, *rest: Any) -> set[int]:
        if first > 5:
            gate.wait(PATIENCE_S)
        return real(self, first, *rest)

    monkeypatch.setattr(PartialContent, "write_run", write_run)
    command = control.DownloadFile("films", "film", str(stage.place), reuse=[str(tmp_path / "old")])
    job = downloads._jobs[await downloads.begin(command, lambda _: None)]
    await until(lambda: job.part is not None and job.part.held_count >= 5)
    await downloads.pause("films", "film")
    gate.set()
    await turns()
    assert job.part is not None
    assert not job.part.is_complete
    await downloads.resume("films", "film")
    await until(lambda: job.complete)


def share_of(group: str, name: str, root: Path) -> tuple[ShareRecord, Manifest]:
    found = sharing.digest(str(root), piece_length=PIECE)
    return ShareRecord("alice", group, name, b"c", found.place), found.manifest


def test_earlier_versions_are_looked_through_by_path_and_other_shares_by_digest(
    tmp_path: Path,
) -> None:
    (tmp_path / "v1").write_bytes(b"one")
    (tmp_path / "other").write_bytes(b"two")
    record = DownloadRecord("alice", "films", "Film", b"", b"/x", 9, "", "rarest", 1)
    record = replace(record, reuse=[b"/named"])
    shares = [
        share_of("films", "b", tmp_path / "other"),
        share_of("films", "film", tmp_path / "v1"),
    ]
    found = reuse.local_trees(record, 1 << 30, shares)
    assert [(tree.root, tree.by_path) for tree in found] == [
        (str(tmp_path / "v1"), True),
        ("/named", True),
        (str(tmp_path / "other"), False),
    ]
    assert found[0].manifest == shares[1][1]
    assert len(reuse.local_trees(record, 1000, shares)) == 2, "a small one is fetched sooner"


async def test_h107_shares_of_other_groups_are_not_looked_through(stage: Stage) -> None:
    """A manifest of one group must not find out what this device shares with another."""
    asked: list[str] = []
    stage._services.shares.open_in = lambda group: asked.append(group) or []
    downloads = await stage.start()
    await downloads.begin(control.DownloadFile("films", "film", str(stage.place)), print)
    await until(lambda: asked)
    assert asked == ["films"]


@pytest.mark.parametrize("what", ["nowhere", "fifo"])
async def test_a_named_path_that_cannot_be_reused_is_refused(
    tmp_path: Path, stage: Stage, what: str
) -> None:
    downloads = await stage.start()
    os.mkfifo(tmp_path / "fifo")
    command = control.DownloadFile("films", "film", str(stage.place), reuse=[str(tmp_path / what)])
    with pytest.raises(Unreadable, match=r"cannot reuse .*: (No such file|it is a FIFO)"):
        await downloads.begin(command, lambda _: None)
    assert not os.listdir(stage.place)


# -- an earlier version in place ------------------------------------------------------------------


def put_earlier(stage: Stage, *, shared: bool = True, version: int = 1) -> ContentId:
    """Put an earlier version of the film in place, as a share or a complete download."""
    stage.path.write_bytes(b"x" * PIECE + stage.data[PIECE:])
    found = sharing.digest(str(stage.path), piece_length=PIECE)
    encoded = encode(found.manifest)
    content = manifest_id(encoded)
    stage.manifests.put(content, encoded)
    share = ShareRecord("alice", "films", "film", content, found.place, version=version)
    if shared:
        stage.shared.append((share, found.manifest))
    else:
        path = os.fsencode(stage.path)
        record = DownloadRecord(
            "alice", "films", "film", content, path, 1, "", "rarest", 1, "C", version=version
        )
        stage.records.put("old", record)
    return content


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("touched", [True, False])
@pytest.mark.parametrize("pieces", [8])
async def test_an_earlier_version_in_place_gives_its_pieces_and_its_place(
    tmp_path: Path, stage: Stage, shared: bool, touched: bool
) -> None:
    put_earlier(stage, shared=shared)
    before = stage.path.read_bytes()
    if touched:
        os.utime(stage.path)
    downloads = await stage.start()
    command = control.DownloadFile("films", "film", str(stage.place))
    job = downloads._jobs[await downloads.begin(command, lambda _: None)]
    await until(lambda: job.part is not None and job.part.held_count == 7)
    assert stage.path.read_bytes() == before
    assert not stage.rested
    await downloads.deactivate()
    assert job.record.replaces is not None
    (tmp_path / "rest").write_bytes(stage.data)
    job.record = replace(job.record, reuse=[os.fsencode(tmp_path / "rest")])
    await downloads.activate(ALICE)
    await until(lambda: job.complete)
    assert stage.path.read_bytes() == stage.data
    path = str(stage.path)  # the first end is that of the earlier run, which replaced nothing
    assert stage.rested == [(path, None), (path, stage.content), (path, None)]
    assert job.record.fetched_bytes == 0
    assert os.listdir(stage.place) == ["film"]


@pytest.mark.parametrize("why", ["edited", "newer", "unknown"])
async def test_anything_but_an_unchanged_earlier_version_in_place_is_refused(
    stage: Stage, why: str
) -> None:
    if why == "unknown":
        stage.path.write_bytes(b"mine")
    else:
        put_earlier(stage, version=9 if why == "newer" else 1)
    if why == "edited":
        with stage.path.open("r+b") as file:
            file.write(b"edited")
    before = stage.path.read_bytes()
    downloads = await stage.start()
    with pytest.raises(AlreadyExists, match="already there") as refused:
        await downloads.begin(
            control.DownloadFile("films", "film", str(stage.place)), lambda _: None
        )
    assert "--overwrite" in str(refused.value.hint)
    assert stage.path.read_bytes() == before
    assert os.listdir(stage.place) == ["film"]


@pytest.mark.parametrize("pieces", [8])
async def test_an_earlier_version_that_is_edited_meanwhile_is_not_replaced(
    tmp_path: Path, stage: Stage
) -> None:
    put_earlier(stage)
    downloads = await stage.start()
    command = control.DownloadFile("films", "film", str(stage.place))
    job = downloads._jobs[await downloads.begin(command, lambda _: None)]
    await until(lambda: job.part is not None and job.part.held_count == 7)
    assert job.part is not None
    job.part.write_piece(0, stage.piece(0))
    stage.path.write_bytes(b"edited")
    await downloads.deactivate()
    await downloads.activate(ALICE)
    await until(lambda: job.record.state == "F")
    assert "was changed while its new version was fetched" in str(job.record.reason)
    assert stage.path.read_bytes() == b"edited"
    stage.path.rename(tmp_path / "mine")
    await downloads.resume("films", "film")
    await until(lambda: job.complete)
    assert stage.path.read_bytes() == stage.data


@pytest.mark.parametrize("pieces", [8])
async def test_the_manifest_of_the_earlier_version_is_kept_while_it_is_needed(stage: Stage) -> None:
    content = put_earlier(stage, shared=False)
    downloads = await stage.start()
    await downloads.begin(control.DownloadFile("films", "film", str(stage.place)), lambda _: None)
    assert content in downloads.contents()
