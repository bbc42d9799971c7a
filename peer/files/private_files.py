"""Hidden and private files below a path, counted and named before they are shared.

Hidden: the name, or the name of a folder above, begins with a dot. Private: neither the group nor
others may read the file, or enter its folder. Not here: the decision, which is the user's.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from common.names import quoted

NAMED_MAX = 6  # names in a question; the rest is counted
_READ_BY_OTHERS = stat.S_IRGRP | stat.S_IROTH
_ENTERED_BY_OTHERS = stat.S_IXGRP | stat.S_IXOTH


class Delicate(NamedTuple):
    """Result of a search. ``named``: the first ones; a folder stands for everything in it."""

    hidden: int = 0
    private: int = 0
    named: tuple[str, ...] = ()
    unnamed: int = 0

    def __bool__(self) -> bool:
        return bool(self.hidden or self.private)

    def words(self) -> str:
        """Name the files: ``2 hidden files and 1 file that only its owner may read: ".env",
        "key.pem"``."""
        parts = []
        if self.hidden:
            parts.append(f"{self.hidden} hidden file{'s' * (self.hidden != 1)}")
        if self.private == 1:
            parts.append("1 file that only its owner may read")
        elif self.private:
            parts.append(f"{self.private} files that only their owner may read")
        more = f" and {self.unnamed} more" if self.unnamed else ""
        return f"{' and '.join(parts)}: {', '.join(map(quoted, self.named))}{more}"


class Delicates:
    """Gathers such files during a walk."""

    def __init__(self) -> None:
        self._hidden = 0
        self._private = 0
        self._named: dict[str, None] = {}
        self._unnamed = 0
        self._last = ""  # of those that are not named, so that a folder counts once

    def add(self, path: str, reason: Reason | None, *, private: bool) -> None:
        """Count a file, or an empty folder. ``reason``: the reason of its folder."""
        hidden_by = reason if reason is not None and reason.hidden else None
        if hidden_by is None and os.path.basename(path).startswith("."):
            hidden_by = Reason(path, hidden=True)
        if hidden_by is not None:
            self._hidden += 1
            self._name(hidden_by.shown)
        elif reason is not None or private:
            self._private += 1
            self._name(path if reason is None else reason.shown)

    def _name(self, shown: str) -> None:
        if shown in self._named or shown == self._last:
            return
        if len(self._named) < NAMED_MAX:
            self._named[shown] = None
        else:
            self._unnamed += 1
            self._last = shown

    def found(self) -> Delicate:
        """The result."""
        return Delicate(self._hidden, self._private, tuple(self._named), self._unnamed)


class Reason(NamedTuple):
    """A folder that makes everything in it hidden or private; ``shown`` is its name."""

    shown: str
    hidden: bool


def reason_of(path: str, status: os.stat_result, above: Reason | None) -> Reason | None:
    """The reason that counts within the folder at ``path``; ``above`` is the reason above it."""
    if above is not None and above.hidden:
        return above
    if os.path.basename(path).startswith("."):
        return Reason(f"{path}/", hidden=True)
    if above is None and not status.st_mode & (_READ_BY_OTHERS | _ENTERED_BY_OTHERS):
        return Reason(f"{path}/", hidden=False)
    return above


def is_private(status: os.stat_result) -> bool:
    """Whether only its owner may read the file."""
    return not status.st_mode & _READ_BY_OTHERS
