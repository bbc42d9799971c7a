"""Sizes, rates, times and counts as people read them, the same in every text of both programs."""

from __future__ import annotations

import re
from datetime import UTC, datetime

LATEST_MS = 253_402_300_799_000  # the end of the year 9999: no later one can be written

_DURATION = re.compile(r"(?P<number>[0-9]{1,9}(?:\.[0-9]{1,3})?) ?(?P<unit>[smhd])")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def size_text(size: float) -> str:
    """Format a size: ``1.5 GiB``. Below 1024 bytes it is exact."""
    if size < 1024:
        return f"{int(size)} B"
    power = 0
    while size >= 1024 and power < 4:
        size /= 1024
        power += 1
    unit = ("B", "KiB", "MiB", "GiB", "TiB")[power]
    return f"{size:.0f} {unit}" if size >= 100 or size == int(size) else f"{size:.1f} {unit}"


def rate_text(rate: float) -> str:
    """Bytes a second for people."""
    return f"{size_text(rate)}/s"


def time_text(seconds: float | None) -> str:
    """Format a duration: ``0.4 s``, ``12 s``, ``3 min 5 s``, ``2 h 4 min``; empty for None."""
    if seconds is None:
        return ""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def rfc3339(time_ms: int) -> str:
    """Milliseconds since 1970 in RFC 3339, in UTC; of all after the year 9999 its last moment."""
    moment = datetime.fromtimestamp(min(time_ms, LATEST_MS) / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def moment_text(time: str, *, seconds: bool = False) -> str:
    """An RFC 3339 time as the clock on the wall here shows it; what is none stays as it is."""
    try:
        moment = datetime.fromisoformat(time).astimezone()
    except ValueError:
        return time
    return moment.strftime("%Y-%m-%d %H:%M:%S" if seconds else "%Y-%m-%d %H:%M")


def number_text(number: int) -> str:
    """Format a number: ``999``, ``3,000``."""
    return f"{number:,}"


def count_text(count: int, one: str, many: str | None = None) -> str:
    """Format a count of things: ``1 peer``, ``3,000 peers``."""
    return f"{number_text(count)} {one if count == 1 else many or one + 's'}"


def percent_text(part: int, whole: int) -> str:
    """The percentage of ``whole``, rounded down, so that 100 % means all."""
    return f"{100 if whole <= 0 else part * 100 // whole} %"


def parse_duration(text: str) -> float:
    """Seconds of ``90s``, ``10m``, ``12h``, ``7d``, ``1.5h``. Raises ValueError for other texts and
    for no time at all.
    """
    match = _DURATION.fullmatch(text.strip().lower())
    seconds = float(match["number"]) * _UNIT_S[match["unit"]] if match else 0.0
    if not seconds:
        raise ValueError(f"{text!r} is not a duration; write it like 90s, 10m, 12h or 7d")
    return seconds
