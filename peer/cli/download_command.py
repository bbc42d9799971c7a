"""The command that fetches a share: `download-file`."""

from __future__ import annotations

import os

import click

from common.errors import StorageError
from common.hints import hint, shell_hint
from peer.cli.arguments import group_argument, share_argument
from peer.cli.command import command
from peer.cli.console import Console
from peer.cli.errors import INTERRUPTED
from peer.cli.json_form import plain


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


COMMANDS = (download_file,)
