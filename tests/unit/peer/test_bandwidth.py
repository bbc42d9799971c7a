"""Limits by hand and by timetable, in force and kept over restarts. Clock and zone are injected."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from common.errors import ConfigError
from common.ids import UserId
from common.limits import MIB
from common.messages import control
from peer.bandwidth import Bandwidth, local_zone
from peer.settings import FILE, Settings, load, save
from peer.swarm.rate_limit import RateLimit, Rates
from tests.support.peer_fakes import until

BERLIN = ZoneInfo("Europe/Berlin")
ANN = UserId("ann")


class Clock:
    """A clock of Berlin, set by the test."""

    def __init__(self, text: str) -> None:
        self.set(text)

    def set(self, text: str) -> None:
        self.now = datetime.fromisoformat(text).replace(tzinfo=BERLIN).astimezone(UTC)

    def __call__(self) -> datetime:
        return self.now


def bandwidth(home: Path, clock: Clock) -> Bandwidth:
    """Settings of a peer that starts now."""
    return Bandwidth(home, load(home), now=clock, zone=lambda: BERLIN)


def change(one: Bandwidth, **given: int | str) -> control.LimitsRow:
    return asyncio.run(one.change(control.Limit(**given)))  # type: ignore[arg-type]


def rates(one: Bandwidth) -> tuple[int | None, int | None]:
    row = one.row()
    return row.up_bytes_per_s, row.down_bytes_per_s


def test_f125_limits_hold_at_once_and_over_restarts(tmp_path: Path) -> None:
    clock = Clock("2026-06-01T09:00")
    save(tmp_path, Settings(tracker="LINK", buffer_bytes=7))
    one = bandwidth(tmp_path, clock)
    assert one.row() == control.LimitsRow()
    assert one.up.unlimited
    row = change(one, up=5 * MIB, down_per_user=MIB)
    assert row == control.LimitsRow(up_bytes_per_s=5 * MIB, down_per_user_bytes_per_s=MIB)
    assert not one.up.unlimited
    assert bandwidth(tmp_path, clock).row() == row
    assert (load(tmp_path).tracker, load(tmp_path).buffer_bytes) == ("LINK", 7)
    assert change(one, up=0, down_per_user=0) == control.LimitsRow()
    assert one.up.unlimited
    assert one.down.unlimited
    assert bandwidth(tmp_path, clock).row() == control.LimitsRow()


def test_a_limit_by_hand_holds_until_the_next_slot(tmp_path: Path) -> None:
    clock = Clock("2026-06-01T09:00")
    one = bandwidth(tmp_path, clock)
    change(one, up=9 * MIB)
    row = change(one, schedule="08:00,5M:2M  18:00,off")
    assert (row.schedule, row.by_hand, row.until) == (
        "08:00,5M:2M 18:00,off",
        False,
        "2026-06-01T16:00:00Z",
    )
    assert rates(one) == (5 * MIB, 2 * MIB)
    row = change(one, up=MIB)
    assert (row.by_hand, row.until) == (True, "2026-06-01T16:00:00Z")
    for again in (one, bandwidth(tmp_path, clock)):
        clock.set("2026-06-01T17:59:59")
        assert rates(again) == (MIB, 2 * MIB)
        clock.set("2026-06-01T18:00")
        assert rates(again) == (None, None)
        clock.set("2026-06-02T08:00")
        assert rates(again) == (5 * MIB, 2 * MIB)
        assert not again.row().by_hand
    # A new timetable holds at once; without one, what was last set by hand does.
    change(one, down=MIB)
    assert rates(one) == (5 * MIB, MIB)
    change(one, schedule="00:00,3M")
    assert rates(one) == (3 * MIB, 3 * MIB)
    row = change(one, schedule="")
    assert (row.schedule, row.until, row.by_hand) == (None, None, False)
    assert rates(one) == (5 * MIB, MIB)


async def test_time_that_passes_changes_the_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock("2026-06-01T09:00")
    monkeypatch.setattr("peer.bandwidth.REVIEW_S", 0.001)
    one = bandwidth(tmp_path, clock)
    await one.change(control.Limit(schedule="08:00,5M 18:00,off"))
    assert not one.up.unlimited
    following = asyncio.create_task(one.follow_clock())
    clock.now += timedelta(hours=12)  # a night of sleep
    await until(lambda: one.up.unlimited)
    following.cancel()


def test_nothing_changes_when_it_cannot_be_stored(tmp_path: Path) -> None:
    one = bandwidth(tmp_path, Clock("2026-06-01T09:00"))
    (tmp_path / FILE).write_text("upload_limit = fast")
    with pytest.raises(ConfigError, match=FILE):
        change(one, up=MIB)
    assert one.up.unlimited
    for bad in ({"up": 5}, {"down": 1 << 60}, {"schedule": "25:00,5M"}):
        with pytest.raises(ConfigError):
            change(one, **bad)  # type: ignore[arg-type]
    assert one.row() == control.LimitsRow()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('schedule = "25:00,5M"', "no time 25:00"),
        ("by_hand_until = 2026-06-01T18:00:00", "by_hand_until"),
    ],
)
def test_a_wrong_timetable_in_the_file_is_named(tmp_path: Path, text: str, found: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ConfigError, match=found):
        load(tmp_path)


def test_a_lower_limit_ends_no_wait_late_and_a_higher_one_soon() -> None:
    limit = RateLimit(Rates(1024.0, 1024.0))
    limit.take(ANN, 100 * MIB, 0.0)
    assert limit.ready_at(0.0) <= 0.5, "a wait is reviewed: the rate may change"
    assert limit.user_ready_at(ANN, 0.0) <= 0.5
    assert limit.ready_at(3600.0) > 3600.0
    limit.set(Rates(1024.0 * MIB, None))
    assert limit.ready_at(0.5) == limit.user_ready_at(ANN, 0.5) == 0.5
    limit.set(Rates(1024.0 * MIB, 1024.0))
    limit.take(ANN, MIB, 1.0)
    assert limit.user_ready_at(ANN, 1.0) > 1.0
    limit.set(Rates())
    assert limit.unlimited


@pytest.mark.parametrize("name", ["Europe/Berlin", ":Europe/Berlin"])
def test_the_zone_of_the_environment(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("TZ", name)
    assert local_zone() is ZoneInfo("Europe/Berlin")
    monkeypatch.setenv("TZ", "no such zone")
    assert local_zone().utcoffset(datetime.now()) is not None
    monkeypatch.delenv("TZ")
    assert local_zone() is not None
