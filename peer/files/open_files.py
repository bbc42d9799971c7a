"""Cache of open files, bounded in number.

Owns: the closing of handles. A handle in use by a thread is never closed, because its number could
be given to another file at once. Not here: how a file is opened.
"""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from threading import Lock

Key = tuple[Hashable, int]
"""Owner of a file, and which one of its files."""

HANDLES_MAX = 128  # of a usual limit of 1,024, shared with sockets and everything else


class _Handle:
    __slots__ = ("fd", "kept", "users")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.users = 0
        self.kept = True  # while in the cache; otherwise the last user closes it


class HandleCache:
    """Least recently used first out. Thread safety: every method."""

    def __init__(self, limit: int = HANDLES_MAX) -> None:
        self._limit = limit
        self._lock = Lock()
        self._handles: OrderedDict[Key, _Handle] = OrderedDict()

    @contextmanager
    def using(self, key: Key, opener: Callable[[], int]) -> Iterator[int]:
        """The file descriptor of ``key``, opened by ``opener`` if none is kept."""
        handle = self._taken(key) or self._opened(key, opener)
        try:
            yield handle.fd
        finally:
            self._release(handle)

    def _taken(self, key: Key) -> _Handle | None:
        with self._lock:
            handle = self._handles.get(key)
            if handle is not None:
                handle.users += 1
                self._handles.move_to_end(key)
            return handle

    def _opened(self, key: Key, opener: Callable[[], int]) -> _Handle:
        fresh = _Handle(self.open_evicting(opener))
        with self._lock:
            handle = self._handles.setdefault(key, fresh)
            handle.users += 1
            surplus = self._evicted(self._limit)
        if handle is not fresh:  # another thread opened it meanwhile
            surplus.append(fresh.fd)
        _close(surplus)
        return handle

    def open_evicting(self, opener: Callable[[], int]) -> int:
        """Call ``opener``; if the process has no descriptor left, close idle handles first."""
        try:
            return opener()
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
        with self._lock:
            idle = self._evicted(0)
        _close(idle)
        return opener()

    def _release(self, handle: _Handle) -> None:
        with self._lock:
            handle.users -= 1
            last = handle.users == 0 and not handle.kept
        if last:
            os.close(handle.fd)

    def _evicted(self, limit: int) -> list[int]:
        if len(self._handles) <= limit:
            return []
        idle = [key for key, handle in self._handles.items() if handle.users == 0]
        return [self._handles.pop(key).fd for key in idle[: len(self._handles) - limit]]

    def close_owner(self, owner: Hashable) -> None:
        """Close every handle of ``owner``; a handle in use is closed after its use."""
        with self._lock:
            gone = [self._handles.pop(key) for key in list(self._handles) if key[0] == owner]
            for handle in gone:
                handle.kept = False
            idle = [handle.fd for handle in gone if handle.users == 0]
        _close(idle)

    def close(self) -> None:
        """Close all handles; a handle in use is closed after its use."""
        with self._lock:
            owners = {key[0] for key in self._handles}
        for owner in owners:
            self.close_owner(owner)


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
