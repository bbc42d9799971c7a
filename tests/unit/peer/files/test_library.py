"""Sharing: walk and digests; no byte of a changed file leaves this device."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.digests import Algorithm
from common.errors import ConfigError, StorageError
from common.manifest import EntryKind, Manifest, encode, manifest_id
from common.names import BadName, PathOrder
from peer.files import paths, sharing
from peer.files.errors import (
    Away,
    Cancelled,
    ContentChanged,
    IOFailed,
    TooManyOpenFiles,
    Unreadable,
)
from peer.files.fingerprint import SharedLocation
from peer.files.hashing import hash_pieces
from peer.files.library import SharedContent
from peer.files.open_files import HandleCache
from tests.support.data_paths import module_on_both_paths
from tests.support.descriptors import open_files

pytestmark = module_on_both_paths

PIECE = 16 * 1024
NOISE = bytes(blake3(b"noise").digest(length=5 * PIECE))


@pytest.fixture
def handles(tmp_path: Path) -> Iterator[HandleCache]:
    cache = HandleCache(limit=4)
    yield cache
    cache.close()
    assert not open_files(tmp_path)


def share(path: Path, handles: HandleCache) -> SharedContent:
    found = sharing.digest(str(path), piece_length=PIECE)
    return SharedContent(found.manifest, found.place, handles)


def read_all(content: SharedContent) -> bytes:
    return b"".join(content.read_run(index, 1) for index in range(content.manifest.piece_count))


def make_tree(root: Path) -> bytes:
    """A folder with everything that may be in one; its stream is returned."""
    (root / "b" / "deep" / "er").mkdir(parents=True)
    (root / "empty" / "inner").mkdir(parents=True)
    (root / "a file").write_bytes(NOISE[:100])
    (root / "b" / "big").write_bytes(NOISE)
    (root / "b" / "deep" / "er" / "Übung").write_bytes(NOISE[:PIECE])
    (root / "b" / "nothing").write_bytes(b"")
    (root / "b-side").write_bytes(NOISE[7:9])
    (root / "run").write_bytes(b"#!/bin/sh\n")
    (root / "run").chmod(0o755)
    return NOISE[:100] + NOISE + NOISE[:PIECE] + NOISE[7:9] + b"#!/bin/sh\n"


# -- walking ------------------------------------------------------------------------------------


def test_a_folder_is_walked_in_order_with_its_empty_files_and_folders(tmp_path: Path) -> None:
    make_tree(tmp_path)
    found = sharing.scan(str(tmp_path))
    assert [(e.path, e.size, e.kind.name) for e in found.entries] == [
        ("a file", 100, "FILE"),
        ("b/big", len(NOISE), "FILE"),
        ("b/deep/er/Übung", PIECE, "FILE"),
        ("b/nothing", 0, "FILE"),
        ("b-side", 2, "FILE"),
        ("empty/inner", 0, "FOLDER"),
        ("run", 10, "EXECUTABLE"),
    ]
    order = PathOrder()
    for entry in found.entries:
        order.add(entry.path)


def test_an_empty_folder_and_an_empty_file_are_contents(
    tmp_path: Path, handles: HandleCache
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for name, entries in (("folder", 0), ("file", 1)):
        content = share(tmp_path / name, handles)
        assert (content.manifest.piece_count, len(content.manifest.entries)) == (0, entries)
        assert content.manifest.is_folder == (name == "folder")
        assert content.manifest.digest == blake3(b"").digest()
        content.check()


def plant_link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def plant_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


def plant_link_to_folder(path: Path) -> None:
    path.symlink_to("/etc")


def plant_fifo(path: Path) -> None:
    os.mkfifo(path)


def plant_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


PLANTED = [plant_link, plant_dangling_link, plant_link_to_folder, plant_fifo, plant_socket]


@pytest.mark.parametrize("plant", PLANTED)
def test_special_files_are_refused_by_name(plant, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "inner").mkdir()
    plant(tmp_path / "inner" / "planted")
    with pytest.raises(Unreadable, match="inner/planted"):
        sharing.scan(str(tmp_path))


def test_a_fifo_or_a_missing_path_itself_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(Unreadable, match="FIFO"):
        sharing.scan(str(tmp_path / "fifo"))
    with pytest.raises(Unreadable, match="No such file"):
        sharing.scan(str(tmp_path / "missing"))
    with pytest.raises(Unreadable):
        sharing.scan("/dev/null")


def test_a_link_that_the_user_names_is_followed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("file")
    assert sharing.scan(str(tmp_path / "link")).place.path == str(tmp_path / "file")


def test_an_unreadable_file_is_refused_before_anything_is_digested(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"abc")
    (tmp_path / "secret").chmod(0)
    if os.access(tmp_path / "secret", os.R_OK, effective_ids=True):
        pytest.skip("this user may read everything")
    with pytest.raises(Unreadable, match="secret"):
        sharing.scan(str(tmp_path))


@pytest.mark.parametrize("name", [b"a\xff", b"a\x1b[2J", b"... ", "a\u202eb".encode()])
def test_H28_bad_names_inside_a_folder_are_refused(name: bytes, tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(name)).touch()
    with pytest.raises(BadName):
        sharing.scan(str(tmp_path))


def test_a_folder_that_is_too_deep_is_refused(tmp_path: Path) -> None:
    (tmp_path / "/".join("d" * 65)).mkdir(parents=True)
    with pytest.raises(ConfigError):
        sharing.scan(str(tmp_path))


# -- digesting ----------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 4 * PIECE + 5])
def test_digests_of_a_file_are_the_common_ones(
    algorithm: Algorithm, size: int, tmp_path: Path, handles: HandleCache
) -> None:
    data = NOISE[:size]
    path = tmp_path / "f"
    path.write_bytes(data)
    found = sharing.digest(str(path), algorithm, PIECE).manifest
    reference = blake3 if algorithm is Algorithm.BLAKE3 else getattr(hashlib, algorithm)
    assert found.digest == reference(data).digest()
    pieces = [data[start : start + PIECE] for start in range(0, size, PIECE)]
    assert found.pieces == b"".join(reference(piece).digest() for piece in pieces)
    assert found.entries[0].path == ""


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_a_folder_is_one_stream_whatever_the_threads(
    threads: int, tmp_path: Path, handles: HandleCache
) -> None:
    stream = make_tree(tmp_path)
    done: list[int] = []
    found = sharing.digest(
        str(tmp_path), piece_length=PIECE, on_progress=done.append, threads=threads
    )
    assert found.manifest.digest == blake3(stream).digest()
    assert done == [*range(PIECE, len(stream), PIECE), len(stream)]
    content = SharedContent(found.manifest, found.place, handles)
    assert read_all(content) == stream
    assert all(
        content.manifest.verifies(index, content.read_run(index, 1))
        for index in range(content.manifest.piece_count)
    )


def test_a_copy_with_its_times_has_the_same_id(tmp_path: Path) -> None:
    ids = []
    for name in ("one", "two"):
        make_tree(tmp_path / name)
        for at, path in enumerate([*sorted((tmp_path / name).rglob("*")), tmp_path / name]):
            os.utime(path, (len(name), at))
    for change in (
        lambda: None,
        lambda: os.utime(tmp_path / "two" / "run", (5, 5)),
        lambda: (tmp_path / "two" / "run").chmod(0o644),
    ):
        change()
        for name in ("one", "two"):
            ids.append(manifest_id(encode(sharing.digest(str(tmp_path / name)).manifest)))
    assert ids[0] == ids[1] == ids[2] == ids[4]
    assert len(set(ids)) == 3
    # Without times they are no part of it.
    plain = {
        encode(sharing.digest(str(tmp_path / name), times=False).manifest)
        for name in ("one", "two")
    }
    (tmp_path / "two" / "run").chmod(0o755)
    assert encode(sharing.digest(str(tmp_path / "two"), times=False).manifest) in plain


@pytest.mark.parametrize("length", [1, 8 * 1024, 3 * PIECE, 8 << 20, -PIECE])
def test_a_piece_length_that_is_not_allowed_is_refused(length: int, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    with pytest.raises(ConfigError):
        sharing.digest(str(tmp_path / "f"), piece_length=length)


def test_a_digest_can_be_cancelled(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(NOISE)
    done: list[int] = []
    with pytest.raises(Cancelled):
        sharing.digest(
            str(tmp_path / "f"),
            piece_length=PIECE,
            on_progress=done.append,
            cancelled=lambda: bool(done),
            threads=1,
        )
    assert done == [PIECE]


@pytest.mark.parametrize("change", ["grow", "edit", "truncate", "remove", "replace"])
def test_a_file_that_changes_while_it_is_digested_is_noticed(change: str, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(NOISE)

    def interfere(done: int) -> None:
        if done == PIECE:
            alter(path, change)

    with pytest.raises(ContentChanged):
        sharing.digest(str(path), piece_length=PIECE, on_progress=interfere, threads=1)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(
    indexes=st.sets(st.integers(0, 40)).map(sorted),
    threads=st.integers(1, 8),
    absent=st.sets(st.integers(0, 40)),
)
def test_pieces_are_handed_on_in_order_one_at_a_time(
    indexes: list[int], threads: int, absent: set[int]
) -> None:
    busy = threading.Lock()
    seen: list[tuple[int, bool]] = []

    def read_into(offset: int, view: memoryview) -> bool:
        view[:] = bytes([offset]) * len(view)
        return offset not in absent

    def in_order(index: int, view: memoryview, digest: bytes | None) -> None:
        assert busy.acquire(blocking=False)
        assert view == bytes([index]) * 3
        assert digest is None or digest == Algorithm.SHA1.digest_of(view)
        seen.append((index, digest is not None))
        busy.release()

    hash_pieces(
        indexes, lambda index: (index, 3), read_into, Algorithm.SHA1, in_order, threads=threads
    )
    assert seen == [(index, index not in absent) for index in indexes]


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("where", ["read", "hand on"])
def test_the_first_failure_ends_the_work(threads: int, where: str) -> None:
    def read_into(offset: int, view: memoryview) -> bool:
        if where == "read" and offset == 20:
            raise ContentChanged("gone")
        return True

    def in_order(index: int, view: memoryview, digest: bytes | None) -> None:
        if where == "hand on" and index == 20:
            raise ContentChanged("gone")

    with pytest.raises(ContentChanged):
        hash_pieces(
            range(200),
            lambda index: (index, 3),
            read_into,
            Algorithm.SHA1,
            in_order,
            threads=threads,
        )


# -- F24: a shared file that changes ------------------------------------------------------------


def alter(path: Path, change: str) -> None:
    if change == "grow":
        with path.open("ab") as file:
            file.write(b"x")
    elif change == "edit":
        with path.open("r+b") as file:
            file.write(b"XX")
    elif change == "edit and set back":
        before = path.stat()
        alter(path, "edit")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif change == "truncate":
        os.truncate(path, PIECE)
    elif change == "remove":
        path.unlink()
    elif change == "replace":
        (path.parent / "new").write_bytes(path.read_bytes())
        (path.parent / "new").replace(path)
    elif change == "link":
        path.rename(path.parent.parent / "elsewhere")
        path.symlink_to(path.parent.parent / "elsewhere")
    elif change == "fifo":
        path.unlink()
        os.mkfifo(path)
    elif change == "folder":
        path.unlink()
        path.mkdir()
    elif change == "remove folder":
        path.rename(path.parent.parent / "elsewhere")
        path.parent.rmdir()
    else:
        raise AssertionError(change)


CHANGES = [
    "grow", "edit", "edit and set back", "truncate", "remove", "replace", "link", "fifo", "folder",
    "remove folder",
]  # fmt: skip


@pytest.mark.parametrize("warm", [True, False], ids=["file open", "file not open"])
@pytest.mark.parametrize("change", CHANGES)
def test_F24_not_one_byte_of_a_changed_file_is_read(
    change: str, warm: bool, tmp_path: Path, handles: HandleCache
) -> None:
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "f"
    path.write_bytes(NOISE)
    content = share(path, handles)
    if warm:
        assert read_all(content) == NOISE
    alter(path, change)
    for index in range(content.manifest.piece_count):
        with pytest.raises(ContentChanged, match="/in"):
            content.read_run(index, 1)
    # Without its folder the disk may be away, which proves nothing about the file.
    with pytest.raises(Away if change == "remove folder" else ContentChanged):
        content.check()


@pytest.mark.parametrize("victim", ["b/big", "b/deep/er/Übung", "a file"])
@pytest.mark.parametrize("change", ["edit", "truncate", "remove", "link", "fifo"])
def test_F24_a_changed_file_in_a_folder_is_noticed_and_named(
    change: str, victim: str, tmp_path: Path, handles: HandleCache
) -> None:
    root = tmp_path / "in"
    stream = make_tree(root)
    content = share(root, handles)
    assert read_all(content) == stream
    if change == "truncate":
        os.truncate(root / victim, 50)
    else:
        alter(root / victim, change)
    with pytest.raises(ContentChanged, match=victim):
        read_all(content)
    with pytest.raises(ContentChanged, match=victim):
        content.check()


def test_F24_a_folder_on_the_way_that_became_a_link_is_not_followed(
    tmp_path: Path, handles: HandleCache
) -> None:
    root = tmp_path / "in"
    make_tree(root)
    content = share(root, handles)
    (root / "b").rename(tmp_path / "moved")
    (root / "b").symlink_to(tmp_path / "moved")
    with pytest.raises(ContentChanged):
        read_all(content)


def test_a_touched_file_is_shared_again_after_a_recheck(
    tmp_path: Path, handles: HandleCache
) -> None:
    path = tmp_path / "f"
    path.write_bytes(NOISE)
    content = share(path, handles)
    os.utime(path)
    with pytest.raises(ContentChanged):
        content.read_run(0, 1)
    place = content.recheck()
    assert read_all(content) == NOISE
    assert (
        SharedContent(content.manifest, place, handles).read_run(1, 1) == NOISE[PIECE : 2 * PIECE]
    )


def test_a_recheck_notices_other_bytes(tmp_path: Path, handles: HandleCache) -> None:
    path = tmp_path / "f"
    path.write_bytes(NOISE)
    content = share(path, handles)
    alter(path, "edit")
    with pytest.raises(ContentChanged):
        content.recheck()
    with pytest.raises(ContentChanged):
        content.read_run(4, 1)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.EIO, errno.ENOENT])
def test_a_file_that_cannot_be_checked_does_not_count_as_changed(
    number: int, tmp_path: Path, handles: HandleCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "f").write_bytes(NOISE)
    content = share(tmp_path / "f", handles)
    expected = {errno.EIO: IOFailed, errno.ENOENT: ContentChanged}.get(number, TooManyOpenFiles)

    def fail(*_: object, path_only: bool) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(paths, "open_real_folder", fail)
    for look in (content.check, content.recheck):
        with pytest.raises(StorageError, match=os.strerror(number)) as caught:
            look()
        assert type(caught.value) is expected


def test_files_added_to_a_folder_do_not_matter(tmp_path: Path, handles: HandleCache) -> None:
    stream = make_tree(tmp_path / "in")
    content = share(tmp_path / "in", handles)
    (tmp_path / "in" / "b" / "new").write_bytes(b"x")
    content.check()
    content.recheck()
    assert read_all(content) == stream


def test_the_record_of_a_place_survives_encoding(tmp_path: Path, handles: HandleCache) -> None:
    root = tmp_path / os.fsdecode(b"not \xff text")
    stream = make_tree(root)
    found = sharing.digest(str(root), piece_length=PIECE)
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(found.place), type=SharedLocation)
    assert again == found.place
    assert read_all(SharedContent(found.manifest, again, handles)) == stream


# -- reading ------------------------------------------------------------------------------------


def test_many_files_are_read_with_few_handles_by_many_threads(tmp_path: Path) -> None:
    for number in range(60):
        (tmp_path / f"{number:02}").write_bytes(NOISE[number : number + PIECE + 500])
    found = sharing.digest(str(tmp_path), piece_length=PIECE)
    handles = HandleCache(limit=3)
    content = SharedContent(found.manifest, found.place, handles)
    wrong: list[int] = []

    def read_some(first: int) -> None:
        for index in range(first, found.manifest.piece_count, 4):
            if not found.manifest.verifies(index, content.read_run(index, 1)):
                wrong.append(index)

    threads = [threading.Thread(target=read_some, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(open_files(tmp_path)) <= 3
    content.close()
    assert not open_files(tmp_path)


def test_a_handle_in_use_outlives_its_eviction(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).write_bytes(name.encode())
    handles = HandleCache(limit=1)

    def opener(name: str) -> int:
        return os.open(tmp_path / name, os.O_RDONLY)

    with handles.using(("x", 0), lambda: opener("a")) as first:
        for number, name in enumerate("bc", start=1):
            with handles.using(("x", number), lambda name=name: opener(name)) as fd:  # type: ignore[misc]
                assert os.pread(fd, 1, 0) == name.encode()
        handles.close_owner("x")
        assert os.pread(first, 1, 0) == b"a"
    with pytest.raises(OSError):
        os.fstat(first)


def test_a_sparse_file_beyond_32_bits(tmp_path: Path, handles: HandleCache) -> None:
    size = (5 << 30) + 3
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(size)
        file.seek((1 << 32) + 5)
        file.write(b"beyond")
    scanned = sharing.scan(str(path))
    manifest = Manifest(1, Algorithm.BLAKE3, 1 << 19, size, b"", b"", scanned.entries)
    content = SharedContent(manifest, scanned.place, handles)
    assert bytes(content.read_run((1 << 32) >> 19, 1)[:12]) == bytes(5) + b"beyond" + bytes(1)
    assert content.read_run(manifest.piece_count - 1, 1) == bytes(3)
    assert scanned.entries[0].kind is EntryKind.FILE
