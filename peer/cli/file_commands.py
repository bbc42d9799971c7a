"""Commands about downloads that exist, and watching events."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from common.errors import Refused
from common.messages.refusals import Code
from peer.cli.arguments import (
    complete_download,
    complete_group,
    download_argument,
    group_argument,
)
from peer.cli.command import command
from peer.cli.console import Console
from peer.cli.errors import INTERRUPTED, refuse_usage
from peer.cli.json_form import json_text, plain

if TYPE_CHECKING:
    from common.messages.control import Command
    from peer.control.client import Ended


@command("show-downloads", example="mini-torrent show-downloads --state paused --state failed")
@click.option("--watch", is_flag=True, help="Show them as they change, until Ctrl-C.")
@click.option(
    "--state",
    "states",
    type=click.Choice(["downloading", "complete", "paused", "failed"], case_sensitive=False),
    metavar="STATE",
    multiple=True,
    help="Only downloading, complete, paused or failed ones. May be repeated.",
)
def show_downloads(console: Console, watch: bool, states: tuple[str, ...]) -> int:
    """List this device's downloads.

    [D] is downloading, [C] complete, [P] paused or queued, and [F] failed.
    """
    from peer.cli import download_list

    if not watch:
        download_list.show(console, download_list.rows_of(console, states))
        return 0
    try:
        download_list.watch(console, states)
    except KeyboardInterrupt:  # the usual way to end it, and no error
        console.leave_line()
    return INTERRUPTED


optional_group = click.argument("group", required=False, shell_complete=complete_group)
optional_download = click.argument("name", required=False, shell_complete=complete_download)
all_option = click.option("--all", "every", is_flag=True, help="All that are not complete.")


def _named(group: str | None, name: str | None, every: bool) -> tuple[str, str] | None:
    """The download that was named; None for all of them."""
    if every and group is None:
        return None
    if every or group is None or name is None:
        refuse_usage("name a download by GROUP and NAME, or give --all alone")
    return group, name


def _about_download(
    console: Console, make: Callable[[str, str], Command], group: str, name: str
) -> Ended:
    """Send a command about a download, named by its share or else by its destination.

    The path may be relative to the current folder, as in `download-file`."""
    try:
        return console.request(make(group, name))
    except Refused as refused:
        path = console.sent_path(name)
        if refused.code is not Code.UNKNOWN_SHARE or path == name:
            raise
        with contextlib.suppress(Refused):
            return console.request(make(group, path))
        raise


@command("pause", example="mini-torrent pause films film.mkv")
@optional_group
@optional_download
@all_option
def pause(console: Console, group: str | None, name: str | None, every: bool) -> int:
    """Pause a download, until `resume`.

    NAME may also be the destination path.
    """
    from common.messages.control import Pause

    named = _named(group, name, every)
    if named is None:
        from peer.cli.download_list import pause_all

        return pause_all(console)
    console.done(_about_download(console, Pause, *named))
    return 0


@command("resume", example="mini-torrent resume films film.mkv")
@optional_group
@optional_download
@all_option
def resume(console: Console, group: str | None, name: str | None, every: bool) -> int:
    """Continue a download that is paused or failed.

    NAME may also be the destination path.
    """
    from common.messages.control import Resume

    named = _named(group, name, every)
    if named is None:
        from peer.cli.download_list import resume_all

        return resume_all(console)
    console.done(_about_download(console, Resume, *named))
    return 0


@command("cancel", example="mini-torrent cancel films film.mkv")
@optional_group
@optional_download
@all_option
def cancel(console: Console, group: str | None, name: str | None, every: bool) -> int:
    """Cancel a download and delete the partial data.

    NAME may also be the destination path, if several downloads have one name. A complete download
    is taken off the list, and its file stays.
    """
    from common.messages.control import Cancel

    named = _named(group, name, every)
    if named is None:
        from peer.cli.download_list import cancel_all

        return cancel_all(console)
    console.done(_about_download(console, Cancel, *named))
    return 0


@command("clear", example="mini-torrent clear")
def clear(console: Console) -> None:
    """Take complete downloads off the list.

    The files stay, and are shared as before.
    """
    from common.messages.control import Clear

    console.done(console.request(Clear()))


@command("why-slow", example="mini-torrent why-slow films film.mkv")
@group_argument
@download_argument
def why_slow(console: Console, group: str, name: str) -> None:
    """Show the state of each source of an unfinished download.

    Verdicts on an open source: good (it sends), waiting (its bytes are due), silent (they are long
    overdue), idle (nothing is requested from it). An unused source was not needed yet. A closed one
    has the reason.
    """
    from common.messages.control import WhySlow
    from peer.cli.listings import sources_table
    from peer.cli.tables import show_rows

    answer = _about_download(console, WhySlow, group, name)
    reason = getattr(answer, "reason", None)
    if reason and not console.as_json and not getattr(answer, "rows", None):
        console.print_line(f"The download is paused: {reason}")
        return
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
            for message in client.request(control.Watch(group)):
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
