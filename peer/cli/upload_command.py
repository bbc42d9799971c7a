"""The command that shares files and folders: `upload-file`.

Owns: its options, the order of several paths, and the question about hidden and private files. Not
here: what is shared of a folder (see peer.files.scanning).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from common.errors import MiniTorrentError, Refused
from common.hints import hint
from common.messages.refusals import Code
from common.names import fold_name, printable, quoted, versioned
from peer.cli.arguments import complete_path_or_group, duration, group_argument, piece_size
from peer.cli.command import command
from peer.cli.console import Console
from peer.cli.errors import cli_error, refuse_usage
from peer.cli.follow_commands import await_all, copies, require_followers, timeout_option

if TYPE_CHECKING:
    from common.messages.control import Planned, Uploaded, UploadFile

NAMED_MAX = 20  # left-out entries that are printed; the rest is counted
_OF_EVERY_PATH = {
    Code.NOT_LOGGED_IN, Code.UNKNOWN_GROUP, Code.NO_PEER, Code.UNREACHABLE, Code.CANCELLED,
}  # fmt: skip
"""Errors that each further path would meet as well."""


@command(
    "upload-file",
    example="mini-torrent upload-file ~/film.mkv films\n"
    "mini-torrent upload-file results/ lab --exclude '*.tmp' --links follow",
)
@click.argument(
    "paths",
    metavar="PATH…",
    nargs=-1,
    required=True,
    type=click.Path(readable=False),
    shell_complete=complete_path_or_group,
)
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
    help="A power of two. Default: 256K; 512K from 256 MiB, 1M from 512 MiB, 2M from 1 GiB on.",
)
@click.option(
    "--links",
    type=click.Choice(["refuse", "follow", "skip"]),
    default="refuse",
    show_default=True,
    help="Links in a folder: follow shares their targets as plain files.",
)
@click.option(
    "--link-root",
    "link_roots",
    metavar="PATH",
    multiple=True,
    type=click.Path(readable=False),
    help="A folder outside PATH that links may lead into. Repeatable.",
)
@click.option(
    "--exclude",
    metavar="GLOB",
    multiple=True,
    help="Leave out what matches, as in a .gitignore of the folder. Repeatable.",
)
@click.option(
    "--skip-unsharable", "skip", is_flag=True, help="Leave out what cannot be shared, and list it."
)
@click.option("--dry-run", is_flag=True, help="Show what would be shared; change nothing.")
@click.option(
    "--replace",
    is_flag=True,
    help="If the name has another content, make this one its next version.",
)
@click.option(
    "--expires",
    metavar="DURATION",
    callback=duration,
    help="End the share after that time, as in 90s, 10m, 12h or 7d.",
)
@click.option("--yes", "-y", is_flag=True, help="Share hidden and private files without asking.")
@click.option(
    "--times/--no-times",
    default=True,
    show_default=True,
    help="Share the modification times.",
)
@click.option(
    "--wait",
    "wanted",
    metavar="N|all",
    callback=copies,
    help="Wait until N other devices, or all that follow the group, hold a verified copy.",
)
@timeout_option
def upload_file(
    console: Console,
    paths: tuple[str, ...],
    group: str,
    name: str | None,
    digest: str,
    piece_size: int | None,
    links: str,
    link_roots: tuple[str, ...],
    exclude: tuple[str, ...],
    skip: bool,
    dry_run: bool,
    replace: bool,
    expires: float | None,
    yes: bool,
    times: bool,
    wanted: int | None,
    timeout: float | None,
) -> int:
    """Share files and folders in a group.

    They stay where they are and are served from there. If a member already shares the same bytes
    under that name, this device joins in, with the piece size and times of that share.

    Files that changed are shared again with --replace, by the user who shared the name and by the
    owner of the group. Devices that hold an earlier version serve it as NAME@VERSION.

    Hidden files, and files that only their owner can read, are listed first: a terminal is asked,
    and a script passes --yes. Homes of peers and trackers, links and special files are refused, all
    of them in one answer, unless options say otherwise. Files of unfinished downloads of this peer
    are left out. Targets of links may lie in the shared folder or in a --link-root.

    With --expires the share is withdrawn from the group at that time, also over restarts; at the
    next start if this device is off. Copies that others have fetched stay with them. If another
    member shared it first, only this device stops. Sharing it again without --expires keeps it.

    With --wait, one line is printed for each device that gets a copy; --timeout counts from the
    end of sharing.

    Each of several PATHs is a share of its own: if one fails, the others are shared all the same,
    and the exit code is 1.
    """
    from common.messages.control import Uploaded, UploadFile

    _check_order(console, paths, group)
    if link_roots and links != "follow":
        refuse_usage("--link-root needs --links follow")
    _check_patterns(exclude)
    uploads = [
        UploadFile(
            console.sent_path(path),
            group,
            name,
            digest,
            piece_size,
            yes,
            times,
            links,
            [console.sent_path(root) for root in link_roots],
            list(exclude),
            skip,
            dry_run,
            replace,
            expires,
        )
        for path in paths
    ]
    _check_names(uploads, paths)
    if timeout is not None and wanted is None:
        refuse_usage("--timeout needs --wait")
    if wanted is not None and dry_run:
        refuse_usage("--wait has no use with --dry-run")
    if wanted == 0:
        require_followers(console, group)
    shared: list[Uploaded | Planned] = []
    if len(uploads) > 1:
        code = _share_all(console, uploads, paths, shared)
    else:
        answer = _share(console, uploads[0], paths[0])
        shared.append(answer)
        if console.as_json:
            from common.messages.documents import document

            console.json(document(answer))
        code = _refusal(console, answer)
    if wanted is not None:
        rows = [each.row for each in shared if isinstance(each, Uploaded)]
        shares = [versioned(row.name, row.version) for row in rows]
        await_all(console, group, shares, wanted, timeout)
    return code


def _share_all(
    console: Console,
    uploads: Sequence[UploadFile],
    paths: Sequence[str],
    shared: list[Uploaded | Planned],
) -> int:
    """Share one after the other, and show the error of each that fails."""
    from common.messages.documents import document

    documents: list[dict[str, Any]] = []
    code = 0
    try:
        for upload, path in zip(uploads, paths, strict=True):
            try:
                answer = _share(console, upload, path)
            except MiniTorrentError as error:
                if error.code in _OF_EVERY_PATH:
                    raise
                if path not in error.message and upload.path not in error.message:
                    error.message = f"share {quoted(path)}: {error.message}"
                cli_error(error, console.hinted).show(as_json=console.as_json)
                code = 1
                continue
            shared.append(answer)
            documents.append(document(answer))
            code = max(code, _refusal(console, answer))
    finally:
        if console.as_json:
            console.json(documents)
    return code


def _share(console: Console, upload: UploadFile, path: str) -> Uploaded | Planned:
    """Share one path, or plan it, and print the lines for people. Raises `MiniTorrentError`."""
    from common.messages.control import Planned, Uploaded
    from peer.cli.listings import planned_line, uploaded_line
    from peer.cli.progress import run

    title = upload.name or os.path.basename(upload.path)
    try:
        answer = run(console, upload, title)
    except Refused as refused:
        if refused.code is not Code.UNCONFIRMED:
            raise
        from peer.shares.upload_line import upload_options

        options = ("--yes", *upload_options(upload))
        _confirm(
            console,
            refused,
            hint("share them all the same", "upload-file", path, upload.group, options=options),
        )
        from msgspec.structs import replace as with_fields

        answer = run(console, with_fields(upload, yes=True), title)
    assert isinstance(answer, Uploaded | Planned)
    for note in answer.notes if isinstance(answer, Uploaded) else []:
        console.report(note)
    _report_left_out(console, answer)
    if not console.as_json and not console.quiet:
        line = uploaded_line(answer) if isinstance(answer, Uploaded) else planned_line(answer)
        console.print_line(line)
    return answer


def _report_left_out(console: Console, answer: Uploaded | Planned) -> None:
    for row in answer.skipped[:NAMED_MAX]:
        console.report(f"left out: {row.path}: {row.reason}")
    more = len(answer.skipped) - NAMED_MAX + answer.skipped_unnamed
    if more > 0:
        console.report(f"left out: {more:,} more (--json lists them)")
    if answer.excluded:
        console.report(f"excluded by --exclude: {answer.excluded:,}")


def _refusal(console: Console, answer: Uploaded | Planned) -> int:
    """Show that a planned upload would be refused; returns the exit code."""
    from common.messages.control import Planned

    if not isinstance(answer, Planned) or answer.outcome != "refused":
        return 0
    refused = Refused(Code.TAKEN, answer.reason or "it would be refused", answer.hint)
    cli_error(refused, console.hinted).show(as_json=console.as_json)
    return 1


def _confirm(console: Console, refused: Refused, otherwise: str) -> None:
    """Ask whether to share hidden and private files; raises `Refused` if not."""
    if console.as_json or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Refused(refused.code, refused.message, otherwise)
    print(printable(refused.message), file=sys.stderr)
    print("Share all of it? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Refused(refused.code, "nothing was shared")


# -- wrong usage --------------------------------------------------------------------------------


def _check_order(console: Console, paths: Sequence[str], group: str) -> None:
    """Refuse a group before the path, which is the order of the other commands."""
    if group and all(paths) and os.path.sep in group and os.path.lexists(console.path(group)):
        words = f"{quoted(group)} is a path, which stands before the group"
        refuse_usage(words, hint("swap them", "upload-file", *[group, *paths[1:]], paths[0]))


def _check_names(uploads: Sequence[UploadFile], paths: Sequence[str]) -> None:
    """Refuse one name for two of the paths."""
    if len(uploads) > 1 and uploads[0].name is not None:
        refuse_usage("--name is for one PATH", "share each with a command of its own")
    seen: dict[str, str] = {}
    for upload, path in zip(uploads, paths, strict=True):
        other = seen.setdefault(fold_name(os.path.basename(upload.path)), path)
        if other is not path:
            refuse_usage(
                f"{quoted(other)} and {quoted(path)} would have the same name",
                hint("give one another name", "upload-file", path, uploads[0].group,
                     options=("--name", "NAME")),
            )  # fmt: skip


def _check_patterns(patterns: Sequence[str]) -> None:
    if patterns:
        from peer.files.sharing_rule import exclusion

        exclusion(patterns)


COMMANDS = (upload_file,)
