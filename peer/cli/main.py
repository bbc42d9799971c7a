"""Entry point of `mini-torrent`: the global options, the command, and the exit code.

Owns the root of the commands. Not here: the commands (see peer.cli.command_table). Why
imports stand in functions: a command line must answer at once, and only few commands need the slow
modules.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence

import click

from common.hints import PROGRAM
from common.host.streams import (
    abandon_output,
    leave,
    open_closed_streams,
    speak_any_locale,
    text_of,
)
from peer.cli.arguments import complete_folder
from peer.cli.command import COMPLETE_VARIABLE, Commands, show_version
from peer.cli.console import Console
from peer.cli.errors import cli_error, show_traceback

_HELP = """A private swarm for a team, a lab or a cluster.

`up LINK` starts this device's peer; the other commands talk to it. `-` and
`_` in the names of commands are the same.
"""

_EXAMPLE = """\b
Example:
  mini-torrent up mini-torrent://192.0.2.7:5000/KEY
  mini-torrent login anna
  mini-torrent download-file films film.mkv .

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 no peer runs,
4 the tracker cannot be reached, 5 the content did not verify, 6 timed out,
130 interrupted.
"""


@click.group(
    cls=Commands,
    help=_HELP,
    epilog=_EXAMPLE,
    context_settings={
        "auto_envvar_prefix": "MINI_TORRENT",
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
    },
    subcommand_metavar="COMMAND …",
    invoke_without_command=True,
)
@click.option(
    "--home",
    metavar="DIR",
    shell_complete=complete_folder,
    show_envvar=True,
    help="Where the peer keeps its key, shares and downloads; one directory for each peer.",
)
@click.option("--json", "as_json", is_flag=True, envvar="MINI_TORRENT_JSON", help="Print JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Print only results and errors.")
@click.option("-v", "--verbose", count=True, help="Print more detail, including tracebacks.")
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=show_version,
    help="Print the version.",
)
@click.pass_context
def root(ctx: click.Context, home: str | None, as_json: bool, quiet: bool, verbose: int) -> None:
    console = ctx.ensure_object(Console)
    console.as_json, console.quiet, console.verbose = as_json, quiet, verbose
    if home:
        console.use_home(home)
    if ctx.invoked_subcommand is None:
        print(ctx.get_help(), flush=True)


def run(arguments: Sequence[str], *, alone: bool = False) -> int:
    """Run one command line; returns its exit code. Prints errors, and never raises.

    ``alone``: this process does nothing else, and ends then."""
    if instruction := os.environ.get(COMPLETE_VARIABLE):
        from common.cli.completion import answer

        with contextlib.suppress(Exception):  # the user is in the middle of a line
            sys.stdout.write(answer(root, instruction, arguments))
        return 0
    console = Console(_home_typed(arguments), alone=alone)
    try:
        code = _call(arguments, console)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader of our output has gone
        abandon_output()
        return 0
    except (Exception, KeyboardInterrupt) as error:
        abandon_output()
        return fail(error, arguments, console)


def _home_typed(arguments: Sequence[str]) -> str | None:
    """The home that is in effect where the options cannot be read."""
    home = os.environ.get("MINI_TORRENT_HOME")
    for word, replica in zip(arguments, [*arguments[1:], ""], strict=False):
        if word == "--":
            break
        if word == "--home" or word.startswith("--home="):
            home = replica if word == "--home" else word.removeprefix("--home=")
    return home or None


def _call(arguments: Sequence[str], console: Console) -> int:
    try:
        with root.make_context(PROGRAM, list(arguments), obj=console) as context:
            code = root.invoke(context)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    return code if isinstance(code, int) else 0


def fail(error: BaseException, arguments: Sequence[str], console: Console) -> int:
    """Show ``error`` in the form that the arguments ask for; returns the exit code."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if any(word in ("-v", "-vv", "--verbose") for word in options):
        show_traceback(error)
    shown = cli_error(error, console.hinted)
    as_json = "--json" in options or os.environ.get("MINI_TORRENT_JSON", "") not in ("", "0")
    shown.show(as_json=as_json)
    return shown.exit_code


def main() -> None:
    """The entry point of `mini-torrent`."""
    open_closed_streams()
    speak_any_locale()
    leave(run([text_of(word) for word in sys.argv[1:]], alone=True))
