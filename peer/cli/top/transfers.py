"""Rows and texts of the full-screen view, made of the peer's answers.

Owns: which transfers there are in both directions, their order, and each text. Why no markup:
names of others are among the texts, and Textual would read theirs. Not here: the screen (see
peer.cli.top.app).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from common.messages import control
from common.names import printable, versioned
from common.units import count_text, percent_text, rate_text, size_text, time_text
from peer.cli.bandwidth_listing import limit_facts
from peer.cli.listings import sources_table
from peer.cli.tables import Column, Table, shortened, terminal_lines, text_width

UPLOADING = "uploading"
ROWS_MAX = 1_000  # of the list; a person reads the first ones
_ORDER = {
    control.DOWNLOADING: 0,
    UPLOADING: 1,
    control.PAUSED: 2,
    control.FAILED: 3,
    control.COMPLETE: 4,
}


@dataclass(frozen=True, slots=True)
class Glyphs:
    """Characters that a terminal may lack."""

    down: str
    up: str
    held: str
    flight: str
    missing: str
    absent: str


UNICODE = Glyphs("↓", "↑", "█", "▒", "░", "!")
ASCII = Glyphs("v", "^", "#", "+", ".", "!")


Key: TypeAlias = tuple[bool, str, str, str]


@dataclass(frozen=True, slots=True)
class Transfer:
    """A download, or a share that other devices fetch now."""

    state: str
    group: str
    name: str
    path: str
    size: int
    done: int
    rate: float
    eta_s: float | None = None
    reason: str | None = None
    peers: int = 0
    fetching: tuple[control.FetchingRow, ...] = ()

    @property
    def key(self) -> Key:
        """Identity, which stays the same while the state changes."""
        return self.uploads, self.group, self.name, self.path

    @property
    def uploads(self) -> bool:
        return self.state == UPLOADING

    @property
    def ended(self) -> bool:
        return self.state == control.COMPLETE


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that is shown at one moment. ``problem``: the reason why a part is missing."""

    status: control.StatusIs
    transfers: tuple[Transfer, ...] = ()
    sources: tuple[control.SourceRow, ...] = ()
    cells: tuple[tuple[float, float, int], ...] = ()
    problem: str | None = None
    of: Key | None = None
    """The key of the transfer that ``sources`` and ``cells`` belong to."""


def transfers_of(
    downloads: Sequence[control.DownloadRow], shares: Sequence[control.ShareRow]
) -> tuple[Transfer, ...]:
    """The transfers in both directions, in an order in which running ones stay in their places."""
    found = [
        Transfer(
            row.state,
            row.group,
            versioned(row.name, row.version if row.version > 1 else 0),
            row.path,
            row.size_bytes,
            row.verified_bytes,
            row.rate_bytes_per_s,
            row.eta_s,
            row.reason,
            len(row.sources),
        )
        for row in downloads
    ]
    found += [
        Transfer(
            UPLOADING,
            share.group,
            versioned(share.name, share.version if share.version > 1 else 0),
            share.path,
            share.size_bytes or 0,
            share.served_bytes,
            sum(device.rate_bytes_per_s for device in share.fetching),
            peers=len(share.fetching),
            fetching=tuple(share.fetching),
        )
        for share in shares
        if share.fetching
    ]
    found.sort(key=lambda one: (_ORDER.get(one.state, 9), one.group, one.name, one.path))
    return tuple(found)


# -- texts --------------------------------------------------------------------------------------


