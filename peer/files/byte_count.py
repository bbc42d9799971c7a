"""Count of bytes that worker threads read to digest them, for the metrics."""

from __future__ import annotations

from threading import Lock


class ByteCount:
    """Sum that grows. Thread safety: all methods. Why a lock: adding is no single step."""

    def __init__(self) -> None:
        self._lock = Lock()
        self.total = 0

    def add(self, size: int) -> None:
        """Add ``size`` bytes."""
        with self._lock:
            self.total += size


DIGESTED = ByteCount()
"""Bytes of contents on the disk that this process has read to digest them: shared, verified again,
taken up after a restart, or read back for the digest of the whole."""
