"""A disk that refuses calls: a FUSE file system that passes all on to a folder, but for its rules.

``with refusing_disk(base) as disk`` mounts one; ``disk.refuse(rename_noreplace=errno.EPERM)`` says
what it refuses from then on. The rules are names of calls with an error, and ``name_max`` with a
length. It runs in a process of its own: a process that waits for itself would hang.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

MOUNTED_WITHIN_S = 20.0


@dataclass
class RefusingDisk:
    """A mounted one. ``path`` is where; what lies there is in ``below``."""

    path: Path
    below: Path
    rules: Path

    def refuse(self, **rules: int) -> None:
        """From here on these calls are refused, and no others."""
        new = self.rules.with_suffix(".new")
        new.write_text(json.dumps(rules))
        new.replace(self.rules)

    def still_open(self) -> list[str]:
        """Files that were removed while open and are still open: they keep their room."""
        return [path.name for path in self.below.rglob(".fuse_hidden*")]


@contextlib.contextmanager
def refusing_disk(base: Path) -> Iterator[RefusingDisk]:
    """Mount one below ``base``. Skips, and says why, where that cannot be done."""
    if not os.path.exists("/dev/fuse") or not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("NOT TESTED HERE: a disk that refuses calls needs /dev/fuse")
    disk = RefusingDisk(base / "disk", base / "below", base / "rules.json")
    disk.path.mkdir(parents=True)
    disk.below.mkdir()
    disk.refuse()
    log = base / "log"
    words = [sys.executable, __file__, str(disk.below), str(disk.path), str(disk.rules)]
    with log.open("wb") as file:
        process = subprocess.Popen(words, stdout=file, stderr=file)
    try:
        end = time.monotonic() + MOUNTED_WITHIN_S
        while not os.path.ismount(disk.path):
            if process.poll() is not None or time.monotonic() > end:
                pytest.skip(f"NOT TESTED HERE: FUSE does not mount: {log.read_text()[-500:]}")
            time.sleep(0.02)
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk.path)], check=False, capture_output=True)
        subprocess.run(["fusermount3", "-uz", str(disk.path)], check=False, capture_output=True)
        process.terminate()
        process.wait()


def serve(below: str, mount: str, rules_path: str) -> None:
    """Be the file system until it is unmounted."""
    import mfusepy

    class Fuse(mfusepy.FUSE):  # type: ignore[misc, name-defined, unused-ignore]
        def rename_fuse_3(self, old: bytes, new: bytes, flags: int) -> int:
            return int(self.operations.rename(os.fsdecode(old), os.fsdecode(new), flags))

        def opendir(self, path: bytes, fip: Any) -> int:
            self.operations.may_open(fip.contents.flags)
            return int(super().opendir(path, fip))

    class Passing(mfusepy.Operations):  # type: ignore[misc, name-defined, unused-ignore]
        use_ns = True

        def __init__(self) -> None:
            self.seen = 0
            self.rules: dict[str, int] = {}
            self.libc = ctypes.CDLL(None, use_errno=True)

        def _at(self, path: str) -> str:
            return below + path

        def _may(self, call: str, *paths: str) -> None:
            stamp = os.stat(rules_path).st_mtime_ns
            if stamp != self.seen:
                with open(rules_path, encoding="ascii") as file:
                    self.rules, self.seen = json.load(file), stamp
            if call in self.rules:
                raise mfusepy.FuseOSError(self.rules[call])
            longest = self.rules.get("name_max", 255)
            if any(len(os.fsencode(os.path.basename(path))) > longest for path in paths):
                raise mfusepy.FuseOSError(errno.ENAMETOOLONG)

        def may_open(self, flags: int) -> None:
            for name in ("NOFOLLOW", "NONBLOCK", "TMPFILE"):
                if flags & getattr(os, f"O_{name}") == getattr(os, f"O_{name}"):
                    self._may(f"open_{name.lower()}")

        def getattr(self, path: str, fh: Any = None) -> dict[str, Any]:
            self._may("getattr", path)
            status = os.lstat(self._at(path)) if fh is None else os.fstat(fh)
            keys = ("mode", "nlink", "uid", "gid", "size", "ino", "blocks")
            found = {f"st_{key}": getattr(status, f"st_{key}") for key in keys}
            for key in ("atime", "mtime", "ctime"):
                found[f"st_{key}"] = getattr(status, f"st_{key}_ns")
            return found

        def access(self, path: str, mode: int) -> int:
            return 0

        def readdir(self, path: str, fh: Any) -> list[str]:
            return [".", "..", *os.listdir(self._at(path))]

        def opendir(self, path: str) -> int:
            self._may("opendir")
            return 0

        def fsyncdir(self, path: str, datasync: int, fh: Any) -> int:
            self._may("fsyncdir")
            return 0

        def create(self, path: str, mode: int, fi: Any = None) -> int:
            self._may("create", path)
            return os.open(self._at(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)

        def open(self, path: str, flags: int) -> int:
            self._may("open", path)
            self.may_open(flags)
            # Written through handles that were opened to read, as the kernel's cache does.
            return os.open(self._at(path), os.O_RDWR)

        def release(self, path: str, fh: int) -> int:
            os.close(fh)
            return 0

        def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
            self._may("read")
            return os.pread(fh, size, offset)

        def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
            self._may("write")
            return os.pwrite(fh, data, offset)

        def truncate(self, path: str, length: int, fh: int | None = None) -> int:
            self._may("truncate")
            os.truncate(self._at(path) if fh is None else fh, length)
            return 0

        def fsync(self, path: str, datasync: int, fh: int) -> int:
            self._may("fsync")
            return 0

        def fallocate(self, path: str, mode: int, offset: int, length: int, fh: int) -> int:
            self._may("fallocate")
            os.posix_fallocate(fh, offset, length)
            return 0

        def chmod(self, path: str, mode: int) -> int:
            self._may("chmod")
            os.chmod(self._at(path), mode)
            return 0

        def utimens(self, path: str, times: Any = None) -> int:
            self._may("utimens")
            os.utime(self._at(path), ns=times, follow_symlinks=False)
            return 0

        def mkdir(self, path: str, mode: int) -> int:
            self._may("mkdir", path)
            os.mkdir(self._at(path), mode)
            return 0

        def rmdir(self, path: str) -> int:
            os.rmdir(self._at(path))
            return 0

        def unlink(self, path: str) -> int:
            self._may("unlink")
            os.unlink(self._at(path))
            return 0

        def link(self, target: str, source: str) -> int:
            self._may("link", target)
            os.link(self._at(source), self._at(target))
            return 0

        def rename(self, old: str, new: str, flags: int = 0) -> int:
            if "/.fuse_hidden" not in new:  # how libfuse itself removes what is open
                self._may("rename_noreplace" if flags else "rename", new)
            done = self.libc.renameat2(
                -100, os.fsencode(self._at(old)), -100, os.fsencode(self._at(new)), flags
            )
            if done:
                raise mfusepy.FuseOSError(ctypes.get_errno())
            return 0

        def statfs(self, path: str) -> dict[str, int]:
            self._may("statfs")
            found = os.statvfs(below)
            keys = ("bavail", "bfree", "blocks", "bsize", "favail", "ffree", "files", "frsize")
            told = {f"f_{key}": getattr(found, f"f_{key}") for key in keys}
            return {**told, "f_namemax": self.rules.get("told_name_max", 255)}

    Fuse(Passing(), mount, foreground=True, nothreads=True)


if __name__ == "__main__":
    serve(*sys.argv[1:4])
