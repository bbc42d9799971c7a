"""Log of a background peer: its last lines, and the lines that are added.

Owns reading it, also while it is replaced by a shorter one. Every text in it may come from others.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from common.errors import StorageError

POLL_S = 0.3
LOG = "peer.log"
LINE_MAX = 65_536  # characters; what is longer is printed in parts


class PeerLog:
    """The log in a home. Raises `StorageError` if it cannot be read."""

    def __init__(self, home: Path) -> None:
        self.path = home / LOG
        try:
            self._file: TextIO = self.path.open(encoding="utf-8", errors="backslashreplace")
        except FileNotFoundError as error:
            raise StorageError(
                f"there is no log {self.path}: no peer has run in the background here",
                "a service logs to its journal: journalctl --user -u mini-torrent",
            ) from error
        except OSError as error:
            raise StorageError(f"cannot read {self.path}: {error.strerror}") from error

    def last(self, count: int) -> list[str]:
        """The last lines so far."""
        return list(deque(self._lines(), maxlen=count))

    def news(self) -> Iterator[str]:
        """The lines that were added since; waits a moment if there are none."""
        found = False
        for line in self._lines():
            found = True
            yield line
        if not found:
            time.sleep(POLL_S)
            self._follow_replacement()

    def _lines(self) -> Iterator[str]:
        """The lines that are complete, or as long as a line may be."""
        while True:
            at = self._file.tell()
            line = self._file.readline(LINE_MAX)
            if not line.endswith("\n") and len(line) < LINE_MAX:
                self._file.seek(at)  # the rest is still being written
                return
            yield line.rstrip("\n")

    def _follow_replacement(self) -> None:
        """Read from the start if the log was truncated or replaced."""
        try:
            status = self.path.stat()
        except OSError:
            return
        now = os.fstat(self._file.fileno())
        if (status.st_dev, status.st_ino) != (now.st_dev, now.st_ino):
            self._file.close()
            self._file = self.path.open(encoding="utf-8", errors="backslashreplace")
        elif status.st_size < self._file.tell():
            self._file.seek(0)
