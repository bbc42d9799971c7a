"""Listings and lines of results: rows of the peer in the words and units that people read.

Owns the columns of each listing, and the one form of sizes, rates and counts in it. Every text may
have been typed by a stranger: see the invariant of `peer.cli.tables`.
"""

from __future__ import annotations

from collections.abc import Sequence

from common.hints import hint
from common.messages import control
from common.names import printable, versioned
from common.units import (
    count_text,
    moment_text,
    number_text,
    percent_text,
    rate_text,
    size_text,
    time_text,
)
from peer.cli.bandwidth_listing import limit_facts, up_text
from peer.cli.tables import Column, Table, shortened, terminal_columns, text_width

LETTERS = dict(zip(control.STATES, "DCPF", strict=True))
"""The letter of each state of a download, for people."""
GROUP_WIDTH_MAX = 24  # columns; a longer name of a group moves its row of `watch` alone


def groups_table(rows: Sequence[control.GroupRow]) -> Table:
    return Table(
        (Column("group"), Column("owner"), Column("members", True), Column("your role")),
        [(row.group, row.owner, number_text(row.members), row.role) for row in rows],
        hint("There are no groups yet; create one", "create-group", "GROUP"),
    )


def users_table(rows: Sequence[control.UserRow], empty: str) -> Table:
    return Table(
        (
            Column("user"),
            Column("role"),
            Column("since", spare=True),
            Column("online", True),
            Column("follow", True, spare=True),
        ),
        [
            (
                row.user,
                row.role,
                moment_text(row.since),
                number_text(row.online),
                number_text(row.follows),
            )
            for row in rows
        ],
        empty,
    )


def invites_table(rows: Sequence[control.InviteRow]) -> Table:
    return Table(
        (Column("id"), Column("by"), Column("made"), Column("expires"), Column("used", True)),
        [
            (
                row.id,
                row.by,
                moment_text(row.created),
                moment_text(row.expires),
                f"{number_text(row.used)} of {number_text(row.uses)}",
            )
            for row in rows
        ],
        hint("There are no invitations; make one", "invite", "GROUP"),
    )


def devices_table(rows: Sequence[control.DeviceRow]) -> Table:
    return Table(
        (
            Column("id"),
            Column("logged in", spare=True),
            Column("last seen", spare=True),
            Column("address", spare=True),
            Column(""),
        ),
        [
            (
                row.id,
                moment_text(row.bound),
                "online" if row.online else moment_text(row.seen),
                row.address or "",
                "this one" if row.this else "",
            )
            for row in rows
        ],
        "You are not logged in on any device.",
    )


def files_table(rows: Sequence[control.FileRow]) -> Table:
    """The shares of a group; earlier versions are named as commands take them."""
    return Table(
        (
            Column("name"),
            Column("version", True, spare=True),
            Column("size", True),
            Column("files", True, spare=True),
            Column("pieces", True, spare=True),
            Column("seeders", True),
            Column("leechers", True, spare=True),
            Column("shared by", spare=True),
            Column("digest", cut=True, spare=True),
        ),
        [
            (
                row.name if row.current else versioned(row.name, row.version),
                number_text(row.version),
                size_text(row.size_bytes),
                number_text(row.files),
                number_text(row.pieces),
                f"{number_text(row.seeders)} (yours is away)"
                if row.away
                else number_text(row.seeders),
                number_text(row.leechers),
                ", ".join(row.shared_by),
                f"{row.algorithm}:{row.digest}",
            )
            for row in rows
        ],
        hint(
            "Nothing is shared in this group yet; share something", "upload-file", "PATH", "GROUP"
        ),
    )


def sources_table(rows: Sequence[control.SourceRow]) -> Table:
    return Table(
        (
            Column("user"),
            Column("device"),
            Column("endpoint"),
            Column("has", spare=True),
            Column("rate", True),
            Column("pieces", True, spare=True),
            Column("in flight", True, spare=True),
            Column("verdict"),
        ),
        [
            (
                row.user,
                row.id,
                row.endpoint,
                "all" if row.complete else "a part",
                rate_text(row.rate_bytes_per_s),
                number_text(row.pieces),
                number_text(row.in_flight),
                row.verdict,
            )
            for row in rows
        ],
        "There are no sources: no device that has it is online.",
    )


