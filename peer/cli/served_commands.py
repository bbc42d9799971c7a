"""Commands about the copies on this device: list-shares, move, verify."""

from __future__ import annotations

from collections.abc import Iterable

import click

from peer.cli.arguments import group_argument, share_argument
from peer.cli.command import command
from peer.cli.console import Console
from peer.cli.json_form import plain

SHOWN_MAX = 10  # pieces and files in an error; JSON has all


@command("list-shares", example="mini-torrent list-shares")
def list_shares(console: Console) -> None:
    """List what this device shares, from where, and who fetches it.

    SENT counts from the start of the peer.
    """
    from common.messages.control import ListShares
    from peer.cli.bandwidth_listing import shares_table
    from peer.cli.tables import show_rows

    show_rows(console, console.request(ListShares()), shares_table)


@command("verify", example="mini-torrent verify films film.mkv")
@group_argument
@share_argument
def verify(console: Console, group: str, name: str) -> int:
    """Read a copy on this device again, and compare each piece.

    The copy is a share of this device, or a complete download. Damaged pieces are named, and the
    exit code is 5. Nothing is changed.
    """
    from common.errors import IntegrityError
    from common.hints import hint
    from common.messages.control import Verified, Verify
    from common.names import quoted
    from common.units import count_text, size_text, time_text
    from peer.cli.progress import run

    answer = run(console, Verify(group, name), name)
    assert isinstance(answer, Verified)
    if console.as_json:
        console.json(plain(answer))
    if not answer.damaged:
        if not (console.as_json or console.quiet):
            what = f"{size_text(answer.size_bytes)}, {count_text(answer.pieces, 'piece')}"
            console.print_line(f"{answer.path}: verified, {what} in {time_text(answer.elapsed_s)}")
        return 0
    pieces = _first(answer.damaged)
    files = f" in {_first(map(quoted, answer.files))}" if any(answer.files) else ""
    of_all = f"{len(answer.damaged):,} of {count_text(answer.pieces, 'piece')}"
    words = "fetch the damaged pieces again"
    raise IntegrityError(
        f"verify {answer.path}: {of_all} damaged: {pieces}{files}",
        hint(words, "download-file", group, name, answer.path, options=("--overwrite",)),
    )


def _first(found: Iterable[object]) -> str:
    texts = [str(one) for one in found]
    more = f" and {len(texts) - SHOWN_MAX:,} more" if len(texts) > SHOWN_MAX else ""
    return ", ".join(texts[:SHOWN_MAX]) + more


@command("move", example="mini-torrent move films film.mkv /media/films/")
@group_argument
@share_argument
@click.argument("path", type=click.Path(readable=False))
def move(console: Console, group: str, name: str, path: str) -> None:
    """Move a copy on this device, and go on sharing it from there.

    The copy is a share of this device, or a complete download. PATH is a folder, or a new path;
    missing folders are made, and nothing is overwritten. Files go to another file system as a
    copy that is verified before the old ones are removed.
    """
    from common.messages.control import Move
    from peer.cli.progress import run

    sent = console.sent_path(path)
    if path.endswith("/") and not sent.endswith("/"):
        sent += "/"
    console.done(run(console, Move(group, name, sent), name))


COMMANDS = (list_shares, move, verify)
