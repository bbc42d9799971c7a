"""Timetables of limits: rclone's syntax, and the slot in force at fixed instants of many zones."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from common.limits import KIB, MIB
from peer.swarm.timetable import Speeds, in_force, parse_rate, parse_timetable

BERLIN = ZoneInfo("Europe/Berlin")
NIGHT = parse_timetable("08:00,5M 18:00,off")


def at(text: str, zone: ZoneInfo = BERLIN, fold: int = 0) -> datetime:
    """The instant at which a clock of ``zone`` shows ``text``."""
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).astimezone(UTC)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("5M", 5 * MIB),
        ("800K", 800 * KIB),
        ("0", 0),
        ("off", 0),
        ("OFF", 0),
        ("1.5m", 3 * MIB // 2),
        ("2048", 2048),
        ("10MiB", 10 * MIB),
        ("1G/s", 1024 * MIB),
    ],
)
def test_rates(text: str, rate: int) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "5", "-5M", "fast", "5X", "1e3", "9999999T", "5 M M", "½M"])
def test_another_text_is_no_rate(text: str) -> None:
    with pytest.raises(ValueError, match=r"rate|bytes a second"):
        parse_rate(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("5M", "not a slot"),
        ("08:00", "not a slot"),
        ("08:00,", "not a slot"),
        ("24:00,5M", "no time 24:00"),
        ("08:60,5M", "no time 08:60"),
        ("Fun-08:00,5M", "not a day"),
        ("08:00,5M 8:00,1M", "two slots"),
        ("Mon-08:00,5M monday-08:00,1M", "two slots"),
        ("08:00,512", "needs a unit"),
        ("08:00,fast", "not a rate"),
        ("08:00,5M:", "not a rate"),
        (" ".join(f"{hour:02}:{m:02},1M" for hour in range(24) for m in range(60)), "at most 200"),
    ],
)
def test_a_wrong_timetable_is_refused_by_its_slot(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_timetable(text)


@pytest.mark.parametrize(
    ("instant", "up", "until"),
    [
        ("2026-06-01T07:59:59", 0, "2026-06-01T08:00"),
        ("2026-06-01T08:00", 5 * MIB, "2026-06-01T18:00"),
        ("2026-06-01T17:59:59", 5 * MIB, "2026-06-01T18:00"),
        ("2026-06-01T18:00", 0, "2026-06-02T08:00"),
        ("2026-12-31T23:00", 0, "2027-01-01T08:00"),
    ],
)
def test_every_day(instant: str, up: int, until: str) -> None:
    found = in_force(NIGHT, at(instant), BERLIN)
    assert (found.speeds, found.until) == (Speeds(up, up), at(until))


def test_days_of_the_week_last_until_the_next_slot() -> None:
    table = parse_timetable("Mon-08:00,5M Sat-00:00,off")
    for instant, up, until in (
        ("2026-06-01T07:59", 0, "2026-06-01T08:00"),  # a Monday
        ("2026-06-03T12:00", 5 * MIB, "2026-06-06T00:00"),
        ("2026-06-06T00:00", 0, "2026-06-08T08:00"),
        ("2026-06-07T23:59", 0, "2026-06-08T08:00"),
    ):
        found = in_force(table, at(instant), BERLIN)
        assert (found.speeds.up, found.until) == (up, at(until)), instant


def test_a_slot_of_one_day_precedes_that_of_every_day_and_directions_differ() -> None:
    table = parse_timetable("08:00,5M:1M; sunday-8:00,off:100K")
    assert in_force(table, at("2026-06-06T09:00"), BERLIN).speeds == Speeds(5 * MIB, MIB)
    assert in_force(table, at("2026-06-07T09:00"), BERLIN).speeds == Speeds(0, 100 * KIB)
    assert in_force(table, at("2026-06-08T09:00"), BERLIN).speeds == Speeds(5 * MIB, MIB)


def test_one_slot_holds_always() -> None:
    table = parse_timetable("Wed-12:00,1M")
    for day in range(14):
        instant = at("2026-06-01T00:00") + timedelta(days=day, hours=3)
        found = in_force(table, instant, BERLIN)
        assert found.speeds == Speeds(MIB, MIB)
        assert instant < found.until <= instant + timedelta(days=7)


def test_f124_a_skipped_hour_begins_its_slots_when_it_was_skipped() -> None:
    """On 29 March 2026 the clocks of Berlin go from 02:00 to 03:00, at 01:00 UTC."""
    table = parse_timetable("01:30,1M 02:15,2M 02:30,3M 03:15,4M")
    for utc, up in (
        ("2026-03-29T00:29:59", 4),
        ("2026-03-29T00:30:00", 1),
        ("2026-03-29T00:59:59", 1),
        ("2026-03-29T01:00:00", 3),
        ("2026-03-29T01:14:59", 3),
        ("2026-03-29T01:15:00", 4),
    ):
        found = in_force(table, datetime.fromisoformat(utc).replace(tzinfo=UTC), BERLIN)
        assert found.speeds.up == up * MIB, utc
    before = in_force(table, datetime(2026, 3, 29, 0, 45, tzinfo=UTC), BERLIN)
    assert before.until == datetime(2026, 3, 29, 1, 0, tzinfo=UTC)


def test_f124_an_hour_shown_twice_begins_its_slots_once() -> None:
    """On 25 October 2026 the clocks of Berlin go from 03:00 to 02:00, at 01:00 UTC."""
    table = parse_timetable("01:00,1M 02:30,2M 04:00,3M")
    for wall, fold, up in (
        ("2026-10-25T02:29", 0, 1),
        ("2026-10-25T02:30", 0, 2),
        ("2026-10-25T02:10", 1, 2),
        ("2026-10-25T02:30", 1, 2),
        ("2026-10-25T04:00", 0, 3),
    ):
        assert in_force(table, at(wall, fold=fold), BERLIN).speeds.up == up * MIB, (wall, fold)


@pytest.mark.parametrize(
    "name", ["Australia/Lord_Howe", "Asia/Kathmandu", "America/St_Johns", "Pacific/Apia", "UTC"]
)
def test_the_next_slot_begins_at_the_instant_that_was_announced(name: str) -> None:
    """Property over a year: the slot in force changes at ``until``, and not before."""
    seed = random.randrange(1 << 30)
    print("seed", seed)
    rng, zone = random.Random(seed), ZoneInfo(name)
    times = sorted(rng.sample(range(24 * 60), 5))
    text = " ".join(f"{t // 60:02}:{t % 60:02},{n + 1}M" for n, t in enumerate(times))
    table = parse_timetable(text)
    for year in (2011, 2026):
        instant = datetime(year, 1, 1, tzinfo=UTC)
        for _ in range(40):
            instant += timedelta(minutes=rng.randrange(60 * 24 * 9))
            found = in_force(table, instant, zone)
            assert found.until > instant
            just_before = in_force(table, found.until - timedelta(seconds=1), zone)
            assert just_before == found, (text, instant)
            assert in_force(table, found.until, zone).until > found.until