def checks_lines(rows: Sequence[control.CheckRow]) -> list[str]:
    """The checks of `doctor`, each with its hint below."""
    lines = []
    for row in rows:
        lines.append(f"{'ok ' if row.ok else 'BAD'} {printable(row.check)}: {printable(row.found)}")
        if row.hint and not row.ok:
            lines.append(f"    hint: {printable(row.hint)}")
    return lines


def status_lines(status: control.StatusIs, home: str) -> list[str]:
    """The status of a running peer, a line for each fact."""
    link = "connected" if status.connected else f"not connected: {status.trouble or 'trying'}"
    rows = [
        ("peer", f"running, process {status.pid}"),
        ("home", home),
        ("user", status.user or "none is logged in"),
        ("tracker", f"{status.tracker} ({link})"),
        ("listen", _listening(status)),
        ("shares", _shares_text(status)),
        ("downloads", number_text(status.downloads)),
        ("up", up_text(status)),
        ("down", rate_text(status.down_bytes_per_s)),
        *limit_facts(status.limits),
        ("device", status.id or status.device),
    ]
    if status.data_path:
        rows.append(("compiled", status.data_path))
    rows += [("away", text) for text in status.away]
    if status.requests:
        groups = ", ".join(
            f"{group} {number_text(count)}" for group, count in status.requests_by_group.items()
        )
        first = next(iter(status.requests_by_group), "GROUP")
        words = f"{number_text(status.requests)} to answer ({groups})"
        rows.append(("requests", hint(words, "list-requests", first)))
    if status.pending:
        rows.append(("asked", f"to join {', '.join(status.pending)}; not answered yet"))
    if status.trouble and status.connected:
        rows.append(("trouble", status.trouble))
    if status.advice:
        rows.append(("advice", status.advice))
    return [f"{name:<10}{printable(text)}" for name, text in rows]


def _listening(status: control.StatusIs) -> str:
    if not status.listen:
        return control.NOT_LISTENING
    if status.announced in ("", status.listen):
        return status.listen
    return f"{status.listen} (announced as {status.announced})"


def _shares_text(status: control.StatusIs) -> str:
    served = number_text(status.shares)
    return f"{served}, and {number_text(len(status.away))} away" if status.away else served


