"""Problems of a walk over files to share: gathered, counted, and reported in one answer.

Owns: the text of each problem and its hint, and the list of what is left out under a rule that
skips. Not here: the walk (see peer.files.scanning).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from typing import NamedTuple

from common.errors import MiniTorrentError
from common.hints import hint
from common.names import BadName, quoted
from peer.files import paths
from peer.files.errors import Unreadable
from peer.files.sharing_rule import SKIPPED_MAX, SharingRule, Skipped

PROBLEMS_NAMED_MAX = 10  # in one answer; the rest is counted
ROOTS_HINTED_MAX = 3  # folders of link targets that a hint names; beyond, their common one
HOME_HINT = "share what is meant for others from a folder of its own"


def home_problem(shown: str, kind: str, where: str = "it is ") -> Unreadable:
    """The problem of a home, or of a file in one."""
    return Unreadable(
        f"cannot share {shown}: {where}the home of {kind}, with its secret keys", HOME_HINT
    )


class Typed(NamedTuple):
    """Words of the command, which hints repeat: the group, and the options but for links."""

    group: str = "GROUP"
    options: tuple[str, ...] = ()


class Problems:
    """Problems and left-out entries of one walk."""

    def __init__(self, root: str, rule: SharingRule, typed: Typed) -> None:
        self._root = root
        self._rule = rule
        self._typed = typed
        self._named: list[MiniTorrentError] = []
        self._skipped: list[Skipped] = []
        self._skipped_count = self._problem_count = 0
        self._outside: dict[str, None] = {}  # folders of targets beneath no root, in order

    @property
    def count(self) -> int:
        """Number of problems and of entries left out."""
        return self._problem_count + self._skipped_count

    def skipped(self) -> tuple[tuple[Skipped, ...], int]:
        """The entries left out, and the number of those that are not named."""
        return tuple(self._skipped), self._skipped_count - len(self._skipped)

    # -- gathering ------------------------------------------------------------------------------

    def leave_out(self, parts: Sequence[str], reason: str, *, folder: bool = False) -> None:
        """Note an entry that is left out whatever the rule says about problems."""
        self._skipped_count += 1
        if len(self._skipped) < SKIPPED_MAX:
            self._skipped.append(Skipped("/".join(parts) + "/" * folder, reason))

    def add(
        self,
        parts: Sequence[str],
        error: MiniTorrentError,
        *,
        reason: str | None = None,
        folder: bool = False,
    ) -> None:
        """Note a problem of an entry, or leave that out. ``reason``: without the path."""
        if self._rule.skip and parts:
            self.leave_out(parts, reason or _reason(error), folder=folder)
            return
        self._problem_count += 1
        if self._problem_count <= PROBLEMS_NAMED_MAX:
            self._named.append(error)

    def add_unreadable(self, parts: Sequence[str], error: OSError) -> None:
        """Note an entry that could not be looked at."""
        reason = os.strerror(error.errno or 0)
        self.add(parts, Unreadable(f"cannot share {self._shown(parts)}: {reason}"), reason=reason)

    def add_special(self, parts: Sequence[str], status: os.stat_result) -> None:
        """Note an entry that is no plain file."""
        kind = paths.kind_of(status)
        error = Unreadable(
            f"{self._shown(parts)} is {kind}, which cannot be shared",
            self._link_hint() if stat.S_ISLNK(status.st_mode) else _PLAIN_ONLY,
        )
        self.add(parts, error, reason=kind)

    def add_link(self, parts: Sequence[str], path: str, error: OSError) -> None:
        """Note a link that cannot be followed because of ``error`` of its lookup."""
        if error.errno == errno.EXDEV:
            real = os.path.realpath(path)
            if not self._rule.skip:
                self._outside.setdefault(os.path.dirname(real))
            reason = f"a link that leads out of the shared folder, to {quoted(real)}"
        elif error.errno == errno.ENOENT:
            reason = "a link to nothing"
        elif error.errno == errno.ELOOP:
            reason = "one of the links that form a loop"
        else:
            reason = f"a link that cannot be followed: {os.strerror(error.errno or 0)}"
        self.add(parts, Unreadable(f"{self._shown(parts)} is {reason}"), reason=reason)

    # -- reporting ------------------------------------------------------------------------------

    def raise_all(self, *, left: int, excluded: int) -> None:
        """Raise one error for all problems; or for a walk that left out everything."""
        if self._problem_count == 0:
            if not left and (excluded or self._skipped):
                raise Unreadable(f"cannot share {quoted(self._root)}: {self._nothing()}")
            return
        hints = dict.fromkeys(error.hint for error in self._named if error.hint)
        if self._outside:
            hints[self._root_hint()] = None
        text = "; ".join(hints) or None
        if self._problem_count == 1:
            self._named[0].hint = text
            raise self._named[0]
        more = self._problem_count - len(self._named)
        told = "; ".join(error.message for error in self._named)
        kind = BadName if all(isinstance(e, BadName) for e in self._named) else Unreadable
        raise kind(
            f"cannot share {quoted(self._root)}: {self._problem_count} problems: {told}"
            + (f"; and {more} more" if more else ""),
            text,
        )

    def _nothing(self) -> str:
        if not self._skipped:
            return "everything in it is excluded"
        first = self._skipped[0]
        return f"nothing of it can be shared ({quoted(first.path)}: {first.reason})"

    def _link_hint(self) -> str:
        options = [*self._typed.options, "--links", "follow"]
        return hint(
            "share the targets of its links in their place",
            "upload-file",
            self._root,
            self._typed.group,
            options=options,
        )

    def _root_hint(self) -> str:
        """The command that names the folders of the targets outside."""
        folders = list(self._outside)
        if len(folders) > ROOTS_HINTED_MAX:
            folders = [os.path.commonpath(folders)]
        roots = [*map(os.fsdecode, self._rule.roots), *folders]
        options = [*self._typed.options, "--links", "follow"]
        for root in roots:
            options += ["--link-root", root]
        words = "name the folder that may hold targets, if all of it may be shared"
        return hint(words, "upload-file", self._root, self._typed.group, options=options)

    def _shown(self, parts: Sequence[str]) -> str:
        return quoted(os.path.join(self._root, *parts))


_PLAIN_ONLY = "only plain files and folders can be"


def _reason(error: MiniTorrentError) -> str:
    """The reason of a problem, without the path before it, which the row names."""
    return error.message.rpartition(": ")[2]
