"""How listings look: tables on a terminal, aligned columns in a pipe.

Every text here may have been typed by a stranger: it passes `common.names.printable`, and is never
read as markup.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from shutil import get_terminal_size
from typing import NamedTuple

from common.hints import hint
from common.messages import control
from common.names import printable
from peer.addresses import NOT_LISTENING
from peer.cli.console import Console
from peer.cli.units import (
    count_text,
    moment_text,
    percent_text,
    rate_text,
    size_text,
    time_text,
)

NAME_WIDTH = 16  # columns; a name is shortened to half of it while there is another way
CUT_WIDTHS = (20, 13)  # "blake3:" and enough of a digest to tell it from others by eye


# -- tables -------------------------------------------------------------------------------------


class Column(NamedTuple):
    """``right``: numbers stand flush right. A narrow terminal gets the beginning of what may be
    ``cut``, and what is ``spare`` not at all."""

    title: str
    right: bool = False
    cut: bool = False
    spare: bool = False


class Table(NamedTuple):
    """A listing: columns, rows of texts as they came, and what to say when there is none."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    empty: str


def show(table: Table, console: Console) -> None:
    """Print ``table`` for whoever reads standard output. No rows are said in a pipe, too."""
    terminal = console.terminal
    if not table.rows:
        print(console.hinted(table.empty), flush=True)
        return
    lines = terminal_lines(table, get_terminal_size().columns) if terminal else plain_lines(table)
    print("\n".join(lines), flush=True)


def plain_lines(table: Table) -> list[str]:
    """A line with the titles, then a line a row, in columns two spaces apart."""
    rows = [[column.title.upper() for column in table.columns]]
    rows += [[printable(cell) for cell in row] for row in table.rows]
    return _aligned(table.columns, rows)


def terminal_lines(table: Table, width: int) -> list[str]:
    """The same for people, below a rule, a row a line, and never wider than ``width``.

    At first digests are cut, then spare columns are left out, and then names are shortened.
    """
    columns = list(table.columns)
    rows = [[column.title for column in columns]]
    rows += [[printable(cell) for cell in row] for row in table.rows]
    for cut_width in (None, *CUT_WIDTHS):
        shorter = [_cut(columns, row, cut_width) for row in rows]
        if _total(_widths(shorter)) <= width:
            return _ruled(columns, shorter)
    while any(column.spare for column in columns):
        needed = [
            min(natural, NAME_WIDTH) if not column.right else natural
            for column, natural in zip(columns, _widths(shorter), strict=True)
        ]
        if _total(needed) <= width:
            break
        at = max(at for at, column in enumerate(columns) if column.spare)
        del columns[at]
        shorter = [row[:at] + row[at + 1 :] for row in shorter]
    widths = _fitted(columns, _widths(shorter), width)
    return _ruled(
        columns,
        [
            [shortened(cell, room) for cell, room in zip(row, widths, strict=True)]
            for row in shorter
        ],
    )


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + 2 * (len(widths) - 1)


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(_width(row[at]) for row in rows) for at in range(len(rows[0]))]


