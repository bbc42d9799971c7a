"""Bandwidth of this peer: its limits, set by hand or by a timetable, at once and over restarts.

Owns: which limits are in force, and their record in ``peer.toml``. Not here: the timetable (see
peer.swarm.timetable), and how traffic keeps to a limit (see peer.swarm.rate_limit).

With a timetable, limits of both directions that are set by hand hold until its next slot begins.
Limits of each user have no timetable. The clock is looked at every few seconds, so that a clock
that is set, a changed time zone, or a night of sleep count at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from msgspec.structs import replace

from common import limits
from common.errors import ConfigError
from common.messages import control
from peer import settings as stored
from peer.settings import Settings
from peer.swarm.rate_limit import RateLimit, Rates
from peer.swarm.timetable import InForce, Slot, Speeds, in_force, parse_timetable

log = logging.getLogger(__name__)
REVIEW_S = 5.0
LOCALTIME = Path("/etc/localtime")


class Bandwidth:
    """The limits of both directions, ``up`` and ``down``."""

    def __init__(
        self,
        home: Path,
        settings: Settings,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        zone: Callable[[], tzinfo] | None = None,
    ) -> None:
        self.up, self.down = RateLimit(), RateLimit()
        self._home = home
        self._settings = settings
        self._now = now
        self._zone = local_zone if zone is None else zone
        self._slots = settings.slots()
        self._changing = asyncio.Lock()
        self._apply()

    async def follow_clock(self) -> None:
        """Apply the timetable as time passes."""
        while True:
            await asyncio.sleep(REVIEW_S)
            self._apply()

    async def change(self, command: control.Limit) -> control.LimitsRow:
        """Change the limits for this run and the next ones. Raises `MiniTorrentError`."""
        async with self._changing:
            if changes := self._changes(command):
                await asyncio.to_thread(_store, self._home, changes)
                self._settings = replace(self._settings, **changes)
                self._slots = self._settings.slots()
                self._apply()
                log.info("limits changed: %s", ", ".join(sorted(changes)))
        return self.row()

    def _changes(self, command: control.Limit) -> dict[str, Any]:
        changes: dict[str, Any] = {}
        for name, rate in (
            ("upload_limit_per_user", command.up_per_user),
            ("download_limit_per_user", command.down_per_user),
        ):
            if rate is not None:
                changes[name] = _checked(rate)
        slots = self._slots
        if command.schedule is not None:
            slots = _slots(command.schedule)
            changes |= {"schedule": " ".join(command.schedule.split()), "by_hand_until": None}
        if command.up is not None or command.down is not None:
            # What is not set by hand stays as it is now, also if the timetable says so.
            now = self._now()
            present = in_force(slots, now, self._zone()).speeds if slots else self._speeds()
            changes["upload_limit"] = present.up if command.up is None else _checked(command.up)
            changes["download_limit"] = (
                present.down if command.down is None else _checked(command.down)
            )
            changes["by_hand_until"] = in_force(slots, now, self._zone()).until if slots else None
        return changes

    def row(self) -> control.LimitsRow:
        """The limits in force."""
        settings, speeds, slot = self._settings, self._speeds(), self._slot()
        until = None
        if self._slots:
            until = settings.by_hand_until if slot is None else slot.until
        return control.LimitsRow(
            up_bytes_per_s=speeds.up or None,
            down_bytes_per_s=speeds.down or None,
            up_per_user_bytes_per_s=settings.upload_limit_per_user or None,
            down_per_user_bytes_per_s=settings.download_limit_per_user or None,
            schedule=settings.schedule or None,
            by_hand=bool(self._slots) and slot is None,
            until=None if until is None else until.isoformat().replace("+00:00", "Z"),
        )

    def _slot(self) -> InForce | None:
        """The slot in force; None without a timetable, and while limits set by hand hold."""
        now, until = self._now(), self._settings.by_hand_until
        if not self._slots or (until is not None and now < until):
            return None
        return in_force(self._slots, now, self._zone())

    def _speeds(self) -> Speeds:
        slot = self._slot()
        if slot is not None:
            return slot.speeds
        return Speeds(self._settings.upload_limit, self._settings.download_limit)

    def _apply(self) -> None:
        settings, speeds = self._settings, self._speeds()
        self.up.set(Rates(speeds.up or None, settings.upload_limit_per_user or None))
        self.down.set(Rates(speeds.down or None, settings.download_limit_per_user or None))


def _checked(rate: int) -> int:
    if rate and not limits.RATE_MIN <= rate <= limits.RATE_MAX:
        raise ConfigError(f"a limit of {rate:,} bytes a second is out of range")
    return rate


def _slots(schedule: str) -> tuple[Slot, ...]:
    """The slots of a timetable; none of an empty one. Raises `ConfigError`."""
    try:
        return parse_timetable(schedule) if schedule.strip() else ()
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _store(home: Path, changes: dict[str, Any]) -> None:
    """Change ``peer.toml``, with what else was edited in it meanwhile."""
    stored.save(home, replace(stored.load(home), **changes))


def local_zone() -> tzinfo:
    """The time zone of this machine, with its rules; UTC if it is not known."""
    name = os.environ.get("TZ", "").removeprefix(":")
    try:
        if name and not name.startswith("/"):
            return ZoneInfo(name)
        with open(name or LOCALTIME, "rb") as file:
            return ZoneInfo.from_file(file)
    except (OSError, ValueError, KeyError):  # unknown, or in a form that has no rules
        return datetime.now().astimezone().tzinfo or UTC
