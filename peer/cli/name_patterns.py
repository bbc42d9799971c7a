"""Patterns of names, as a shell has them: ``*``, ``?`` and ``[…]``.

Names are compared without case, as everywhere in a group. As in a shell, a name that begins with a
dot is matched only by a pattern that begins with one.
"""

from __future__ import annotations

import fnmatch
import re
import unicodedata
from collections.abc import Sequence

from common.names import fold_name

PATTERN_CHARACTERS_MAX = 1024
"""Longer than any name; bounds the time of a match."""


def is_pattern(text: str) -> bool:
    """Whether ``text`` has a character that stands for others."""
    return any(letter in text for letter in "*?[")


def matching(pattern: str, names: Sequence[str]) -> list[str]:
    """The ``names`` that match, in their order. A name that is ``pattern`` itself matches alone.

    Raises ValueError for a pattern that is too long.
    """
    if len(pattern) > PATTERN_CHARACTERS_MAX:
        raise ValueError(f"a pattern has at most {PATTERN_CHARACTERS_MAX:,} characters")
    literal = [name for name in names if fold_name(name) == fold_name(pattern)]
    if literal:
        return literal
    match = re.compile(fnmatch.translate(_folded(pattern))).match
    hidden = pattern.startswith(".")
    return [name for name in names if match(_folded(name)) and hidden >= name.startswith(".")]


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", text.casefold())
