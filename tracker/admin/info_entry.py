"""Arguments TRACKER_INFO NUMBER of `run`: one entry of a tracker_info.txt.

Owns: their errors, and the hint for swapped arguments. Not here: the file format (see common.link).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from common.errors import ConfigError
from common.hints import tracker_hint
from common.link import InfoEntry, read_info
from common.names import quoted
from common.units import count_text


class EntryNumber(click.ParamType[int]):
    """Number of an entry in a tracker_info.txt, from 1."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value)
        if text.isascii() and text.isdigit() and int(text) > 0:
            return int(text)
        error = click.UsageError(f"{quoted(text)} is not the number of an entry, from 1", ctx)
        info = str(ctx.params.get("info", "")) if ctx is not None else ""
        if info.isdigit() and Path(text).exists():
            error = click.UsageError(f"{quoted(text)} is a file; it stands before the number", ctx)
            error.hint = tracker_hint("swap them", "run", text, info)  # type: ignore[attr-defined]
        raise error


def entry_of(info: Path | None, number: int | None, bind_at: str | None) -> InfoEntry | None:
    """Return the chosen entry, if any. Raise `click.UsageError` or `ConfigError`."""
    if info is None:
        return None
    if number is None:
        raise click.UsageError(f"which entry of {info}? Give its number, counted from 1")
    if bind_at is not None:
        raise click.UsageError("either TRACKER_INFO NUMBER or --bind")
    entries = read_info(info)
    if number > len(entries):
        count = count_text(len(entries), "tracker")
        raise ConfigError(
            f"{info} has no entry number {number}: it lists {count}",
            tracker_hint("use the last one", "run", str(info), str(len(entries))),
        )
    return entries[number - 1]
