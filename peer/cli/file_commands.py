"""Commands about downloads that exist, and watching events."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from common.errors import Refused
from common.messages.refusals import Code
from peer.cli.arguments import (
    complete_group,
    download_argument,
    group_argument,
)
from peer.cli.command import command
from peer.cli.console import Console
from peer.cli.errors import INTERRUPTED
from peer.cli.json_form import json_text, plain

if TYPE_CHECKING:
    from common.messages.control import Ask
    from peer.control.client import Ended


@command("show-downloads", example="mini-torrent show-downloads")
def show_downloads(console: Console) -> None:
    """List this device's downloads.

    [D] is downloading, [C] complete, [P] paused or queued, and [F] failed.
    """
    from common.messages.control import Downloads, ShowDownloads
    from peer.cli.listings import download_lines

    answer = console.ask(ShowDownloads())
    if not isinstance(answer, Downloads):
        return
    if console.as_json:
        console.json(plain(answer.rows))
    elif answer.rows:
        print("\n".join(download_lines(answer.rows, terminal=console.terminal)), flush=True)
    else:
        # Standard output of a pipe has a line for each download, and no other.
        (console.print_line if console.terminal else console.report)("There are no downloads.")


def _about_download(
    console: Console, make: Callable[[str, str], Ask], group: str, name: str
) -> Ended:
    """Send a command about a download, named by its share or else by its destination.

    The path may be relative to the current folder, as in `download-file`."""
    try:
        return console.ask(make(group, name))
    except Refused as refused:
        path = console.sent_path(name)
        if refused.code is not Code.UNKNOWN_SHARE or path == name:
            raise
        with contextlib.suppress(Refused):
            return console.ask(make(group, path))
        raise


@command("pause", example="mini-torrent pause films film.mkv")
@group_argument
@download_argument
def pause(console: Console, group: str, name: str) -> None:
    """Pause a download, until `resume`.

    NAME may also be the destination path.
    """
    from common.messages.control import Pause

    console.done(_about_download(console, Pause, group, name))


@command("resume", example="mini-torrent resume films film.mkv")
@group_argument
@download_argument
def resume(console: Console, group: str, name: str) -> None:
    """Continue a download that is paused or failed.

    NAME may also be the destination path.
    """
    from common.messages.control import Resume

    console.done(_about_download(console, Resume, group, name))


@command("cancel", example="mini-torrent cancel films film.mkv")
@group_argument
@download_argument
def cancel(console: Console, group: str, name: str) -> None:
    """Cancel a download and delete the partial data.

    NAME may also be the destination path, if several downloads have one name. A complete download
    is taken off the list, and its file stays.
    """
    from common.messages.control import Cancel

    console.done(_about_download(console, Cancel, group, name))


@command("clear", example="mini-torrent clear")
def clear(console: Console) -> None:
    """Take complete downloads off the list.

    The files stay, and are shared as before.
    """
    from common.messages.control import Clear

    console.done(console.ask(Clear()))


@command("why-slow", example="mini-torrent why-slow films film.mkv")
@group_argument
@download_argument
def why_slow(console: Console, group: str, name: str) -> None:
    """Show the state of each source of an unfinished download."""
    from common.messages.control import WhySlow
    from peer.cli.listings import sources_table
    from peer.cli.tables import show_rows

    answer = _about_download(console, WhySlow, group, name)
    show_rows(console, answer, sources_table)


@command("watch", example="mini-torrent watch films --json")
@click.argument("group", required=False, shell_complete=complete_group)
def watch(console: Console, group: str | None) -> int:
    """Print the events of your groups as they happen.

    With GROUP, only those of this group. Ctrl-C ends it. With --json, one object a line.
    """
    from common.messages import control
    from peer.cli.listings import EventLines
    from peer.control.client import CommandFailed

    lines = EventLines(aligned=console.terminal)
    try:
        with console.client() as client:
            for message in client.ask(control.Watch(group)):
                match message:
                    case control.Happened():
                        line = _event_json(message) if console.as_json else lines.line(message)
                        print(line, flush=True)
                    case control.Progress(note=note):
                        of = group or "all your groups"
                        console.report(note or f"watching {of}; Ctrl-C ends it")
                    case control.Failed():
                        raise CommandFailed(message)
                    case _:
                        pass
    except KeyboardInterrupt:  # the usual way to end it, and no error
        console.leave_line()
        return INTERRUPTED
    return 0


def _event_json(event: Any) -> str:
    row = plain(event)
    details = row.pop("details")
    return json_text({**row, **{key: details[key] for key in details if key not in row}})


COMMANDS = (
    show_downloads,
    pause,
    resume,
    cancel,
    clear,
    why_slow,
    watch,
)
