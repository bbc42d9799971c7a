"""Commands about the shares of a group: `list-files`, `info`, `stop-share` and `withdraw`."""

from __future__ import annotations

import click

from common.errors import Refused
from common.messages.refusals import Code
from common.names import quoted, versioned
from peer.cli.arguments import group_argument, share_argument
from peer.cli.command import command
from peer.cli.console import Console
from peer.cli.errors import refuse_usage
from peer.cli.name_patterns import matching

ENTRIES_AT_ONCE = 20_000


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

    answer = console.request(ListFiles(group, versions))
    if pattern is not None and isinstance(answer, Files):
        try:
            found = set(matching(pattern, [row.name for row in answer.rows]))
        except ValueError as error:
            refuse_usage(str(error))
        answer = Files([row for row in answer.rows if row.name in found])
        empty = f"No share of the group {quoted(group)} matches {quoted(pattern)}."
        show_rows(console, answer, lambda rows: files_table(rows)._replace(empty=empty))
        return
    show_rows(console, answer, files_table)


@command("stop-share", example="mini-torrent stop-share films film.mkv")
@group_argument
@share_argument
def stop_share(console: Console, group: str, name: str) -> None:
    """Stop serving NAME in this group. The file itself stays.

    All versions that this device holds, or with NAME@VERSION that one. Other devices go on: see
    `withdraw`.

    Shares of a device where you are logged out can be withdrawn from any other device of yours.
    """
    from common.messages.control import StopShare

    console.done(console.request(StopShare(group, name)))


@command("info", example="mini-torrent info films film.mkv@2")
@group_argument
@share_argument
def info(console: Console, group: str, name: str) -> None:
    """Show all that is known about a share.

    NAME is its current version, NAME@VERSION an earlier one. `--json` lists all files of a folder.
    """
    from common.messages.control import Info, ShareInfo
    from peer.cli.share_info import document, info_lines

    answer = console.request(Info(group, name))
    if not isinstance(answer, ShareInfo):
        return
    if not console.as_json:
        print("\n".join(info_lines(answer)), flush=True)
        return
    entries, more = answer.entries, answer.more
    name = versioned(answer.name, answer.version)
    while more:  # in pages: a folder may have 200,000 files
        page = console.request(Info(group, name, len(entries), ENTRIES_AT_ONCE))
        if not isinstance(page, ShareInfo) or page.content != answer.content or not page.entries:
            raise Refused(Code.CHANGED, f"{quoted(name)} was changed meanwhile")
        entries, more = [*entries, *page.entries], page.more
    console.json(document(answer, entries))


@command("withdraw", example="mini-torrent withdraw films film.mkv")
@group_argument
@share_argument
def withdraw(console: Console, group: str, name: str) -> None:
    """Withdraw NAME from this group: no device serves it any longer.

    For the owner of the group, and for the user who shared the current version first. Files stay
    where they are. With NAME@VERSION that version alone is withdrawn. A withdrawn version does not
    come back; a new upload of the name gets the next number.
    """
    from common.messages.control import Withdraw

    console.done(console.request(Withdraw(group, name)))


COMMANDS = (list_files, info, stop_share, withdraw)
