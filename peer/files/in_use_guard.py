"""A gate that calls pass through, so that what they use is not closed while they use it.

Owns the counting and waiting; knows nothing of what is behind it.
"""

from __future__ import annotations

from threading import Condition, Lock

from peer.files.errors import StorageClosed


class InUseGuard:
    """Lets calls in until it is closed (then `StorageClosed`); closing waits for those inside.

    A descriptor that is closed under a call could be given to another file at once, and the call
    would write there.
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
        """Whether this call was the one that closed it."""
        with self._changed:
            first = not self._closed
            self._closed = True
            while self._inside:
                self._changed.wait()
            return first
