"""Glob patterns for names of shares: ``*``, ``?`` and ``[…]`` of a shell, without case.

Owns: the rules for patterns that other devices read, and matching. Patterns of other users are
hostile: they are bounded, and a match takes at most time proportional to both lengths, because
`fnmatch` writes a regular expression without nested backtracking.
"""

from __future__ import annotations

import fnmatch
import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache

from common import limits
from common.names import BadName, printable, quoted

EVERYTHING = ("*",)


def check_globs(globs: Sequence[str]) -> tuple[str, ...]:
    """Return ``globs`` in order, each once. Raise `BadName` for one that can match no name."""
    if len(globs) > limits.GLOBS_MAX:
        raise BadName(f"there are {len(globs)} patterns: at most {limits.GLOBS_MAX} are allowed")
    for glob in globs:
        fault = _fault_of(glob)
        if fault is not None:
            raise BadName(f"the pattern {quoted(glob)} is not allowed: {fault}")
    return tuple(dict.fromkeys(globs))


def _fault_of(glob: str) -> str | None:
    if not glob:
        return "it is empty"
    if len(glob) > limits.GLOB_CHARACTERS_MAX:
        return f"it is longer than {limits.GLOB_CHARACTERS_MAX} characters"
    if "/" in glob:
        return "names of shares contain no '/'"
    if printable(glob) != glob:
        return "it contains a control, direction-changing, invisible or undecodable character"
    return None


def matches(globs: Sequence[str], name: str) -> bool:
    """Whether ``name`` matches one of ``globs``, or `EVERYTHING` if there are none.

    As in a shell, a leading dot matches only a leading dot. Why: a hidden file in the home of a
    user may be a program, and another member must not place it there.
    """
    hidden, folded = name.startswith("."), _folded(name)
    return any(
        _matcher(glob)(folded) for glob in globs or EVERYTHING if glob.startswith(".") or not hidden
    )


@lru_cache(4_096)  # one pattern meets thousands of names
def _matcher(glob: str) -> Callable[[str], re.Match[str] | None]:
    return re.compile(fnmatch.translate(_folded(glob))).match


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", text.casefold())
