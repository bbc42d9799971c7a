"""``mini-torrent-tracker``: the command line of the tracker.

Owns: options, exit codes and terminal output. Exit codes: 0 done, 1 failed, 2 wrong usage.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from common.cli.command_group import CommandGroup, meant
from common.errors import ConfigError, MiniTorrentError, TransportError, exit_code_of
from common.hints import shown_by_tracker, tracker_hint
from common.host import process
from common.host.home import default_home
from common.host.release import RELEASE
from common.host.streams import abandon_output, open_closed_streams, speak_any_locale
from common.ids import DeviceKey
from common.link import Tracker, as_endpoint, parse_link
from common.names import printable
from common.units import size_text
from tracker.admin.home import CURVE_KEY, LAST_LINK, LAST_OPTIONS, SIGNING_KEY, Home
from tracker.admin.info_entry import EntryNumber, entry_of

PROGRAM = "mini-torrent-tracker"
COMPLETE_VARIABLE = "_MINI_TORRENT_TRACKER_COMPLETE"
DEFAULT_BIND = "tcp://127.0.0.1:5000"
_ENDPOINT = "HOST:PORT, tcp://HOST:PORT or ipc:///PATH"


def _home_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--home",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        envvar="MINI_TORRENT_TRACKER_HOME",
        show_envvar=True,
        default=lambda: default_home("tracker"),
        show_default="the user's data directory",
        help="Where the tracker keeps its keys and its database.",
    )(command)


@click.group(
    cls=CommandGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    envvar="MINI_TORRENT_TRACKER_CONFIG",
    show_envvar=True,
    help="A TOML file with options; see config/tracker.toml.",
)
@click.version_option(RELEASE, message="%(prog)s %(version)s")
@click.pass_context
def tracker(ctx: click.Context, config: Path | None) -> None:
    """Keep the accounts, the groups and the catalogue of a Mini-Torrent swarm."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
    if config is not None:
        ctx.default_map = _read_config(config)


