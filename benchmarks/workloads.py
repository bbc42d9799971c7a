"""Workloads: the table of sizes and peer counts, and the content on disk.

Owns: sizes, counts and content. Not here: moving it (see benchmarks.contestants).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
_WRITE_BYTES = 16 * MIB


@dataclass(frozen=True, slots=True)
class Workload:
    """One row of the table. Sizes in bytes; `files` is 1 for a single file."""

    key: str
    title: str
    size: int
    files: int = 1
    seeders: int = 1
    leechers: int = 1
    shaped: bool = False
    """True if each node has a rate-limited link of its own instead of the loopback."""
    down_mbit: int = 200
    """Downlink of each node of a shaped workload; the uplink has 80 Mbit/s."""
    moved: bool = True
    """False if the content is only shared and not transferred."""

    update: str = ""
    """The change by which the content differs from an earlier one that the leecher has: `blocks`,
    `appended` or `files`. Every node has a network of its own then, to count its bytes."""

    @property
    def is_folder(self) -> bool:
        return self.files > 1

    @property
    def delivered_bytes(self) -> int:
        """Bytes that all leechers receive together."""
        return self.size * self.leechers if self.moved else 0

    @property
    def handled_bytes(self) -> int:
        """Denominator of CPU seconds per GiB."""
        return self.delivered_bytes if self.moved else self.size

    def resized(self, size: int) -> Workload:
        """Return this workload with `size` bytes; the average file size of a folder stays."""
        if not self.is_folder:
            return replace(self, size=size)
        return replace(self, size=size, files=max(2, size * self.files // self.size))

    def bytes_needed(self) -> int:
        """Return the space of a run besides the content, with a margin for logs and databases.

        An update needs the changed content, and the earlier one at both ends.
        """
        copies = 4 if self.update else 1
        return self.delivered_bytes * copies * 11 // 10 + 128 * MIB

    def ballast_bytes(self) -> int:
        """Return the size of the expected output, with a margin."""
        return self.delivered_bytes * 11 // 10 + 128 * MIB


WORKLOADS: dict[str, Workload] = {
    workload.key: workload
    for workload in (
        Workload("w1", "one seeder to one leecher, 1 GiB", GIB),
        Workload("w2", "four seeders to one leecher, 1 GiB", GIB, seeders=4),
        Workload("w3", "one seeder to eight leechers, 256 MiB", 256 * MIB, leechers=8),
        Workload(
            "w4", "one to one, 10,000 files of 16 KiB on average", 10_000 * 16 * 1024, files=10_000
        ),
        Workload(
            "w5",
            "one to eight, 64 MiB, every node 80 Mbit/s up and 200 down",
            64 * MIB,
            leechers=8,
            shaped=True,
        ),
        Workload(
            "w6",
            "one to eight, 64 MiB, every node 80 Mbit/s up and down",
            64 * MIB,
            leechers=8,
            shaped=True,
            down_mbit=80,
        ),
        Workload(
            "u1", "1 % of the 64 KiB blocks of a 4 GiB image changed", 4 * GIB, update="blocks"
        ),
        Workload("u2", "a 4 GiB image got 64 MiB more", 4 * GIB, update="appended"),
        Workload(
            "u3",
            "of 10,000 files of 16 KiB on average 100 changed and 50 were added at the front",
            10_000 * 16 * 1024,
            files=10_000,
            update="files",
        ),
        Workload("h", "sharing a 4 GiB file", 4 * GIB, leechers=0, moved=False),
    )
}


def make_content(workload: Workload, folder: Path, rng: Random) -> Path:
    """Write the content of `workload` below `folder` and return its path (a file or a folder)."""
    if workload.is_folder:
        target = folder / "tree"
        target.mkdir()
        _make_tree(workload, target, rng)
        return target
    target = folder / "content.bin"
    with target.open("wb", buffering=0) as out:
        for start in range(0, workload.size, _WRITE_BYTES):
            out.write(rng.randbytes(min(_WRITE_BYTES, workload.size - start)))
    return target


def _make_tree(workload: Workload, root: Path, rng: Random) -> None:
    """Write files of 1 byte to twice the average, 100 per folder, `workload.size` bytes in all."""
    average = workload.size // workload.files
    sizes = [rng.randint(1, 2 * average - 1) for _ in range(workload.files)]
    surplus = sum(sizes) - workload.size
    for index, size in enumerate(sizes):
        change = min(surplus, size - 1) if surplus > 0 else surplus
        sizes[index] = size - change
        surplus -= change
        if surplus == 0:
            break
    for index, size in enumerate(sizes):
        folder = root / f"d{index // 100:03d}"
        if index % 100 == 0:
            folder.mkdir()
        (folder / f"f{index:05d}.dat").write_bytes(rng.randbytes(size))


def same_content(left: Path, right: Path) -> bool:
    """Return whether two files, or all files of two folders, are equal byte for byte."""
    if left.is_dir() != right.is_dir():
        return False
    if not left.is_dir():
        return _same_file(left, right)
    names = _files_below(left)
    return names == _files_below(right) and all(
        _same_file(left / name, right / name) for name in names
    )


def _files_below(root: Path) -> list[str]:
    found = [
        os.path.relpath(os.path.join(folder, name), root)
        for folder, _, names in os.walk(root)
        for name in names
    ]
    return sorted(found)


def _same_file(left: Path, right: Path) -> bool:
    with left.open("rb", buffering=0) as one, right.open("rb", buffering=0) as two:
        while True:
            first, second = one.read(4 * MIB), two.read(4 * MIB)
            if first != second:
                return False
            if not first:
                return True
