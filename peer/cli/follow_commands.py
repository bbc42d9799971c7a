"""Commands about fleets: follows, and copies of a share on other devices."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

import click

from common.errors import TimedOut
from common.hints import hint
from common.messages.refusals import Code
from common.names import printable, quoted
from peer.cli.arguments import complete_folder, complete_share, duration, group_argument
from peer.cli.command import command
from peer.cli.console import Console
from peer.cli.json_form import json_text, plain

if TYPE_CHECKING:
    from common.messages.control import Copies
    from peer.control.client import Ended

ALL = "all"
COPIES_MAX = 100_000  # more devices than a group can have
share_argument = click.argument("name", metavar="NAME[@VERSION]", shell_complete=complete_share)


def copies(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """A number of copies, or 0 for ``all``, as a click callback."""
    if value is None:
        return None
    if value.lower() == ALL:
        return 0
    if value.isascii() and value.isdigit() and 1 <= int(value[:7]) <= COPIES_MAX:
        return int(value)
    raise click.BadParameter(
        f"{value!r} is no number of devices; write 1 to {COPIES_MAX:,}, or {ALL}", ctx, param
    )


timeout_option = click.option(
    "--timeout",
    metavar="DURATION",
    callback=duration,
    help="Give up after that long, with exit code 6: 90s, 10m, 12h, 7d.",
)


@command("who-has", example="mini-torrent who-has films film.mkv")
@group_argument
@share_argument
def who_has(console: Console, group: str, name: str) -> None:
    """List the devices that hold, fetch or follow a share.

    A device holds a share when it has a verified copy and serves it. A device that is away may
    hold a copy as well.
    """
    from common.messages.control import WhoHas
    from peer.cli.follow_listings import holders_table
    from peer.cli.tables import show_rows

    show_rows(console, console.request(WhoHas(group, name)), holders_table)


@command("wait", example="mini-torrent wait films film.mkv --for 3 --timeout 10m")
@group_argument
@share_argument
@click.option(
    "--for",
    "wanted",
    metavar="N|all",
    default=ALL,
    show_default=True,
    callback=copies,
    help="The number of other devices, or all that follow the group.",
)
@timeout_option
def wait(console: Console, group: str, name: str, wanted: int, timeout: float | None) -> None:
    """Wait until other devices hold a verified copy of a share.

    Prints one line for each device as it comes. A device that is away counts if it holds a copy.
    """
    answer = await_copies(console, group, name, wanted, deadline_of(timeout))
    if console.as_json:
        console.json(plain(answer.rows))
    require(answer, group, name)


def deadline_of(timeout: float | None) -> float | None:
    """The end of a wait that begins now."""
    return None if timeout is None else monotonic() + timeout


def await_copies(
    console: Console, group: str, name: str, wanted: int, deadline: float | None
) -> Copies:
    """Wait for copies on ``wanted`` other devices, 0 for all followers, with a line for each."""
    from common.messages import control
    from peer.control.client import CommandFailed

    left = None if deadline is None else max(0.0, deadline - monotonic())
    told: str | None = None
    with console.client() as client:
        for message in client.request(control.AwaitCopies(group, name, wanted, left)):
            match message:
                case control.Happened(details=facts):
                    _show_device(console, message.event, facts, name)
                case control.Progress(note=note):
                    if note and note != told and sys.stderr.isatty():
                        console.report(f"{printable(name)}: {note}")
                    told = note
                case control.Failed():
                    raise CommandFailed(message)
                case control.Copies():
                    return message
                case _:
                    pass
    raise AssertionError("the peer ended a wait without a result")


def _show_device(console: Console, state: str, facts: dict[str, Any], name: str) -> None:
    if console.as_json:
        row = {"user": facts["user"], "device": facts["device"], "state": state}
        print(json_text(row), file=sys.stderr, flush=True)
    elif not console.quiet:
        console.print_line(f"{facts['user']} {facts['id']} has {printable(name)}")


def require_followers(console: Console, group: str) -> None:
    """Raise `Refused` if no other device follows ``group``: none would ever get a copy."""
    from common.errors import Refused
    from common.messages import control

    members = console.request(control.ListMembers(group))
    mine = console.request(control.ListFollows())
    count = sum(row.follows for row in getattr(members, "rows", []))
    own = any(row.group == group.lower() for row in getattr(mine, "rows", []))
    if count <= own:
        raise Refused(
            Code.FAILED,
            f"wait for all: no other device follows {quoted(group)}",
            hint("let a device follow it", "follow", group, "DIR"),
        )


def await_all(
    console: Console, group: str, shares: Sequence[str], wanted: int, timeout: float | None
) -> None:
    """Wait for copies of each of ``shares``. Raises `TimedOut`."""
    deadline = deadline_of(timeout)
    for name in shares:
        require(await_copies(console, group, name, wanted, deadline), group, name)


def require(answer: Copies, group: str, name: str) -> None:
    """Raise `TimedOut` if the wait ended before there were enough copies."""
    if answer.timed_out:
        raise TimedOut(answer.text, hint("see all devices", "who-has", group, name))


@command(
    "follow",
    example="mini-torrent follow films ~/Videos\n"
    "mini-torrent follow lab /data --match '*.csv' --match 'model*'",
)
@group_argument
@click.argument("dir", type=click.Path(readable=False), shell_complete=complete_folder)
@click.option(
    "--match",
    "globs",
    metavar="GLOB",
    multiple=True,
    help="Fetch only names that match. Repeatable.",
)
@click.option(
    "--keep-versions",
    metavar="N",
    type=click.IntRange(0, 100),
    default=0,
    show_default=True,
    help="Keep the last N earlier versions beside the current one, as NAME@K.",
)
def follow(
    console: Console, group: str, dir: str, globs: tuple[str, ...], keep_versions: int
) -> None:
    """Fetch every share of a group into DIR, now and from now on.

    Each share becomes DIR/NAME, and a new version takes its place. This goes on over restarts
    until `unfollow`. DIR is made if it is missing.

    A file that you delete or whose download you cancel comes back with its next version, or when
    you give this command again. Hidden names need a --match that begins with a dot.
    """
    from common.messages.control import Follow

    command = Follow(group, console.sent_path(dir), list(globs), keep_versions)
    _show_changed(console, console.request(command))


@command("unfollow", example="mini-torrent unfollow films")
@group_argument
@click.argument("dir", required=False, type=click.Path(readable=False))
def unfollow(console: Console, group: str, dir: str | None) -> None:
    """Follow a group no longer, into DIR or into any folder.

    Files stay and are served as before. Unfinished downloads are cancelled.
    """
    from common.messages.control import Unfollow

    path = None if dir is None else console.sent_path(dir)
    _show_changed(console, console.request(Unfollow(group, path)))


@command("list-follows", example="mini-torrent list-follows")
def list_follows(console: Console) -> None:
    """List the follows of this device, and what they wait for."""
    from common.messages.control import Follows, ListFollows
    from peer.cli.follow_listings import follow_lines, follows_table
    from peer.cli.tables import show

    answer = console.request(ListFollows())
    if not isinstance(answer, Follows):
        return
    if console.as_json:
        console.json(plain(answer.rows))
        return
    show(follows_table(answer.rows), console)
    for text in follow_lines(answer.rows):
        console.print_line(text)


def _show_changed(console: Console, answer: Ended) -> None:
    from common.messages.control import Follows

    if not isinstance(answer, Follows):
        return
    if console.as_json:
        console.json(plain(answer.rows))
    elif not console.quiet:
        console.print_line(answer.text)


COMMANDS = (follow, unfollow, list_follows, who_has, wait)
