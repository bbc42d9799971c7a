"""Layout of listings: tables on a terminal, aligned columns in a pipe.

Owns widths and what a narrow terminal leaves out. Invariant: every cell passes
`common.names.printable`, and none is read as markup. Not here: rows (see peer.cli.listings).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from common.names import printable
from peer.cli.console import Console
from peer.cli.json_form import plain

NAME_WIDTH = 16  # columns; a name is shortened to half of it while there is another way
CUT_WIDTHS = (20, 13)  # "blake3:" and enough of a digest to tell it from others by eye


class Column(NamedTuple):
    """Column of a table. ``right``: aligned right, for numbers. A narrow terminal shows the
    beginning of a ``cut`` column, and no ``spare`` column."""

    title: str
    right: bool = False
    cut: bool = False
    spare: bool = False


class Table(NamedTuple):
    """A listing: columns, rows of texts as received, and the text for no rows."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    empty: str


def terminal_columns() -> int:
    """The width of the terminal in columns."""
    from shutil import get_terminal_size  # not for the commands that print no table

    return get_terminal_size().columns


def show(table: Table, console: Console) -> None:
    """Print ``table`` for a terminal or a pipe; both get the text for no rows."""
    terminal = console.terminal
    if not table.rows:
        print(console.hinted(table.empty), flush=True)
        return
    lines = terminal_lines(table, terminal_columns()) if terminal else plain_lines(table)
    print("\n".join(lines), flush=True)


def show_rows(console: Console, answer: Any, table: Callable[[Any], Table]) -> None:
    """Print the rows of ``answer``, as ``table`` or as JSON."""
    if console.as_json:
        console.json(plain(answer.rows))
    else:
        show(table(answer.rows), console)


def plain_lines(table: Table) -> list[str]:
    """A line with the titles, then a line a row, in columns two spaces apart."""
    rows = [[column.title.upper() for column in table.columns]]
    rows += [[printable(cell) for cell in row] for row in table.rows]
    return _aligned(table.columns, rows)


def terminal_lines(table: Table, width: int) -> list[str]:
    """Return the lines with a rule below the titles, and never wider than ``width``.

    First digests are cut, then spare columns are left out, then names are shortened.
    """
    columns = list(table.columns)
    rows = [[column.title.upper() for column in columns]]
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
    return [max(text_width(row[at]) for row in rows) for at in range(len(rows[0]))]


def _fitted(columns: Sequence[Column], natural: Sequence[int], width: int) -> list[int]:
    """Reduce ``natural`` widths to ``width``: texts first, the widest of them first."""
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
    """Shorten ``text`` to at most ``width`` columns of a terminal; ``…`` marks the omitted part."""
    if text_width(text) <= width:
        return text
    if width < 1:
        return ""
    tail = _beginning(text[::-1], width // 4 if width >= 12 else 0)[::-1]
    return f"{_beginning(text, width - 1 - text_width(tail))}…{tail}"


def _beginning(text: str, width: int) -> str:
    used = 0
    for at, letter in enumerate(text):
        used += text_width(letter)
        if used > width:
            return text[:at]
    return text


def _aligned(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(text_width(row[at]) for row in rows) for at in range(len(columns))]
    lines = []
    for row in rows:
        cells = []
        for cell, width, column in zip(row, widths, columns, strict=True):
            padding = " " * (width - text_width(cell))
            cells.append(padding + cell if column.right else cell + padding)
        lines.append("  ".join(cells).rstrip())
    return lines


def _ruled(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = _aligned(columns, rows)
    return [lines[0], "─" * max(map(text_width, lines)), *lines[1:]]


def _cut(columns: Sequence[Column], row: Sequence[str], width: int | None) -> list[str]:
    return [
        f"{cell[: width - 1]}…" if column.cut and width is not None and len(cell) > width else cell
        for column, cell in zip(columns, row, strict=True)
    ]


def text_width(text: str) -> int:
    """The number of columns that ``text`` takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )
