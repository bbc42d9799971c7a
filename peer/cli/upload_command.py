"""The command that shares a file or a folder: `upload-file`."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from common.errors import Refused
from common.hints import hint
from common.messages.refusals import Code
from common.names import printable, quoted
from peer.cli.arguments import group_argument, piece_size
from peer.cli.command import command
from peer.cli.console import Console
from peer.cli.errors import refuse_usage
from peer.cli.json_form import plain

if TYPE_CHECKING:
    from common.messages.control import UploadFile


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
@click.option(
    "--replace",
    is_flag=True,
    help="If the name has another content, make this one its next version.",
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
    replace: bool,
    yes: bool,
    times: bool,
) -> None:
    """Share a file or a folder in a group.

    It stays where it is and is served from there. If a member already shares the same bytes under
    that name, this device joins in, with the piece size and times of that share.

    Files that changed are shared again with --replace, by the user who shared the name and by the
    owner of the group. Devices that hold an earlier version serve it as NAME@VERSION.

    Hidden files, and files that only their owner can read, are listed first: a terminal is asked,
    and a script passes --yes. Homes of peers and trackers, links and special files are refused, all
    of them in one answer. Files of unfinished downloads of this peer are left out.
    """
    from common.messages.control import Uploaded, UploadFile
    from peer.cli.listings import uploaded_line
    from peer.cli.progress import run

    _check_order(console, path, group)
    ask = UploadFile(console.sent_path(path), group, name, digest, piece_size, yes, times, replace)
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
        from msgspec.structs import replace as with_fields

        answer = run(console, with_fields(ask, yes=True), title)
    if not isinstance(answer, Uploaded):
        console.done(answer)
        return
    for note in answer.notes:
        console.report(note)
    if console.as_json:
        document = plain(answer)
        console.json({**document.pop("row"), **document})
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
    words += ["--replace"] if ask.replace else []
    return words if ask.times else [*words, "--no-times"]


def _check_order(console: Console, path: str, group: str) -> None:
    """Refuse a group before the path, which is the order of the other commands."""
    if path and group and os.path.sep in group and os.path.lexists(console.path(group)):
        refuse_usage(
            f"{quoted(group)} is a path, which stands before the group",
            hint("swap them", "upload-file", group, path),
        )


COMMANDS = (upload_file,)
