"""Names that the file system of a destination cannot hold, found before a download begins."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.digests import Algorithm
from common.manifest import Entry, EntryKind, Manifest, encode, manifest_id
from common.names import fold_name
from peer.files import destination_names, open_part, paths
from peer.files.errors import UnsafeDestination


def manifest_of(*names: str) -> Manifest:
    ordered = sorted(names, key=lambda name: name.split("/"))
    entries = tuple(
        Entry(name.rstrip("/"), 0, EntryKind.FOLDER if name.endswith("/") else EntryKind.FILE)
        for name in ordered
    )
    return Manifest(1, Algorithm.BLAKE3, 1 << 14, 0, bytes(32), b"", entries)


@pytest.fixture
def folding(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that takes twins for one name, and knows devices and no colons."""
    create, status_of = paths.create_file, paths.status_of

    def made(folder_fd: int, name: str) -> int:
        if ":" in name or name.split(".")[0].lower() in ("aux", "con"):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return create(folder_fd, name.rstrip(". "))

    def looked_at(folder_fd: int, name: str) -> os.stat_result | None:
        there = {fold_name(other.rstrip(". ")): other for other in os.listdir(folder_fd)}
        found = there.get(fold_name(name.rstrip(". ")))
        return None if found is None else status_of(folder_fd, found)

    monkeypatch.setattr(destination_names.paths, "create_file", made)
    monkeypatch.setattr(destination_names.paths, "status_of", looked_at)


def begin(place: Path, manifest: Manifest) -> None:
    content = manifest_id(encode(manifest))
    open_part.create(str(place), manifest, content, str(place.parent / "journal")).discard()


ODD = [
    ("Foo", "foo"),
    ("in/A/x", "in/a/y"),
    ("caf\u00e9/", "cafe\u0301"),
    ("stra\u00dfe", "x", "STRASSE"),
    ("deep/er/aux.c",),
    ("con.txt", "z"),
    ("a:b",),
    ("end.",),
]


@pytest.mark.usefixtures("folding")
@pytest.mark.parametrize("names", ODD)
def test_names_that_a_file_system_refuses_are_found_before_any_fetch(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    with pytest.raises(UnsafeDestination, match=r"cannot hold|would be one file") as caught:
        begin(tmp_path / "got", manifest_of(*names))
    assert caught.value.hint is not None
    assert os.listdir(tmp_path) == []


@pytest.mark.usefixtures("folding")
def test_ordinary_names_are_not_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(destination_names.paths, "create_file", None)
    manifest = manifest_of("a", "b/a", "c/a", "d/b/a", "\u00e9/x", "e/")
    folder = os.open(tmp_path, os.O_RDONLY)
    destination_names.require_usable_names(folder, "got", manifest)
    os.close(folder)


@pytest.mark.parametrize("names", ODD)
def test_this_file_system_holds_all_names(tmp_path: Path, names: tuple[str, ...]) -> None:
    begin(tmp_path / "got", manifest_of(*names))
    assert os.listdir(tmp_path) == []


def siblings(*names: str) -> Iterator[list[str]]:
    return (sorted(found) for found in destination_names._folders(manifest_of(*names)))


def test_siblings_are_listed_folder_by_folder() -> None:
    found = list(siblings("a/b/c", "a/b/d", "a/e", "f/", "g"))
    assert sorted(found) == sorted([["c", "d"], ["b", "e"], [], ["a", "f", "g"]])