def head_lines(snapshot: Snapshot, glyphs: Glyphs, width: int) -> list[str]:
    """The user, the rates and the limits; then what is wrong, if something is."""
    status = snapshot.status
    user = shortened(printable(status.user or "not logged in"), max(8, width // 4))
    rates = (
        f"{glyphs.down} {rate_text(status.down_bytes_per_s)}"
        f"  {glyphs.up} {rate_text(status.up_bytes_per_s)}"
    )
    limits = "; ".join(f"{name}: {text}" for name, text in limit_facts(status.limits))
    lines = [shortened(f"{user}  {rates}  {printable(limits)}", width)]
    faults = [snapshot.problem] if snapshot.problem else []
    if not status.connected:
        faults.append(f"tracker not connected: {status.trouble or 'it does not answer'}")
    elif status.trouble:
        faults.append(status.trouble)
    faults += status.away
    return lines + [shortened(printable(text), width) for text in faults[:2]]


HEADS = ("", "", "group", "name", "state", "done", "rate", "left", "note")


def columns_of(width: int) -> list[int]:
    """The widths of the columns in ``HEADS``; 0 for one that is left out."""
    fixed = [2, 2, 0, 0, 12, 6, 11, 11, 0]
    left = max(10, width - sum(fixed))
    note = left // 3 if width >= 110 else 0
    group = min(18, (left - note) // 3)
    return [*fixed[:2], group, left - note - group, *fixed[4:8], note]


def cells_of(one: Transfer, widths: Sequence[int], glyphs: Glyphs) -> list[str]:
    """The cells of a row but the first, which marks the chosen one."""
    running = one.state in (control.DOWNLOADING, UPLOADING)
    # A resting download has not counted its pieces yet: 0 % would look like a loss.
    known = not one.uploads and (one.done or running)
    peers = count_text(one.peers, "peer") if running else ""
    texts = [
        glyphs.up if one.uploads else glyphs.down,
        printable(one.group),
        printable(one.name),
        one.state,
        percent_text(one.done, one.size) if known else "",
        rate_text(one.rate) if running else "",
        peers if one.uploads else time_text(one.eta_s) if running else "",
        printable(one.reason or ("" if one.uploads else peers)),
    ]
    return [
        shortened(text, max(0, width - 1)) for text, width in zip(texts, widths[1:], strict=True)
    ]


def strip_text(
    cells: Sequence[tuple[float, float, int]], glyphs: Glyphs, width: int
) -> list[tuple[str, str]]:
    """A strip of ``width`` characters, as runs of one kind: ``(kind, text)``.

    Kinds: held; flight, if a part is held or in flight; absent, if no source has a missing piece;
    missing.
    """
    if not cells:
        return []
    runs: list[tuple[str, str]] = []
    for at in range(width):
        first, last = at * len(cells) // width, (at + 1) * len(cells) // width
        part = cells[first : max(last, first + 1)]
        if all(held >= 1 for held, _, _ in part):
            kind = "held"
        elif any(held or flight for held, flight, _ in part):
            kind = "flight"
        else:
            kind = "absent" if any(sources == 0 for _, _, sources in part) else "missing"
        character = getattr(glyphs, kind)
        if runs and runs[-1][0] == kind:
            runs[-1] = kind, runs[-1][1] + character
        else:
            runs.append((kind, character))
    return runs


def about_lines(one: Transfer, width: int) -> list[str]:
    """The chosen transfer: its name, how far it is, its path, and why it stands still."""
    if one.uploads:
        how_far = f"{size_text(one.size)}, {size_text(one.done)} sent"
    elif one.ended:
        how_far = size_text(one.size)
    else:
        known = one.done or one.state == control.DOWNLOADING
        how_far = (
            f"{size_text(one.done)} of {size_text(one.size)}" if known else size_text(one.size)
        )
    name = shortened(printable(one.name), max(10, width - text_width(how_far) - 2))
    lines = [f"{name}  {how_far}", shortened(printable(one.path), width)]
    if one.reason:
        lines.append(shortened(printable(one.reason), width))
    return lines


def peers_lines(one: Transfer, sources: Sequence[control.SourceRow], width: int) -> list[str]:
    """The sources of a download, or the devices that fetch a share, as a table."""
    if one.uploads:
        rows = [
            (printable(row.user), row.id, rate_text(row.rate_bytes_per_s)) for row in one.fetching
        ]
        table = Table((Column("user"), Column("device"), Column("rate", True)), rows, "")
    elif sources:
        table = sources_table(sources)
    else:
        return ["no source is connected"] if one.state == control.DOWNLOADING else []
    return terminal_lines(table, width)


def rate_typed(rate: int | None) -> str:
    """A limit as one would type it: ``5M``, ``800K``, ``off``."""
    if rate is None:
        return "off"
    for letter, unit in (("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)):
        if rate and rate % unit == 0:
            return f"{rate // unit}{letter}"
    return str(rate)


HELP = (
    ("up, down", "choose a transfer"),
    ("p", "pause the chosen download"),
    ("r", "resume it"),
    ("c", "cancel it; takes a complete one off the list"),
    ("l", "change the limits of the bandwidth"),
    ("e", "show the events, or the sources again"),
    ("tab", "scroll the sources or the events"),
    ("?", "this help"),
    ("q", "quit; transfers go on"),
)


def legend(glyphs: Glyphs) -> str:
    """Return the meaning of the characters of the strip."""
    return (
        f"{glyphs.held} held  {glyphs.flight} in flight  {glyphs.missing} missing"
        f"  {glyphs.absent} no source has it"
    )
