"""Pause of a download by its user, as the work on it sees the pause."""

from __future__ import annotations

from typing import Protocol


class UserPause(Protocol):
    """The job of a download. Why: its record is the only place that keeps the pause."""

    @property
    def by_user(self) -> bool:
        """Whether its user paused it. Thread safety: any thread may ask."""

    async def until_resumed(self) -> None:
        """Wait until it is not paused by its user."""
