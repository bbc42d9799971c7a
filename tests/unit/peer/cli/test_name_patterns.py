"""Patterns of names."""

from __future__ import annotations

import pytest

from peer.cli.name_patterns import is_pattern, matching

NAMES = ["a.iso", "B.ISO", ".hidden", "a[1].iso", "a1.iso", "caf\u0065\u0301", "line\nend"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*", ["a.iso", "B.ISO", "a[1].iso", "a1.iso", "caf\u0065\u0301", "line\nend"]),
        ("*.iso", ["a.iso", "B.ISO", "a[1].iso", "a1.iso"]),
        ("?.iso", ["a.iso", "B.ISO"]),
        ("a[1].iso", ["a[1].iso"]),
        ("a[0-9].iso", ["a1.iso"]),
        (".*", [".hidden"]),
        ("caf?", ["caf\u0065\u0301"]),
        ("[", []),
    ],
)
def test_a_pattern_matches_as_in_a_shell(pattern: str, found: list[str]) -> None:
    assert is_pattern(pattern)
    assert matching(pattern, NAMES) == found


def test_H125_a_slow_pattern_ends_soon() -> None:
    pattern = "*a" * 500 + "b"
    assert matching(pattern, ["a" * 255] * 200) == []
    with pytest.raises(ValueError, match="at most"):
        matching("*" * 2000, NAMES)
