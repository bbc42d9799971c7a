"""Updates: a content that differs from an earlier one by a known part.

Owns: the change, and its size. Not here: the contents themselves (see benchmarks.workloads).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from random import Random

from benchmarks.workloads import KIB, MIB, Workload

_BLOCK_BYTES = 64 * KIB
_APPENDED_BYTES = 64 * MIB
_CHANGED_SHARE = 100  # one in so many
_ADDED_SHARE = 200


def make_update(workload: Workload, earlier: Path, folder: Path, rng: Random) -> Path:
    """Write the changed content below `folder`, under the same name, and return its path."""
    target = copy_earlier(earlier, folder)
    if workload.is_folder:
        _change_files(target, rng)
        return target
    if workload.update == "appended":
        with target.open("ab") as out:
            for _ in range(0, min(_APPENDED_BYTES, workload.size), MIB):
                out.write(rng.randbytes(MIB))
    else:
        with target.open("r+b") as out:
            blocks = workload.size // _BLOCK_BYTES
            for block in sorted(rng.sample(range(blocks), max(1, blocks // _CHANGED_SHARE))):
                out.seek(block * _BLOCK_BYTES)
                out.write(rng.randbytes(_BLOCK_BYTES))
    _make_newer(target)
    return target


def _make_newer(path: Path) -> None:
    """Date a file later than the whole seconds in which rsync compares times."""
    time_s = path.stat().st_mtime + 60
    os.utime(path, (time_s, time_s))


def _change_files(root: Path, rng: Random) -> None:
    """Change one in a hundred files, in half of them the size too, and add half as many in front of
    all others."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    average = sum(path.stat().st_size for path in files) // len(files)
    for number, path in enumerate(rng.sample(files, max(2, len(files) // _CHANGED_SHARE))):
        size = path.stat().st_size if number % 2 else rng.randint(1, 2 * average)
        path.write_bytes(rng.randbytes(size))
        _make_newer(path)
    front = root / "a-new"
    front.mkdir()
    for number in range(max(1, len(files) // _ADDED_SHARE)):
        (front / f"n{number:04d}.dat").write_bytes(rng.randbytes(rng.randint(1, 2 * average)))


def copy_earlier(earlier: Path, folder: Path) -> Path:
    """Put the earlier content below `folder`, with its times; return its path."""
    target = folder / earlier.name
    if earlier.is_dir():
        shutil.copytree(earlier, target)
    else:
        shutil.copy2(earlier, target)
    return target
