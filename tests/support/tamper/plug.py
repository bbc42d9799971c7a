"""A supply that can be cut: what was written to a part and not synced is lost, in any choice.

`install` makes a process keep, before each write to a part, what was there; each sync forgets what
it made durable. After the process was killed, `pull` puts back some of what was not synced: a disk
with a cache writes in the order that it likes.
"""

from __future__ import annotations

import os
import pickle
import random
import struct
import threading
from pathlib import Path

_LENGTH = struct.Struct(">Q")


def install(path: str) -> None:
    from peer.files import partfile
    from peer.files.partial_content import PartialContent

    lock = threading.Lock()
    log = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    write, sync, seal = (getattr(partfile.PartFile, n) for n in ("write", "sync", "seal"))
    hold_stored = PartialContent.hold_stored

    def keep(part, offset, before):  # type: ignore[no-untyped-def]
        entry = pickle.dumps((part._destination.part_path, offset, before))
        os.write(log, _LENGTH.pack(len(entry)) + entry)

    def kept_write(self, offset, data):  # type: ignore[no-untyped-def]
        with lock:
            keep(self, offset, os.pread(self.fd, len(data), offset))
        write(self, offset, data)

    def kept_hold_stored(self, pieces, run):  # type: ignore[no-untyped-def]
        # The compiled data path has written them, each for the first time: zeros were there.
        length = self.manifest.piece_length
        with lock:
            for piece in pieces:
                keep(self._files, piece * length, bytes(length))
        hold_stored(self, pieces, run)

    def kept_sync(self):  # type: ignore[no-untyped-def]
        # What is written while the sync runs may be durable or not: it counts as not.
        with lock:
            mark = os.lseek(log, 0, os.SEEK_END)
        sync(self)
        with lock:
            rest = os.pread(log, os.lseek(log, 0, os.SEEK_END) - mark, mark)
            os.ftruncate(log, 0)
            os.write(log, rest)

    def kept_seal(self):  # type: ignore[no-untyped-def]
        seal(self)
        with lock:
            os.ftruncate(log, 0)

    partfile.PartFile.write = kept_write  # type: ignore[method-assign]
    partfile.PartFile.sync = kept_sync  # type: ignore[method-assign]
    PartialContent.hold_stored = kept_hold_stored  # type: ignore[method-assign]
    partfile.PartFile.seal = kept_seal  # type: ignore[method-assign]


def pull(path: Path, rng: random.Random) -> int:
    """Undo some of the writes that were not synced; returns how many there were."""
    entries, data, at = [], path.read_bytes(), 0
    while at + _LENGTH.size <= len(data):
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size + length
        if at <= len(data):
            entries.append(pickle.loads(data[at - length : at]))
    for part, offset, before in reversed(entries):
        if rng.random() < 0.7 and os.path.exists(part):
            with open(part, "r+b") as file:
                file.seek(offset)
                # A write may be torn as well: a sector here, a sector there.
                cut = rng.choice((0, 512, len(before) // 2))
                file.seek(offset + cut)
                file.write(before[cut:])
    path.write_bytes(b"")
    return len(entries)
