"""Rundown guard: calls run inside it, and closing waits for them.

Owns: the counting and the waiting. Not here: the guarded files.
"""

from __future__ import annotations

from threading import Condition, Lock

from peer.files.errors import StorageClosed


class InUseGuard:
    """Admits calls until it is closed (then `StorageClosed`); closing waits for those inside.

    Why: the number of a descriptor that is closed during a call could be given to another file at
    once, and the call would write there.
    """

    def __init__(self) -> None:
        self._changed = Condition(Lock())
        self._inside = 0
        self._closed = False

    def __enter__(self) -> None:
        with self._changed:
            if self._closed:
                raise StorageClosed("the download was closed")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._inside -= 1
            if self._closed:
                self._changed.notify_all()

    def close(self) -> bool:
        """Close it; return whether this call was the first."""
        with self._changed:
            first = not self._closed
            self._closed = True
            while self._inside:
                self._changed.wait()
            return first
