"""Held pieces of a download: verified and written, and those of them that a crash may still lose.

Owns: the set of held pieces, their number, and the runs that were written since the last sync. Not
here: verifying, writing and syncing (see peer.files.partial_content).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from threading import Lock


class HeldPieces:
    """Verified pieces of a part. ``wanted``: the pieces of a selection; None for all.

    Thread safety: every method. ``_lock`` guards the number and the unsynced runs."""

    def __init__(self, piece_count: int, wanted: Iterable[int] | None = None) -> None:
        self._held = bytearray(piece_count)  # by piece: 1 when held
        self._wanted = bytearray(b"\1" if wanted is None else b"\0") * piece_count
        for index in wanted or ():
            self._wanted[index] = 1
        self._missing = sum(self._wanted)
        self._lock = Lock()
        self._count = 0
        self._unsynced: list[range] = []  # runs of pieces, each as it was written at once

    def __len__(self) -> int:
        return self._count

    def has(self, index: int) -> bool:
        """Whether piece ``index`` is held."""
        return bool(self._held[index])

    @property
    def is_complete(self) -> bool:
        """Whether every wanted piece is held."""
        return not self._missing

    def indexes(self) -> list[int]:
        """The held pieces, ascending."""
        return [index for index, held in enumerate(self._held) if held]

    @property
    def unsynced_count(self) -> int:
        return sum(map(len, self._unsynced))

    def add(self, pieces: range, *, unsynced: bool) -> None:
        """Hold ``pieces``. ``unsynced``: the next checkpoint must sync and journal them."""
        with self._lock:
            for index in pieces:
                if not self._held[index]:
                    self._count += 1
                    self._missing -= self._wanted[index]
                    self._held[index] = 1
            if unsynced:
                self._unsynced.append(pieces)

    def remove(self, pieces: Iterable[int]) -> None:
        """Hold ``pieces`` no longer."""
        with self._lock:
            for index in pieces:
                if self._held[index]:
                    self._count -= 1
                    self._missing += self._wanted[index]
                    self._held[index] = 0

    def take_unsynced(self) -> list[range]:
        """The runs written since the last call; the caller syncs them or puts them back."""
        with self._lock:
            runs, self._unsynced = self._unsynced, []
            return runs

    def requeue_unsynced(self, runs: list[range]) -> None:
        """Take ``runs`` for unsynced again, before those written meanwhile."""
        with self._lock:
            self._unsynced = runs + self._unsynced


def split(pieces: Iterable[int], kind: Callable[[int], bool]) -> list[tuple[bool, range]]:
    """Ascending pieces as runs of adjacent ones of one kind, each with its kind."""
    runs: list[tuple[bool, range]] = []
    for index in pieces:
        begin, found = index, kind(index)
        if runs and runs[-1][0] == found and runs[-1][1].stop == index:
            begin = runs.pop()[1].start
        runs.append((found, range(begin, index + 1)))
    return runs


def runs_of(pieces: Iterable[int]) -> list[range]:
    """Ascending pieces as runs of adjacent ones."""
    return [run for _, run in split(pieces, lambda _: True)]