def _read_config(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a TOML file: {error}") from error
    sections = {}
    for section, values in found.items():
        command = tracker.commands.get(section)
        if command is None or not isinstance(values, dict):
            raise ConfigError(f"{path}: there is no section [{section}]", _known(tracker.commands))
        parameters = {
            name.removeprefix("--"): parameter.name
            for parameter in command.params
            for name in parameter.opts
            if name.startswith("--")
        }
        for key in values:
            if key not in parameters:
                raise ConfigError(f"{path}: [{section}] has no option {key!r}", _known(parameters))
        sections[section] = {parameters[key]: value for key, value in values.items()}
    return sections


def _known(names: Iterable[str]) -> str:
    return f"known are: {', '.join(sorted(names))}"


# -- run ----------------------------------------------------------------------------------------


@tracker.command()
@click.argument("info", metavar="[TRACKER_INFO]", required=False, type=click.Path(path_type=Path))
@click.argument("number", metavar="[NUMBER]", required=False, type=EntryNumber())
@_home_option
@click.option(
    "--bind",
    "bind_at",
    metavar="ENDPOINT",
    envvar="MINI_TORRENT_TRACKER_BIND",
    show_envvar=True,
    show_default=DEFAULT_BIND,
    help=f"Where to listen: {_ENDPOINT}.",
)
@click.option(
    "--events",
    metavar="ENDPOINT",
    envvar="MINI_TORRENT_TRACKER_EVENTS",
    show_envvar=True,
    default="",
    show_default="the next port",
    help=f"Where to publish events: {_ENDPOINT}.",
)
@click.option(
    "--advertise",
    metavar="HOST",
    envvar="MINI_TORRENT_TRACKER_ADVERTISE",
    show_envvar=True,
    default="",
    help="The host to put into the link, when it is not the one that is bound.",
)
@click.option(
    "--log-json",
    is_flag=True,
    envvar="MINI_TORRENT_TRACKER_LOG_JSON",
    show_envvar=True,
    help="Log one JSON object a line.",
)
@click.option("-v", "--verbose", is_flag=True, help="Log more.")
def run(
    info: Path | None,
    number: int | None,
    home: Path,
    bind_at: str | None,
    events: str,
    advertise: str,
    log_json: bool,
    verbose: bool,
) -> None:
    """Run the tracker until `quit` or a signal.

    TRACKER_INFO NUMBER takes the address from entry NUMBER of a text file with a line for the IP
    and one for the port of each tracker; its key line is added where it is missing.

    Example: mini-torrent-tracker run --bind tcp://0.0.0.0:5000 --advertise tracker.example.org
    """
    # Imported here: the other commands need no sockets and start fast.
    import asyncio
    import logging

    from tracker.service.addresses import Addresses
    from tracker.service.main import serve

    entry = entry_of(info, number, bind_at)
    endpoint = entry.endpoint if entry else as_endpoint(bind_at or DEFAULT_BIND)
    os.umask(0o077)
    process.start_up(logging.DEBUG if verbose else logging.INFO, log_json=log_json)
    # Alembic's messages about a new database are of no interest.
    logging.getLogger("alembic").setLevel(logging.INFO if verbose else logging.WARNING)
    opened = Home(home)
    try:
        addresses = Addresses(endpoint, as_endpoint(events) if events else "", advertise)
        asyncio.run(serve(opened, addresses, info, entry))
    finally:
        opened.release()


# -- other commands------------------------------------------------------------------------------


@tracker.command()
@_home_option
def link(home: Path) -> None:
    """Print the link of this tracker, as it last ran.

    Example: mini-torrent up --tracker "$(mini-torrent-tracker link)"
    """
    from common.crypto.keys import load_pair

    try:
        pair = load_pair(home / CURVE_KEY)
    except FileNotFoundError:
        raise ConfigError(
            f"there is no tracker in {home} yet", tracker_hint("start it", "run")
        ) from None
    print(_last_link(home, pair.public))


def _last_link(home: Path, key: DeviceKey) -> str:
    try:
        last = parse_link((home / LAST_LINK).read_text(encoding="utf-8").strip())
    except (OSError, ConfigError):
        return Tracker(DEFAULT_BIND, key).link
    # A restored home may have had another key before.
    return Tracker(last.endpoint, key).link


@tracker.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@_home_option
@click.option("--replace", is_flag=True, help="Replace FILE if it is there.")
def backup(file: Path, home: Path, replace: bool) -> None:
    """Copy everything, keys included, to FILE. The tracker may keep running.

    Example: mini-torrent-tracker backup /mnt/backup/tracker-$(date +%F).db
    """
    from tracker.admin.backup import back_up

    size = back_up(home, file, replace=replace)
    print(f"wrote {printable(str(file))}: {size_text(size)}. It holds all secrets: keep it safe.")


@tracker.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@_home_option
def restore(file: Path, home: Path) -> None:
    """Go back to the backup in FILE. The tracker must not run.

    Example: mini-torrent-tracker restore /mnt/backup/tracker-2031-05-17.db
    """
    from common.crypto.keys import load_pair
    from tracker.admin.backup import restore as put_back

    opened = Home(home)
    try:
        aside = put_back(opened, file)
    finally:
        opened.release()
    print(f"restored {printable(str(file))}")
    if aside is not None:
        print(f"the former database is kept as {printable(str(aside))}")
    key = load_pair(opened.path / CURVE_KEY).public
    print(f"its link is {printable(_last_link(opened.path, key))}")
    with contextlib.suppress(OSError):
        where = (opened.path / LAST_OPTIONS).read_text(encoding="utf-8").strip()
        options = ("--home", str(opened.path), *shlex.split(where))
        print(tracker_hint("to run it there", "run", options=options))


@tracker.command()
@_home_option
@click.option(
    "--bind",
    "bind_at",
    metavar="ENDPOINT",
    envvar="MINI_TORRENT_TRACKER_BIND",
    show_envvar=True,
    default=DEFAULT_BIND,
    show_default=True,
    help=f"The address to try: {_ENDPOINT}.",
)
def doctor(home: Path, bind_at: str) -> None:
    """Check for problems and suggest fixes.

    Looks over the home, the database, the disk, the libraries and the address.

    Exits with 1 if something is bad. Example: mini-torrent-tracker doctor
    """
    from tracker.admin.doctor import Health, examine

    bad = False
    for finding in examine(home, as_endpoint(bind_at)):
        bad |= finding.health is Health.BAD
        print(f"{finding.health.value:8}{finding.subject}: {printable(finding.text)}")
        if finding.advice is not None:
            advice = shown_by_tracker(finding.advice, _home_typed())
            print(f"        {printable(advice)}")
    if bad:
        sys.exit(1)


@tracker.command()
@_home_option
@click.option("--now", is_flag=True, help="Invalidate tickets signed with the old key immediately.")
def rotate_key(home: Path, now: bool) -> None:
    """Make a fresh key for signing tickets.

    The tracker must not run. Tickets of the old key stay valid until the next rotation, so that no
    user is interrupted.

    Example: mini-torrent-tracker rotate-key
    """
    from common.crypto.signing_keys import rotate_signing_key

    opened = Home(home)
    try:
        count = len(rotate_signing_key(opened.path / SIGNING_KEY, keep=0 if now else 1))
    finally:
        opened.release()
    print(f"tickets are signed with a fresh key; {count} keys are valid")


@tracker.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a shell completion script.

    For bash and zsh, put the line below into .bashrc or .zshrc. For fish, write the output to
    ~/.config/fish/completions/mini-torrent-tracker.fish.

    Example: eval "$(mini-torrent-tracker completion bash)"
    """
    from common.cli.completion import script

    sys.stdout.write(script(shell, PROGRAM))


def main() -> None:
    """The entry point of ``mini-torrent-tracker``."""
    open_closed_streams()
    speak_any_locale()
    if instruction := os.environ.get(COMPLETE_VARIABLE):
        from common.cli.completion import answer

        with suppress(Exception):  # the user is typing a line
            sys.stdout.write(answer(tracker, instruction, sys.argv[1:]))
        return
    try:
        tracker.main(prog_name="mini-torrent-tracker", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        ctx = getattr(error, "ctx", None)
        path = "mini-torrent-tracker" if ctx is None else ctx.command_path
        text = " ".join(error.format_message().split()).rstrip(".")
        hint = getattr(error, "hint", None) or f"see how it is used: {path} --help"
        typed = getattr(error, "command_name", None)
        if typed is not None and (found := meant(typed, list(tracker.commands))):
            hint = f"did you mean: {PROGRAM} {found}"
        _fail(text[:1].lower() + text[1:], hint, error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except TransportError as error:
        _fail(error.message, error.hint, 1)
    except MiniTorrentError as error:
        _fail(error.message, error.hint, exit_code_of(error))
    except BrokenPipeError:  # the reader of the output has ended
        abandon_output()
    except OSError as error:
        what = f"{error.filename}: " if error.filename else ""
        _fail(f"{what}{error.strerror or error}", None, 1)


def _home_typed() -> str | None:
    """Return the home that this command line names, for the commands in hints."""
    home = os.environ.get("MINI_TORRENT_TRACKER_HOME")
    for word, following in zip(sys.argv, [*sys.argv[1:], ""], strict=True):
        if word == "--home" or word.startswith("--home="):
            home = following if word == "--home" else word.removeprefix("--home=")
    return home or None


def _fail(message: str, hint: str | None, code: int) -> None:
    abandon_output()
    print(f"error: {printable(message)}", file=sys.stderr)
    if hint is not None:
        print(f"hint: {printable(shown_by_tracker(hint, _home_typed()))}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
