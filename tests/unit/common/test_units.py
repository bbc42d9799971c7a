"""Durations as users type them."""

from __future__ import annotations

import pytest

from common.units import parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("12h", 43200), ("7d", 604800), ("1.5H", 5400), (" 2 d ", 172800)],
)
def test_a_duration_is_read_with_its_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "10", "s", "0s", "-5s", "1w", "1h30m", "1e3s", "٣s", "9" * 40]
)
def test_another_text_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="90s, 10m, 12h or 7d"):
        parse_duration(text)