def download_lines(
    rows: Sequence[control.DownloadRow], *, terminal: bool, width: int | None = None
) -> list[str]:
    """Format downloads as ``[D] [GROUP] NAME``, one a line; a terminal shows the progress of each
    too."""
    heads = [f"[{_letter(row)}] [{printable(row.group)}] {printable(row.name)}" for row in rows]
    if not terminal:
        return heads
    tails = [_how_far(row) for row in rows]
    room = terminal_columns() if width is None else width
    longest = max(map(text_width, tails), default=0)
    most = max(room - 2 - longest, room // 2)  # for what stands before
    short = [
        head if text_width(head) <= most else _short_head(row, most)
        for head, row in zip(heads, rows, strict=True)
    ]
    taken = max(map(text_width, short), default=0)
    return [
        f"{head}{' ' * (taken - text_width(head))}  {shortened(tail, room - taken - 2)}".rstrip()
        for head, tail in zip(short, tails, strict=True)
    ]


def _letter(row: control.DownloadRow) -> str:
    return LETTERS.get(row.state, row.state)


def _short_head(row: control.DownloadRow, width: int) -> str:
    group = shortened(printable(row.group), max(6, width // 3 - 2))
    start = f"[{_letter(row)}] [{group}] "
    return start + shortened(printable(row.name), max(2, width - text_width(start)))


def _how_far(row: control.DownloadRow) -> str:
    if row.state == control.COMPLETE:
        return f"{size_text(row.size_bytes)}{_selected(row.files)}  {printable(row.path)}"
    # A resting download has not counted its pieces yet: 0 % would look like a loss.
    known = row.verified_bytes or row.state == control.DOWNLOADING
    of_all = f"{percent_text(row.verified_bytes, row.size_bytes)} of " if known else ""
    parts = [f"{of_all}{size_text(row.size_bytes)}"]
    if row.state == control.DOWNLOADING:
        parts.append(rate_text(row.rate_bytes_per_s))
        parts.append(f"from {count_text(len(row.sources), 'peer')}")
        if row.eta_s is not None:
            parts.append(f"{time_text(row.eta_s)} left")
    if row.reason:
        parts.append(printable(row.reason))
    return "  ".join(parts)


def _selected(files: Sequence[str]) -> str:
    """Note that only files of these patterns are there."""
    return f" ({printable(', '.join(files))} alone)" if files else ""


def downloaded_line(done: control.Downloaded) -> str:
    """A finished download in one line."""
    size = f"{size_text(done.size_bytes)}{_selected(done.files)}"
    if done.in_place:
        return f"{printable(done.path)}: {size}, already in place and verified"
    return (
        f"{printable(done.path)}: {size} in {time_text(done.elapsed_s)}, "
        f"{rate_text(done.rate_bytes_per_s)}{_whence(done)}"
    )


def _whence(done: control.Downloaded) -> str:
    if done.sources:
        local = ""
        if done.reused_bytes:
            fetched, reused = size_text(done.fetched_bytes), size_text(done.reused_bytes)
            local = f": {fetched} fetched, {reused} from this device"
        return f", from {count_text(len(done.sources), 'peer')}{local}"
    return ", copied from this device" if done.size_bytes else ""


def uploaded_line(done: control.Uploaded) -> str:
    """A new share in one line."""
    row = done.row
    how = "joined the devices that share it" if done.joined else "shared"
    if done.again:
        how = "already shared"
    name = versioned(row.name, row.version if row.version > 1 else 0)
    files = f", {count_text(row.files, 'file')}" if row.files != 1 else ""
    return (
        f"{how}: {printable(name)} ({size_text(row.size_bytes)}{files}, "
        f"{count_text(row.pieces, 'piece')}) {row.algorithm}:{row.digest} "
        f"in {time_text(done.elapsed_s)}"
        + (f", until {moment_text(done.expires)}" if done.expires else "")
    )


_OUTCOMES = {
    "new": "would share",
    "join": "would join the devices that share it, if the bytes are the same",
    "again": "shared already; would verify it",
    "replace": "would share as a new version",
    "refused": "would be refused",
}


def planned_line(plan: control.Planned) -> str:
    """A planned share in one line."""
    line = (
        f"{_OUTCOMES.get(plan.outcome, plan.outcome)}: {printable(plan.name)} "
        f"({size_text(plan.size_bytes)}, {count_text(plan.files, 'file')}, "
        f"{count_text(plan.pieces, 'piece')} of {size_text(plan.piece_bytes)})"
    )
    return f"{line}; would ask about {plan.question}" if plan.question else line


class EventLines:
    """The lines of `watch`. On a terminal the events stand in one column below each other."""

    def __init__(self, *, aligned: bool) -> None:
        self._aligned = aligned
        self._group_width = 0

    def line(self, event: control.Happened) -> str:
        """One event of a group for people."""
        facts = dict(event.details)
        if "id" in facts:  # the form that other commands show and take; the whole key is in JSON
            facts["device"] = facts.pop("id")
        details = "  ".join(
            f"{key.removesuffix('_bytes')}={_detail(key, value)}" for key, value in facts.items()
        )
        time = moment_text(event.time, seconds=True)
        group = f"[{printable(event.group)}]"
        if self._aligned:
            width = text_width(group)
            if width <= GROUP_WIDTH_MAX:
                self._group_width = max(self._group_width, width)
            group += " " * (self._group_width - width)
        return printable(f"{time}  {group}  {event.event:<10}  {details}").rstrip()


def _detail(key: str, value: str | int | bool) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return size_text(value) if key.endswith("_bytes") else number_text(value)
    return value
