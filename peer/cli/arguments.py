"""Arguments as values: sizes, passwords, and completion of names by the shell."""

from __future__ import annotations

import contextlib
import re
import sys
from typing import TYPE_CHECKING

import click

from common import limits
from common.hints import PROGRAM, line
from common.units import parse_duration
from peer.cli.console import Console
from peer.cli.errors import PUBLIC_ARGUMENTS, TYPED, refuse_usage

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from common.messages import control

_SIZE = re.compile(
    r"(?P<number>[0-9]{1,18}(?:\.[0-9]{1,6})?) ?(?P<unit>[kmgt]?)(?:i?b)?", re.IGNORECASE
)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def parse_size(text: str) -> int:
    """Bytes of ``512K``, ``1M``, ``1.5 GiB``, ``4096``: K, M, G and T are powers of 1024.

    Raises ValueError.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size; write it like 512K, 1M or 1.5GiB")
    size = float(match["number"]) * _UNITS[match["unit"].lower()]
    if size != int(size):
        raise ValueError(f"{text!r} is not a whole number of bytes")
    return int(size)


def size(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """A size in bytes, as a click callback."""
    if value is None:
        return None
    try:
        return parse_size(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from error


def duration(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """A duration in seconds, as a click callback."""
    if value is None:
        return None
    try:
        return parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from error


def piece_size(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """A piece's length, as a click callback: a power of two within the protocol's bounds."""
    length = size(ctx, param, value)
    if length is None:
        return None
    if not limits.PIECE_LENGTH_MIN <= length <= limits.PIECE_LENGTH_MAX or length & (length - 1):
        raise click.BadParameter(
            f"a piece is {limits.PIECE_LENGTH_MIN // limits.KIB}K, twice that, and so on up to "
            f"{limits.PIECE_LENGTH_MAX // limits.MIB}M; not {value}",
            ctx,
            param,
        )
    return length


# -- completion ---------------------------------------------------------------------------------


def complete_group(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The groups that the running peer knows."""
    from common.messages import control

    answer = _answer(ctx, control.ListGroups())
    return _matching(incomplete, [row.group for row in getattr(answer, "rows", [])])


def complete_device(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The devices of the user who is logged in."""
    from common.messages import control

    answer = _answer(ctx, control.ListDevices())
    return _matching(incomplete, [row.id for row in getattr(answer, "rows", [])])


def complete_share(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The shares of the group that was typed before; after an ``@`` their versions too."""
    from common.messages import control
    from common.names import versioned

    versions = "@" in incomplete
    answer = _answer(ctx, control.ListFiles(ctx.params.get("group") or "", versions))
    rows = getattr(answer, "rows", [])
    words = dict.fromkeys(row.name for row in rows)
    if versions:
        words |= dict.fromkeys(versioned(row.name, row.version) for row in rows)
    return _matching(incomplete, list(words))


def complete_member(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The members of the group that was typed before."""
    from common.messages import control

    answer = _answer(ctx, control.ListMembers(ctx.params.get("group") or ""))
    return _matching(incomplete, [row.user for row in getattr(answer, "rows", [])])


def complete_request(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The users who ask to join the group that was typed before."""
    from common.messages import control

    answer = _answer(ctx, control.ListRequests(ctx.params.get("group") or ""))
    return _matching(incomplete, [row.user for row in getattr(answer, "rows", [])])


def complete_invite(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The invitations to the group that was typed before."""
    from common.messages import control

    answer = _answer(ctx, control.ListInvites(ctx.params.get("group") or ""))
    return _matching(incomplete, [row.id for row in getattr(answer, "rows", [])])


def complete_folder(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """The folders of this machine, which the shell knows."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="dir")]


def complete_download(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The downloads of this peer in the group that was typed before."""
    from common.messages import control

    answer = _answer(ctx, control.ShowDownloads())
    group = (ctx.params.get("group") or "").lower()
    rows = [row for row in getattr(answer, "rows", []) if row.group == group]
    return _matching(incomplete, [row.name for row in rows])


def complete_path_or_group(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """Files and folders of this machine; behind the first one also groups."""
    from click.shell_completion import CompletionItem

    items: list[CompletionItem[str]] = [CompletionItem(incomplete, type="file")]
    if ctx.params.get("paths"):
        groups = complete_group(ctx, param, incomplete)
        items += [CompletionItem(group) for group in groups]
    return items


group_argument = click.argument("group", shell_complete=complete_group)
share_argument = click.argument("name", shell_complete=complete_share)
download_argument = click.argument("name", shell_complete=complete_download)
yes_option = click.option("--yes", "-y", is_flag=True, help="Do not ask for confirmation.")


def _answer(ctx: click.Context, command: control.Command) -> object:
    # Completing runs no command, so the state is made from the options alone. It must stay silent,
    # whatever goes wrong: the user is in the middle of a line.
    with contextlib.suppress(Exception):
        return Console(home_option=ctx.find_root().params.get("home")).request(command)
    return None


def _matching(incomplete: str, names: list[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]


# -- passwords ----------------------------------------------------------------------------------


def read_password(given: str | None, *, twice: bool, prompt: str = "Password: ") -> str:
    """The password: as given, asked for without echo, or one line from standard input."""
    if given is not None:
        return _text(given)
    if not sys.stdin.isatty():
        typed = sys.stdin.readline()
        if not typed:
            refuse_usage("no password was given", _from_a_file())
        return _text(typed.rstrip("\r\n"))
    return _prompt_password(prompt, twice)


def _prompt_password(prompt: str, twice: bool) -> str:
    from getpass import getpass

    try:
        password = getpass(prompt)
        if twice and getpass("Repeat the password: ") != password:
            refuse_usage("the two passwords differ", "type the same one twice")
    except EOFError:
        refuse_usage("no password was given", _from_a_file())
    except KeyboardInterrupt:
        print(file=sys.stderr)  # nothing of what was typed is seen, not even the end of the line
        raise
    return _text(password)


def _from_a_file() -> str:
    ctx = click.get_current_context()
    name = ctx.command.name or ""
    typed = ctx.meta.get(TYPED, [])[: PUBLIC_ARGUMENTS.get(name, 0)]
    return f"read it from a file: {line(PROGRAM, name, *typed)} < FILE"


def _text(password: str) -> str:
    try:
        password.encode()
    except UnicodeEncodeError:
        refuse_usage("the password is not valid UTF-8")  # and is not shown
    return password
