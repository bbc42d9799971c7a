"""List of downloads as one: commands about all of them, and a view that follows them.

Owns which downloads `--all` means, and the view of `show-downloads --watch`. Not here: the lines
(see peer.cli.listings).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

from common.errors import MiniTorrentError
from common.messages import control
from common.messages.refusals import Code
from common.units import count_text
from peer.cli.console import Console
from peer.cli.errors import cli_error
from peer.cli.json_form import json_text, plain
from peer.cli.listings import download_lines

REFRESH_S = 1.0  # between two listings of `--watch`


def rows_of(console: Console, states: Collection[str] = ()) -> list[control.DownloadRow]:
    """The downloads in one of ``states``, or all of them."""
    answer = console.request(control.ShowDownloads())
    assert isinstance(answer, control.Downloads)
    return [row for row in answer.rows if not states or row.state in states]


# -- all of them --------------------------------------------------------------------------------


def pause_all(console: Console) -> int:
    """Pause all downloads that are not complete; return the exit code."""
    rows = [
        row
        for row in rows_of(console, (control.DOWNLOADING, control.PAUSED))
        if row.reason != control.PAUSED_BY_USER
    ]
    return _each(console, rows, control.Pause, "paused", control.PAUSED)


def resume_all(console: Console) -> int:
    """Continue all downloads that are paused or failed; return the exit code."""
    rows = rows_of(console, (control.PAUSED, control.FAILED))
    return _each(console, rows, control.Resume, "resumed", control.DOWNLOADING)


def cancel_all(console: Console) -> int:
    """Cancel all downloads that are not complete; return the exit code."""
    rows = rows_of(console, (control.DOWNLOADING, control.PAUSED, control.FAILED))
    return _each(console, rows, control.Cancel, "cancelled", "cancelled")


def _each(
    console: Console,
    rows: Sequence[control.DownloadRow],
    make: Callable[[str, str], control.Command],
    verb: str,
    state: str,
) -> int:
    changed: list[dict[str, control.Value]] = []
    code = 0
    with console.client() as client:
        for row in rows:
            try:
                client.result(make(row.group, row.path))
            except MiniTorrentError as error:
                if error.code == Code.UNKNOWN_SHARE:
                    continue  # it ended meanwhile
                shown = cli_error(error, console.hinted)
                shown.show(as_json=console.as_json)
                code = code or shown.exit_code
            else:
                changed.append(
                    {"group": row.group, "name": row.name, "path": row.path, "state": state}
                )
    console.done(control.DoneAll(f"{verb} {count_text(len(changed), 'download')}", changed))
    return code


# -- the view -----------------------------------------------------------------------------------


def show(console: Console, rows: Sequence[control.DownloadRow]) -> None:
    """Print the downloads once."""
    if console.as_json:
        console.json(plain(list(rows)))
    elif rows:
        print("\n".join(download_lines(rows, terminal=console.terminal)), flush=True)
    else:
        # Standard output of a pipe has a line for each download, and no other.
        (console.print_line if console.terminal else console.report)("There are no downloads.")


def watch(console: Console, states: Collection[str]) -> None:
    """Show the downloads until Ctrl-C.

    A terminal is drawn anew each second. A pipe gets the line of each download whose state changed,
    or with ``--json`` the whole list on one line at each change.
    """
    if console.as_json:
        _stream(console, states, lambda rows, _: [json_text(plain(rows))])
    elif console.terminal:
        _live(console, states)
    else:
        _stream(console, states, lambda _, news: download_lines(news, terminal=False))


def _stream(
    console: Console,
    states: Collection[str],
    lines: Callable[[list[control.DownloadRow], list[control.DownloadRow]], list[str]],
) -> None:
    before: dict[Any, Any] | None = None
    while True:
        rows = rows_of(console, states)
        now = {(row.group, row.path): row if console.as_json else row.state for row in rows}
        if now != before:
            known = before or {}
            news = [row for row in rows if known.get((row.group, row.path)) != row.state]
            for line in lines(rows, news):
                print(line, flush=True)
            before = now
        time.sleep(REFRESH_S)


def _live(console: Console, states: Collection[str]) -> None:
    from rich.console import Console as RichConsole
    from rich.live import Live
    from rich.text import Text

    rich = RichConsole()
    with Live(console=rich, auto_refresh=False, screen=False) as live:
        while True:
            rows = rows_of(console, states)
            lines = download_lines(rows, terminal=True, width=rich.width)
            hidden = len(lines) - max(1, rich.height - 2)
            if hidden > 0:
                lines = [*lines[:-hidden], f"and {hidden:,} more"]
            live.update(Text("\n".join(lines) or "There are no downloads."), refresh=True)
            time.sleep(REFRESH_S)
