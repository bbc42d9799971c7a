"""Timetable: limits of both directions that change at times of the week, in rclone's syntax.

Owns: the syntax of a timetable and of a rate, and the slot in force at an instant. Not here: the
clock, the time zone of this machine, and the limits themselves (see peer.bandwidth).

A slot begins at its time on the clock of the zone. Invariant: the slot in force depends on the
instant alone and never goes back. A time that the clock skips in spring begins when the clock has
skipped it; a time that the clock shows twice in autumn begins at the first of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from common.limits import KIB, RATE_MAX, RATE_MIN, TIMETABLE_SLOTS_MAX

_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_SLOT = re.compile(
    r"(?:(?P<day>[a-z]+)-)?(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2}),(?P<rates>[^\s;,]+)"
)
_RATE = re.compile(r"(?P<number>[0-9]{1,15}(?:\.[0-9]{1,6})?)(?P<unit>[bkmgt]?)(?:i?b)?(?:/s)?")
_UNITS = {"": 1, "b": 1, "k": KIB, "m": KIB**2, "g": KIB**3, "t": KIB**4}
_WEEK = timedelta(days=8)  # a week, and the day by which a zone may be ahead or behind


@dataclass(frozen=True, slots=True)
class Speeds:
    """Limits of both directions in bytes a second; 0 for none."""

    up: int
    down: int


@dataclass(frozen=True, slots=True, order=True)
class Slot:
    """Entry of a timetable: ``minute`` of the day ``weekday`` (0 is Monday) from which ``speeds``
    hold."""

    weekday: int
    minute: int
    speeds: Speeds


@dataclass(frozen=True, slots=True)
class InForce:
    """The limits at an instant, and the instant at which the next slot begins."""

    speeds: Speeds
    until: datetime


def parse_rate(text: str) -> int:
    """Bytes a second of ``5M``, ``800K``; 0 for ``0`` and ``off``. K, M, G are powers of 1024.

    Raises ValueError.
    """
    typed = text.strip().lower()
    if typed == "off":
        return 0
    match = _RATE.fullmatch(typed)
    if match is None:
        raise ValueError(f"{text!r} is not a rate; write it like 5M, 800K or off")
    rate = round(float(match["number"]) * _UNITS[match["unit"]])
    if rate and not RATE_MIN <= rate <= RATE_MAX:
        raise ValueError(
            f"{text!r} is {rate:,} bytes a second; a limit has at least {RATE_MIN // KIB}K and at "
            f"most {RATE_MAX // KIB**4}T, such as 5M, or it is off"
        )
    return rate


def parse_timetable(text: str) -> tuple[Slot, ...]:
    """The slots of ``08:00,5M 18:00,off`` or ``Mon-08:00,5M:1M Sat-00:00,off``, in order.

    Raises ValueError that names the faulty slot.
    """
    words = [word for word in re.split(r"[\s;]+", text.strip()) if word]
    if not words:
        raise ValueError("the timetable is empty; write it like '08:00,5M 18:00,off'")
    if len(words) > TIMETABLE_SLOTS_MAX:
        raise ValueError(f"a timetable has at most {TIMETABLE_SLOTS_MAX} slots, not {len(words)}")
    daily: dict[int, Speeds] = {}
    single: dict[tuple[int, int], Speeds] = {}
    for word in words:
        day, minute, speeds = _slot(word)
        twice = minute in daily if day is None else (day, minute) in single
        if twice:
            raise ValueError(f"two slots begin at the time of {word!r}")
        if day is None:
            daily[minute] = speeds
        else:
            single[day, minute] = speeds
    every = {(day, minute): speeds for day in range(7) for minute, speeds in daily.items()}
    every |= single  # a slot of one day has precedence over that of every day
    return tuple(sorted(Slot(day, minute, speeds) for (day, minute), speeds in every.items()))


def _slot(word: str) -> tuple[int | None, int, Speeds]:
    match = _SLOT.fullmatch(word.lower())
    if match is None:
        raise ValueError(
            f"{word!r} is not a slot of a timetable; write it like 08:00,5M or Mon-08:00,5M:1M"
        )
    hour, minute = int(match["hour"]), int(match["minute"])
    if hour > 23 or minute > 59:
        raise ValueError(f"{word!r}: there is no time {match['hour']}:{match['minute']}")
    day = None
    if match["day"] is not None:
        found = [at for at, name in enumerate(_DAYS) if match["day"] in (name, name[:3])]
        if not found:
            raise ValueError(f"{word!r}: {match['day']!r} is not a day; write Mon, Tue and so on")
        day = found[0]
    up, colon, down = match["rates"].partition(":")
    try:
        speeds = Speeds(_slot_rate(up), _slot_rate(down if colon else up))
    except ValueError as error:
        raise ValueError(f"{word!r}: {error}") from None
    return day, hour * 60 + minute, speeds


def _slot_rate(text: str) -> int:
    """A rate of a slot. Why no number alone: rclone takes it for KiB, other options for bytes."""
    if text.isdecimal() and int(text):
        raise ValueError(f"{text} needs a unit, such as {text}K")
    return parse_rate(text)


def in_force(slots: tuple[Slot, ...], instant: datetime, zone: tzinfo) -> InForce:
    """The slot in force at ``instant``, on the clock of ``zone``."""
    begun = next_at = None
    for begins, slot in sorted(_begins(slots, instant, zone)):
        if begins <= instant:
            begun = slot
        elif next_at is None:
            next_at = begins
    assert begun is not None
    assert next_at is not None
    return InForce(begun.speeds, next_at)


def _begins(
    slots: tuple[Slot, ...], instant: datetime, zone: tzinfo
) -> Iterator[tuple[datetime, Slot]]:
    """The beginnings of all slots within a week of ``instant``."""
    date = (instant - _WEEK).astimezone(zone).date()
    last = (instant + _WEEK).astimezone(zone).date()
    while date <= last:
        for slot in slots:
            if slot.weekday == date.weekday():
                hour, minute = divmod(slot.minute, 60)
                wall = datetime(date.year, date.month, date.day, hour, minute)
                yield _instant(wall, zone), slot
        date += timedelta(days=1)


def _instant(wall: datetime, zone: tzinfo) -> datetime:
    """The first instant at which the clock of ``zone`` shows ``wall`` or has skipped it."""
    late = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if late.astimezone(zone).replace(tzinfo=None) == wall:
        return late
    # The clock skips it: between these two it was put forward, from one second to the next.
    early = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
    after = late.astimezone(zone).utcoffset()
    while late - early > timedelta(seconds=1):
        middle = early + (late - early) // 2
        if middle.astimezone(zone).utcoffset() == after:
            late = middle
        else:
            early = middle
    return late.replace(microsecond=0)
