"""Recent log: the latest lines of a tracker's log in memory, for its page.

Thread safety: any thread may log. Limits: `LINES_MAX` lines of `LINE_CHARACTERS_MAX` characters.
"""

from __future__ import annotations

import logging
from collections import deque

from common.messages.operator import Log, LogRow
from common.names import printable
from common.units import rfc3339

LINES_MAX = 1_000
LINE_CHARACTERS_MAX = 1_000


class RecentLog(logging.Handler):
    """Handler of the root logger, at the level of the log itself."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: deque[LogRow] = deque(maxlen=LINES_MAX)
        self._count = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line; of a traceback its last line alone, the log itself has the rest."""
        try:
            text = record.getMessage()
            if record.exc_info and record.exc_info[1] is not None:
                error = record.exc_info[1]
                text += f" ({type(error).__name__}: {error})"
        except Exception:
            text = "a line that cannot be shown"
        self._count += 1  # the lock of the handler is held
        self._lines.append(
            LogRow(
                number=self._count,
                time=rfc3339(round(record.created * 1000)),
                level=record.levelname,
                source=record.name,
                text=printable(text[:LINE_CHARACTERS_MAX]),
            )
        )

    def after(self, number: int) -> Log:
        """Return the lines after ``number``, oldest first; all if that is of an earlier run."""
        self.acquire()
        try:
            if number > self._count:
                number = 0
            return Log([line for line in self._lines if line.number > number])
        finally:
            self.release()
