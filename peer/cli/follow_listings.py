"""Listings of follows and of the devices that hold a share."""

from __future__ import annotations

from collections.abc import Sequence

from common.hints import hint
from common.messages import control
from common.units import moment_text, number_text, percent_text, size_text
from peer.cli.tables import Column, Table


def holders_table(rows: Sequence[control.HolderRow]) -> Table:
    return Table(
        (
            Column("user"),
            Column("device"),
            Column("state"),
            Column("verified", True, spare=True),
            Column("since", spare=True),
        ),
        [
            (
                row.user,
                row.id,
                row.state_text,
                f"{size_text(row.verified_bytes)} of {size_text(row.size_bytes)}",
                moment_text(row.since),
            )
            for row in rows
        ],
        "No device holds, fetches or follows it.",
    )


FOLLOWED_NAMED_MAX = 20  # shares of a follow that are listed below the table


def follows_table(rows: Sequence[control.FollowRow]) -> Table:
    return Table(
        (
            Column("group"),
            Column("folder"),
            Column("match", spare=True),
            Column("shares", True),
            Column("held", True),
            Column("fetching", True),
            Column("state"),
        ),
        [
            (
                row.group,
                row.path,
                " ".join(row.match),
                number_text(row.matching),
                number_text(row.held),
                number_text(row.fetching),
                row.state if row.reason is None else f"{row.state}: {row.reason}",
            )
            for row in rows
        ],
        hint("This device follows no group; follow one", "follow", "GROUP", "DIR"),
    )


def follow_lines(rows: Sequence[control.FollowRow]) -> list[str]:
    """A line for each share that is not simply held in the folder of a follow."""
    lines = []
    for row in rows:
        for share in row.unsettled[:FOLLOWED_NAMED_MAX]:
            state = share.state
            if state == "fetching":
                state += f" {percent_text(share.verified_bytes, share.size_bytes)}"
            why = share.reason or (f"at {share.path}" if state == "elsewhere" else "")
            lines.append(f"[{row.group}] {share.name}: {state}" + (f", {why}" if why else ""))
        more = len(row.unsettled) - FOLLOWED_NAMED_MAX
        if more > 0:
            lines.append(f"[{row.group}] and {more:,} more (--json lists them)")
    return lines
