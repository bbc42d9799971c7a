"""Samples of content to download, and looks at what lies on the disk."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from common.manifest import encode, manifest_id
from peer.files import open_part, sharing, syscalls
from peer.files.partial_content import PartialContent
from peer.files.unverified_part import UnverifiedPart

PIECE = 16 * 1024
NOISE = bytes(blake3(b"storage").digest(length=9 * PIECE + 77))


class Sample:
    """A content to download: where it comes from, its manifest and its pieces."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.manifest = sharing.digest(str(source), piece_length=PIECE).manifest
        self.id = manifest_id(encode(self.manifest))
        stream = b"".join(
            (source / entry.path if entry.path else source).read_bytes()
            for entry in self.manifest.entries
            if entry.kind.name != "FOLDER"
        )
        self.pieces = [stream[at : at + PIECE] for at in range(0, len(stream), PIECE)]

    def begin(self, place: Path, **more: Any) -> PartialContent:
        return open_part.create(
            str(place), self.manifest, self.id, str(place.parent / "journal"), **more
        )

    def resume(self, place: Path) -> UnverifiedPart:
        return open_part.resume(str(place), self.manifest, self.id, str(place.parent / "journal"))

    def recover(self, place: Path) -> PartialContent:
        return self.resume(place).recover()

    def fill(self, download: PartialContent, indexes: list[int] | None = None) -> None:
        for index in range(len(self.pieces)) if indexes is None else indexes:
            download.write_piece(index, self.pieces[index])

    def missing(self, download: PartialContent) -> list[int]:
        return [index for index in range(len(self.pieces)) if not download.has(index)]


def snapshot(root: Path) -> dict[str, tuple[int, bytes]]:
    """All entries beneath a path: kind, permission to execute, and bytes."""
    found = {}
    for path in [root, *sorted(root.rglob("*"))]:
        mode = path.lstat().st_mode
        data = path.read_bytes() if stat.S_ISREG(mode) else b""
        found[str(path.relative_to(root))] = (stat.S_IFMT(mode) | mode & 0o100, data)
    return found


def listing(place: Path) -> set[str]:
    return set(os.listdir(place.parent))


def one_file_of(part: Path) -> Path:
    return part if part.is_file() else part / "big"


def offset_in_file(sample: Sample, piece: int) -> int:
    """The offset of a piece in the file that it lies in."""
    number = next(n for n, e in enumerate(sample.manifest.entries) if e.path in ("", "big"))
    return piece * PIECE - sum(entry.size for entry in sample.manifest.entries[:number])


def flip_a_bit(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


class Synced:
    """Records which files and folders beneath ``root`` are synced, by their paths."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
        self.root = root
        self.paths: set[Path] = set()
        self.everything = 0  # how often
        for name in ("fsync", "fdatasync"):
            monkeypatch.setattr(os, name, self._noting(getattr(os, name), self._one))
        monkeypatch.setattr(
            syscalls, "sync_file_system", self._noting(syscalls.sync_file_system, self._all)
        )

    def _noting(
        self, real: Callable[[int], None], note: Callable[[int], None]
    ) -> Callable[[int], None]:
        def call(fd: int) -> None:
            real(fd)
            note(fd)

        return call

    def _one(self, fd: int) -> None:
        self.paths.add(Path(os.readlink(f"/proc/self/fd/{fd}")))

    def _all(self, fd: int) -> None:
        self.everything += 1
        self.paths.update([self.root, *self.root.rglob("*")])
