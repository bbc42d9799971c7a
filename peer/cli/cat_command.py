"""Command `cat`: writes a file of a group to standard output while it is being fetched."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

import click

from common.errors import MiniTorrentError
from peer.cli.arguments import group_argument, share_argument
from peer.cli.command import command
from peer.cli.console import Console

if TYPE_CHECKING:
    from common.messages.control import FilePart, ReadFile
    from peer.cli.progress import ProgressDisplay
    from peer.control.client import ControlClient

CHUNK_BYTES = 1 << 22


@command("cat", example="mini-torrent cat films film.mkv")
@group_argument
@share_argument
@click.argument("entry", required=False, default="")
def cat(console: Console, group: str, name: str, entry: str) -> int:
    """Write a file to standard output, while it is being fetched.

    NAME is a share that is one file. In a folder, ENTRY is the path of a file. Bytes that this
    device holds are read from the disk. Others are fetched into the home of the peer, as far as
    they are read; the list of downloads shows it. Only verified bytes are written.
    """
    import secrets

    from common.messages.control import ReadFile

    sys.stdout.flush()
    reader, at, tag = secrets.token_hex(8), 0, ""
    with console.client() as client:
        try:
            with _display(console, name) as display:
                while True:
                    command = ReadFile(group, name, entry, reader, at, CHUNK_BYTES, tag)
                    part = _part(client, command, display)
                    if not part.data:
                        return 0
                    sys.stdout.buffer.write(part.data)
                    sys.stdout.buffer.flush()
                    at, tag = at + len(part.data), part.tag
        finally:
            with contextlib.suppress(MiniTorrentError):
                client.result(ReadFile(group, name, entry, reader, at, 0, tag))


def _display(
    console: Console, title: str
) -> contextlib.AbstractContextManager[ProgressDisplay | None]:
    """A bar, unless it would stand among what is written."""
    if not console.draws_progress or console.terminal:
        return contextlib.nullcontext()
    from peer.cli.progress import progress_display

    return progress_display(console, title)


def _part(client: ControlClient, command: ReadFile, display: ProgressDisplay | None) -> FilePart:
    from common.messages.control import Failed, FilePart, Progress
    from peer.control.client import CommandFailed

    with contextlib.closing(client.request(command)) as messages:
        for message in messages:
            match message:
                case Progress() if display is not None:
                    display.show(message)
                case Failed():
                    raise CommandFailed(message)
                case FilePart():
                    return message
                case _:
                    pass
    raise AssertionError("the last message is the result")


COMMANDS = (cat,)
