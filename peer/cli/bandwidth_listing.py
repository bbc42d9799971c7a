"""Listings of the upload side of a peer and its limits, in the words and units that people read.

Not here: the other listings (see peer.cli.listings).
"""

from __future__ import annotations

from collections.abc import Sequence

from common.hints import hint
from common.messages import control
from common.names import printable
from common.units import moment_text, rate_text, size_text
from peer.cli.tables import Column, Table


def shares_table(rows: Sequence[control.ShareRow]) -> Table:
    """The shares of this device."""
    return Table(
        (
            Column("group"),
            Column("name"),
            Column("size", True),
            Column("state"),
            Column("sent", True),
            Column("fetched by", spare=True),
            Column("path", spare=True),
        ),
        [
            (
                row.group,
                row.name if row.version == 1 else f"{row.name}@{row.version}",
                "" if row.size_bytes is None else size_text(row.size_bytes),
                f"{row.state}: {row.reason}" if row.reason else row.state,
                size_text(row.served_bytes),
                _fetched_by(row.fetching),
                row.path,
            )
            for row in rows
        ],
        hint("This device shares nothing; share something", "upload-file", "PATH", "GROUP"),
    )


def _fetched_by(rows: Sequence[control.FetchingRow]) -> str:
    return ", ".join(f"{row.user} {row.id} ({rate_text(row.rate_bytes_per_s)})" for row in rows)


def limits_lines(row: control.LimitsRow) -> list[str]:
    """The limits of a peer, a line for each fact."""
    return [f"{name:<10}{printable(text)}" for name, text in limit_facts(row)]


def limit_facts(row: control.LimitsRow) -> list[tuple[str, str]]:
    """The limits of a peer as names and texts."""
    until = f" until {moment_text(row.until)}" if row.until else ""
    source = ", set by hand" if row.by_hand else ", by the timetable" if row.schedule else ""
    lines = [
        (
            "limits",
            f"up {_limit(row.up_bytes_per_s)}, down {_limit(row.down_bytes_per_s)}{source}{until}",
        )
    ]
    if row.up_per_user_bytes_per_s or row.down_per_user_bytes_per_s:
        up, down = _limit(row.up_per_user_bytes_per_s), _limit(row.down_per_user_bytes_per_s)
        lines.append(("each user", f"up {up}, down {down}"))
    if row.schedule:
        lines.append(("timetable", row.schedule))
    return lines


def _limit(rate: int | None) -> str:
    return "unlimited" if rate is None else rate_text(rate)


def up_text(status: control.StatusIs) -> str:
    """The upload side of a peer in one line."""
    sent = f"{rate_text(status.up_bytes_per_s)}, {size_text(status.served_bytes)} since the start"
    to = _fetched_by(status.fetching)
    return f"{sent}, to {to}" if to else sent