def _fitted(columns: Sequence[Column], natural: Sequence[int], width: int) -> list[int]:
    """``natural`` widths, less what is too much: of texts first, the widest first."""
    widths = list(natural)
    for least, which in ((NAME_WIDTH // 2, False), (2, False), (2, True)):
        while (over := _total(widths) - width) > 0:
            able = [
                at
                for at, column in enumerate(columns)
                if widths[at] > least and (which or not column.right)
            ]
            if not able:
                break
            widest = max(able, key=lambda at: widths[at])
            others = sorted((widths[at] for at in able if at != widest), reverse=True)
            floor = max(least, (others[0] if others else 0) - 1)
            widths[widest] = max(floor, widths[widest] - over)
    return widths


def shortened(text: str, width: int) -> str:
    """``text`` in at most ``width`` columns of a terminal; a ``…`` stands for what is left out."""
    if _width(text) <= width:
        return text
    if width < 1:
        return ""
    tail = _beginning(text[::-1], width // 4 if width >= 12 else 0)[::-1]
    return f"{_beginning(text, width - 1 - _width(tail))}…{tail}"


def _beginning(text: str, width: int) -> str:
    used = 0
    for at, letter in enumerate(text):
        used += _width(letter)
        if used > width:
            return text[:at]
    return text


def _aligned(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(_width(row[at]) for row in rows) for at in range(len(columns))]
    lines = []
    for row in rows:
        cells = []
        for cell, width, column in zip(row, widths, columns, strict=True):
            padding = " " * (width - _width(cell))
            cells.append(padding + cell if column.right else cell + padding)
        lines.append("  ".join(cells).rstrip())
    return lines


def _ruled(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = _aligned(columns, rows)
    return [lines[0], "─" * max(map(_width, lines)), *lines[1:]]


def _cut(columns: Sequence[Column], row: Sequence[str], width: int | None) -> list[str]:
    return [
        f"{cell[: width - 1]}…" if column.cut and width is not None and len(cell) > width else cell
        for column, cell in zip(columns, row, strict=True)
    ]


def _width(text: str) -> int:
    """The columns that a terminal takes for ``text``."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


# -- the listings -------------------------------------------------------------------------------


def groups_table(rows: Sequence[control.GroupRow]) -> Table:
    return Table(
        (Column("group"), Column("owner"), Column("members", True), Column("your role")),
        [(row.group, row.owner, str(row.members), row.role) for row in rows],
        hint("There are no groups yet; create one", "create-group", "GROUP"),
    )


def users_table(rows: Sequence[control.UserRow], empty: str) -> Table:
    return Table(
        (Column("user"), Column("role"), Column("since", spare=True), Column("online", True)),
        [(row.user, row.role, moment_text(row.since), str(row.online)) for row in rows],
        empty,
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
        "You are logged in nowhere.",
    )


def files_table(rows: Sequence[control.FileRow]) -> Table:
    return Table(
        (
            Column("name"),
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
                row.name,
                size_text(row.size),
                str(row.files),
                str(row.pieces),
                f"{row.seeders} (yours is away)" if row.away else str(row.seeders),
                str(row.leechers),
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
                row.endpoint,
                "all" if row.complete else "a part",
                rate_text(row.rate),
                str(row.pieces),
                str(row.in_flight),
                row.verdict,
            )
            for row in rows
        ],
        "No source is known: nobody who has it is online.",
    )


def checks_lines(rows: Sequence[control.CheckRow]) -> list[str]:
    """The doctor's findings; a hint stands below what it mends."""
    lines = []
    for row in rows:
        lines.append(f"{'ok ' if row.ok else 'BAD'} {printable(row.check)}: {printable(row.found)}")
        if row.hint and not row.ok:
            lines.append(f"    hint: {printable(row.hint)}")
    return lines


def status_lines(status: control.StatusIs, home: str) -> list[str]:
    """A line for each thing worth knowing of a running peer."""
    link = "connected" if status.connected else f"not connected: {status.trouble or 'trying'}"
    rows = [
        ("peer", f"running, process {status.pid}"),
        ("home", home),
        ("user", status.user or "nobody is logged in"),
        ("tracker", f"{status.tracker} ({link})"),
        ("listen", _listening(status)),
        ("shares", _shares_text(status)),
        ("downloads", str(status.downloads)),
        ("device", status.id or status.device),
    ]
    rows += [("away", text) for text in status.away]
    if status.requests:
        groups = ", ".join(f"{group} {count}" for group, count in status.requests_by_group.items())
        first = next(iter(status.requests_by_group), "GROUP")
        words = f"{status.requests} to answer ({groups})"
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
        return NOT_LISTENING
    if status.announced in ("", status.listen):
        return status.listen
    return f"{status.listen} (others are told {status.announced})"


def _shares_text(status: control.StatusIs) -> str:
    served = str(status.shares)
    return f"{served}, and {len(status.away)} away" if status.away else served


def download_lines(
    rows: Sequence[control.DownloadRow], *, terminal: bool, width: int | None = None
) -> list[str]:
    """``[D] [GROUP] NAME``, one a line; people see how far each one is as well."""
    heads = [f"[{row.state}] [{printable(row.group)}] {printable(row.name)}" for row in rows]
    if not terminal:
        return heads
    tails = [_how_far(row) for row in rows]
    room = get_terminal_size().columns if width is None else width
    longest = max(map(_width, tails), default=0)
    most = max(room - 2 - longest, room // 2)  # for what stands before
    short = [
        head if _width(head) <= most else _short_head(row, most)
        for head, row in zip(heads, rows, strict=True)
    ]
    taken = max(map(_width, short), default=0)
    return [
        f"{head}{' ' * (taken - _width(head))}  {shortened(tail, room - taken - 2)}".rstrip()
        for head, tail in zip(short, tails, strict=True)
    ]


def _short_head(row: control.DownloadRow, width: int) -> str:
    group = shortened(printable(row.group), max(6, width // 3 - 2))
    start = f"[{row.state}] [{group}] "
    return start + shortened(printable(row.name), max(2, width - _width(start)))


def _how_far(row: control.DownloadRow) -> str:
    if row.state == "C":
        return f"{size_text(row.size)}  {printable(row.path)}"
    # What rests has not looked yet at what it holds, and 0 % would tell that all of it is lost.
    known = row.verified or row.state == "D"
    of_all = f"{percent_text(row.verified, row.size)} of " if known else ""
    parts = [f"{of_all}{size_text(row.size)}"]
    if row.state == "D":
        parts.append(rate_text(row.rate))
        parts.append(f"from {count_text(row.sources, 'peer')}")
        if row.eta_s is not None:
            parts.append(f"{time_text(row.eta_s)} left")
    if row.reason:
        parts.append(printable(row.reason))
    return "  ".join(parts)


def downloaded_line(done: control.Downloaded) -> str:
    """What a finished download was, in one line."""
    return (
        f"{printable(done.path)}: {size_text(done.size)} in {time_text(done.elapsed_s)}, "
        f"{rate_text(done.rate)}{_whence(done)}"
    )


def _whence(done: control.Downloaded) -> str:
    if done.sources:
        return f", from {count_text(len(done.sources), 'peer')}"
    return ", from what this device had" if done.size else ""


def uploaded_line(done: control.Uploaded) -> str:
    """What was shared, in one line."""
    row = done.row
    how = "joined those who share it" if done.joined else "shared"
    if done.again:
        how = "already shared"
    files = f", {count_text(row.files, 'file')}" if row.files != 1 else ""
    return (
        f"{how}: {printable(row.name)} ({size_text(row.size)}{files}, "
        f"{count_text(row.pieces, 'piece')}) {row.algorithm}:{row.digest} "
        f"in {time_text(done.elapsed_s)}"
    )


def event_line(event: control.Happened) -> str:
    """One event of a group for people."""
    told = dict(event.details)
    if "id" in told:  # what other commands show and take; the whole key is for programs
        told["device"] = told.pop("id")
    details = "  ".join(f"{key}={_detail(value)}" for key, value in told.items())
    time = moment_text(event.time, seconds=True)
    return printable(f"{time}  [{event.group}]  {event.event:<10}  {details}").rstrip()


def _detail(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
