"""Factory of the commands of `mini-torrent`, and the group that contains them.

Owns the options that all commands share, the example at the end of each help page, and the
suggestion for a mistyped command. ``-`` and ``_`` in names are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from common.cli.command_group import CommandGroup, HelpCommand, WrongUsage, meant
from common.errors import MiniTorrentError
from common.hints import PROGRAM, quoted_line
from common.host.release import RELEASE
from common.names import quoted
from peer.cli.command_table import SECTIONS, LazyCommands, names_of
from peer.cli.console import Console
from peer.cli.errors import PUBLIC_ARGUMENTS, SENTENCE_MAX, TYPED, without_home

COMPLETE_VARIABLE = "_MINI_TORRENT_COMPLETE"
SUMMARY_MAX = 62  # characters of a command's summary: a line of 80 columns behind its name


def _json(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and (console := ctx.find_object(Console)) is not None:
        console.as_json = True


def _quiet(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and (console := ctx.find_object(Console)) is not None:
        console.quiet = True


def _verbose(ctx: click.Context, param: click.Parameter, value: int) -> None:
    if value and (console := ctx.find_object(Console)) is not None:
        console.verbose = value


def _home(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value and (console := ctx.find_object(Console)) is not None:
        console.use_home(value)


def _shared_options() -> list[click.Parameter]:
    """The global options again, so that they may also stand behind the command."""
    common: dict[str, Any] = {"expose_value": False, "is_eager": True, "allow_from_autoenv": False}
    return [
        click.Option(["--home"], metavar="DIR", callback=_home, hidden=True, **common),
        click.Option(
            ["--json"], is_flag=True, callback=_json, help="Print JSON for programs.", **common
        ),
        click.Option(["-q", "--quiet"], is_flag=True, callback=_quiet, hidden=True, **common),
        click.Option(["-v", "--verbose"], count=True, callback=_verbose, hidden=True, **common),
    ]


def command(name: str, *, example: str) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a command of `mini-torrent`. Its function gets the `Console` as first argument."""
    lines = "\n".join(f"  {line}" for line in example.splitlines())

    def make(function: Callable[..., Any]) -> click.Command:
        decorate = click.command(name, cls=Command, epilog=f"\b\nExample:\n{lines}")
        made: click.Command = decorate(click.pass_obj(function))
        made.params.extend(_shared_options())
        return made

    return make


class Command(HelpCommand):
    """A command that keeps its typed words for hints, and suggests names in its errors."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[TYPED] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except MiniTorrentError as error:
            from peer.cli.suggestions import suggestion

            error.hint = suggestion(error, ctx) or error.hint
            raise


class Commands(CommandGroup):
    """The commands, in sections. ``-`` and ``_`` in their names are the same."""

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        self.commands = LazyCommands()

    def unknown_command(
        self, ctx: click.Context, typed: str, arguments: Sequence[str]
    ) -> click.UsageError:
        return unknown_command(typed, list(self.commands), without_home(arguments))

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter, leave_out: Sequence[str] = ()
    ) -> None:
        for title in SECTIONS:
            with formatter.section(title):
                formatter.write_dl(
                    [
                        (name, self.commands[name].get_short_help_str(SUMMARY_MAX))
                        for name in names_of(title)
                        if name not in leave_out
                    ]
                )


def unknown_command(
    typed: str,
    names: Sequence[str],
    arguments: Sequence[str] = (),
    otherwise: str = f"see the commands: {PROGRAM} --help",
) -> WrongUsage:
    """The error for an unknown command, with the nearest known one and the arguments typed."""
    found = meant(typed, names)
    if found is None:
        return WrongUsage(f"there is no command {quoted(typed)}", otherwise)
    if found == "--help" and "help" in names:  # at the prompt
        found = "help"
    words = [PROGRAM, found, *_kept(found, arguments)]
    if found == "--help" and arguments and arguments[0].replace("_", "-") in names:
        words = [PROGRAM, arguments[0], found]
    line = quoted_line(words)
    if len(line) > SENTENCE_MAX:
        line = quoted_line(words[:2])
    return WrongUsage(f"there is no command {quoted(typed)}", f"did you mean: {line}")


def _kept(command: str, arguments: Sequence[str]) -> Sequence[str]:
    """The ``arguments`` that a suggestion repeats: none of them can be a password."""
    if command.startswith("-"):
        return ()
    return arguments[: PUBLIC_ARGUMENTS.get(command, len(arguments))]


def show_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """Print the version and end."""
    if not value or ctx.resilient_parsing:
        return
    print(f"{PROGRAM} {RELEASE}")
    ctx.exit()
