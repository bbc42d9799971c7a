"""Rule of a share: links, excluded paths, and files that cannot be shared.

Owns: the form of the rule, which its user gives and its record keeps, and the reading of patterns.
Not here: its application to a folder (see peer.files.scanning), safe reading of link targets (see
peer.files.link_targets).
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

import msgspec

from common.errors import ConfigError
from common.names import quoted
from peer.files.errors import Unreadable

_FOLDER_MARK = "ps_d"  # pathspec's group at the / behind a folder that a pattern matches
SKIPPED_MAX = 1_000  # entries that are named as left out; the rest is counted


class Links(StrEnum):
    """Treatment of the symbolic links inside a folder."""

    REFUSE = "refuse"
    FOLLOW = "follow"
    SKIP = "skip"


class SharingRule(msgspec.Struct, frozen=True, array_like=True):
    """Rule for the entries of a shared folder. ``roots``: further folders that may hold link
    targets, as real paths in bytes; ``exclude``: patterns as in a ``.gitignore``; ``skip``: leave
    out the entries that cannot be shared.
    """

    links: str = Links.REFUSE.value
    roots: tuple[bytes, ...] = ()
    exclude: tuple[str, ...] = ()
    skip: bool = False


class Skipped(NamedTuple):
    """An entry that was left out. ``path`` is within the share; a folder's ends with ``/``."""

    path: str
    reason: str


def rule_of(links: str, roots: Sequence[str], exclude: Sequence[str], skip: bool) -> SharingRule:
    """The rule that a user gave, with ``roots`` as real paths.

    Raises `ConfigError` for a pattern, `Unreadable` for a root that is no folder.
    """
    try:
        links = Links(links).value
    except ValueError:
        raise ConfigError(f"links cannot be {quoted(links)}", "refuse, follow or skip") from None
    if roots and links != Links.FOLLOW:
        raise ConfigError("a folder for link targets needs links that are followed")
    exclusion(exclude)
    real = tuple(os.fsencode(_real_folder(root)) for root in roots)
    return SharingRule(links, real, tuple(exclude), skip)


def _real_folder(path: str) -> str:
    real = os.path.realpath(path)
    if not os.path.isdir(real):
        raise Unreadable(f"cannot follow links into {quoted(path)}: not a folder")
    return real


class Exclusion:
    """Matcher of paths within a folder, as git reads the patterns of a ``.gitignore``.

    The caller does not enter excluded folders, so a pattern counts for the path that it names, and
    not for what is below.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        from pathspec import GitIgnoreSpec

        # Why without the last /: the path of a folder has none either, so that a match of a folder
        # above shows by its mark.
        texts = [text.rstrip() for text in patterns]
        found = GitIgnoreSpec.from_lines([text.rstrip("/") or "/" for text in texts]).patterns
        self._patterns = [
            (pattern.regex, text.endswith("/"), bool(pattern.include))
            for text, pattern in zip(texts, found, strict=True)
            if pattern.regex is not None
        ]
        self._patterns.reverse()

    def excludes(self, path: str, *, folder: bool) -> bool:
        """Whether the last pattern that matches ``path`` is one without ``!``."""
        for regex, folders_only, excluded in self._patterns:
            if folders_only and not folder:
                continue
            found = regex.search(path)
            if found is not None and not _matches_above(found):
                return excluded
        return False


def _matches_above(found: re.Match[str]) -> bool:
    """Whether a pattern matches a folder above the path alone."""
    return found.groupdict().get(_FOLDER_MARK) is not None


def exclusion(patterns: Sequence[str]) -> Exclusion | None:
    """The matcher of ``patterns``; None if there are none.

    Raises `ConfigError` for a pattern that is invalid or that matches nothing.
    """
    if not patterns:
        return None
    for pattern in patterns:
        if not pattern.strip():
            raise ConfigError("exclude: the pattern is empty")
        if pattern.startswith("#"):
            raise ConfigError(
                f"exclude {quoted(pattern)}: # begins a comment in such patterns",
                "write \\# for a name that begins with #",
            )
        try:
            Exclusion([pattern])
        except ValueError as error:
            raise ConfigError(f"exclude {quoted(pattern)}: the pattern is invalid") from error
    return Exclusion(patterns)
