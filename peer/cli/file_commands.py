"""Commands about files: sharing, listing and downloading them, and watching events."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from common.errors import Refused, StorageError
from common.hints import hint, shell_hint
from common.messages.refusals import Code
from common.names import printable, quoted
from peer.cli.arguments import (
    complete_download,
    complete_group,
    complete_share,
    group_argument,
    piece_size,
)
from peer.cli.command import command
from peer.cli.console import Console
from peer.cli.errors import INTERRUPTED, refuse_usage
from peer.cli.json_form import json_text, plain

if TYPE_CHECKING:
    from common.messages.control import Ask, UploadFile
    from peer.control.client import Ended

share_argument = click.argument("name", shell_complete=complete_share)
download_argument = click.argument("name", shell_complete=complete_download)


@command("upload-file", example="mini-torrent upload-file ~/film.mkv films")
@click.argument("path", type=click.Path(readable=False))
@group_argument
@click.option("--name", help="The name in the group. Default: the last part of PATH.")
@click.option(
    "--digest",
    type=click.Choice(["blake3", "sha256", "sha1"]),
    default="blake3",
    show_default=True,
    help="The digest that verifies each piece and the whole.",
)
@click.option(
    "--piece-size",
    metavar="SIZE",
    callback=piece_size,
    help="A power of two. Default: 512K; 1M from 512 MiB on; 2M from 1 GiB on.",
)
@click.option("--yes", "-y", is_flag=True, help="Share hidden and private files without asking.")
@click.option(
    "--times/--no-times",
    default=True,
    show_default=True,
    help="Share the modification times.",
)
def upload_file(
    console: Console,
    path: str,
    group: str,
    name: str | None,
    digest: str,
    piece_size: int | None,
    yes: bool,
    times: bool,
) -> None:
    """Share a file or a folder in a group.

    It stays where it is and is served from there. If a member already shares the same bytes under
    that name, this device joins in, with the piece size and times of that share.

    Hidden files, and files that only their owner can read, are listed first: a terminal is asked,
    and a script passes --yes. Homes of peers and trackers, links and special files are refused, all
    of them in one answer. Files of unfinished downloads of this peer are left out.
    """
    from common.messages.control import Uploaded, UploadFile
    from peer.cli.listings import uploaded_line
    from peer.cli.progress import run

    _check_order(console, path, group)
    ask = UploadFile(console.sent_path(path), group, name, digest, piece_size, yes, times)
    title = name or os.path.basename(ask.path)
    try:
        answer = run(console, ask, title)
    except Refused as refused:
        if refused.code is not Code.UNCONFIRMED:
            raise
        options = ("--yes", *_options_of(ask))
        _confirm(
            console,
            refused,
            hint("share them all the same", "upload-file", path, group, options=options),
        )
        from msgspec.structs import replace

        answer = run(console, replace(ask, yes=True), title)
    if not isinstance(answer, Uploaded):
        console.done(answer)
        return
    for note in answer.notes:
        console.report(note)
    if console.as_json:
        row = plain(answer.row)
        document = {
            **row,
            "elapsed_s": answer.elapsed_s,
            "joined": answer.joined,
            "again": answer.again,
        }
        console.json({**document, "notes": answer.notes} if answer.notes else document)
    elif not console.quiet:
        console.print_line(uploaded_line(answer))


def _confirm(console: Console, refused: Refused, otherwise: str) -> None:
    """Ask whether to share hidden and private files; raises `Refused` if not."""
    if console.as_json or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Refused(refused.code, refused.message, otherwise)
    print(printable(refused.message), file=sys.stderr)
    print("Share all of it? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Refused(refused.code, "nothing was shared")


def _options_of(ask: UploadFile) -> list[str]:
    """The options of the command line that makes ``ask``."""
    words = [] if ask.name is None else ["--name", ask.name]
    words += [] if ask.digest == "blake3" else ["--digest", ask.digest]
    words += [] if ask.piece_length is None else ["--piece-size", str(ask.piece_length)]
    return words if ask.times else [*words, "--no-times"]


def _check_order(console: Console, path: str, group: str) -> None:
    """Refuse a group before the path, which is the order of the other commands."""
    if path and group and os.path.sep in group and os.path.lexists(console.path(group)):
        refuse_usage(
            f"{quoted(group)} is a path, which stands before the group",
            hint("swap them", "upload-file", group, path),
        )


@command("list-files", example="mini-torrent list-files films")
@group_argument
def list_files(console: Console, group: str) -> None:
    """List the shares of a group.

    On a narrow terminal some columns are hidden, and long names are shortened; a pipe or `--json`
    gets all of it.
    """
    from common.messages.control import ListFiles
    from peer.cli.listings import files_table
    from peer.cli.tables import show_rows

    answer = console.ask(ListFiles(group))
    show_rows(console, answer, files_table)


@command("download-file", example="mini-torrent download-file films film.mkv ~/Videos/")
@group_argument
@share_argument
@click.argument("dest", type=click.Path(readable=False))
@click.option("--wait/--no-wait", default=None, help="Wait until the download is complete.")
@click.option(
    "--pick",
    type=click.Choice(["rarest", "random", "sequential"]),
    default="rarest",
    show_default=True,
    help="The order of the pieces.",
)
@click.option(
    "--times/--no-times",
    default=None,
    help="Set the modification times. Default: as in peer.toml, else yes.",
)
def download_file(
    console: Console,
    group: str,
    name: str,
    dest: str,
    wait: bool | None,
    pick: str,
    times: bool | None,
) -> int:
    """Fetch a file or folder from a group.

    DEST is a folder, or a new path.

    The command ends when the verified file is in place. Ctrl-C ends the waiting, not the download,
    which `cancel` stops. Afterwards this device serves the file to the group.
    """
    from common.messages.control import Begun, Downloaded, DownloadFile
    from peer.cli.listings import downloaded_line
    from peer.cli.progress import run

    path = console.path(dest)
    if dest.endswith("/") and not os.path.isdir(path):
        raise StorageError(
            f"{dest} is not a folder",
            shell_hint("leave the last / out, or make it first", "mkdir", "-p", path),
        )
    waits = wait if wait is not None else not console.at_prompt
    ask = DownloadFile(group, name, console.sent_path(dest), waits, pick, times)
    try:
        answer = run(console, ask, name) if waits else console.ask(ask)
    except KeyboardInterrupt:
        if console.quiet or console.as_json:
            raise
        console.leave_line()
        words = "still downloading in the background; to stop it"
        console.report(console.hinted(hint(words, "cancel", group, name)))
        return INTERRUPTED
    if isinstance(answer, Begun):
        console.begun.append(answer)
    if not isinstance(answer, Downloaded):
        console.done(answer)
    elif console.as_json:
        console.json(plain(answer))
    elif not console.quiet:
        console.print_line(downloaded_line(answer))
    return 0


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


@command("stop-share", example="mini-torrent stop-share films film.mkv")
@group_argument
@share_argument
def stop_share(console: Console, group: str, name: str) -> None:
    """Stop serving NAME in this group. The file itself stays.

    Shares of a device where you are logged out can be withdrawn from any other device of yours.
    """
    from common.messages.control import StopShare

    console.done(console.ask(StopShare(group, name)))


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
    upload_file,
    list_files,
    download_file,
    show_downloads,
    stop_share,
    pause,
    resume,
    cancel,
    clear,
    why_slow,
    watch,
)
