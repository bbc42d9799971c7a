"""Commands about the shares of a group: `list-files` and `stop-share`."""

from __future__ import annotations

import click

from common.errors import Refused
from common.hints import hint
from common.messages.refusals import Code
from common.names import quoted
from peer.cli.arguments import group_argument, share_argument
from peer.cli.command import command
from peer.cli.console import Console
from peer.cli.errors import refuse_usage
from peer.cli.name_patterns import matching


@command("list-files", example="mini-torrent list-files films '*.mkv'")
@group_argument
@click.argument("pattern", required=False)
@click.option("--versions", is_flag=True, help="List earlier versions too, as NAME@VERSION.")
def list_files(console: Console, group: str, pattern: str | None, versions: bool) -> None:
    """List the shares of a group.

    With PATTERN, list those whose names match. In a pattern `*` stands for any characters, `?` for
    one, and `[abc]` for one of these. Quote it, or the shell takes it for files of this folder.

    On a narrow terminal some columns are hidden, and long names are shortened; a pipe or `--json`
    gets all of it.
    """
    from common.messages.control import Files, ListFiles
    from peer.cli.listings import files_table
    from peer.cli.tables import show_rows

    answer = console.ask(ListFiles(group, versions))
    if pattern is not None and isinstance(answer, Files):
        try:
            found = set(matching(pattern, [row.name for row in answer.rows]))
        except ValueError as error:
            refuse_usage(str(error))
        if not found:
            raise Refused(
                Code.UNKNOWN_SHARE,
                f"no share of the group {quoted(group)} matches {quoted(pattern)}",
                hint("see all of them", "list-files", group),
            )
        answer = Files([row for row in answer.rows if row.name in found])
    show_rows(console, answer, files_table)


@command("stop-share", example="mini-torrent stop-share films film.mkv")
@group_argument
@share_argument
def stop_share(console: Console, group: str, name: str) -> None:
    """Stop serving NAME in this group. The file itself stays.

    Shares of a device where you are logged out can be withdrawn from any other device of yours.
    """
    from common.messages.control import StopShare

    console.done(console.ask(StopShare(group, name)))


COMMANDS = (list_files, stop_share)
