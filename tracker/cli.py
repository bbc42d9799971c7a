"""``mini-torrent-tracker``: the command line of the tracker.

Owns: options, exit codes and terminal output. Exit codes: 0 done, 1 failed, 2 wrong usage.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import click

from common.cli.command_group import CommandGroup
from common.cli.json_form import json_text
from common.errors import ConfigError, MiniTorrentError, TransportError, exit_code_of
from common.hints import TRACKER_PROGRAM, shell_hint, shown_by_tracker, tracker_hint
from common.host.release import RELEASE
from common.host.streams import abandon_output, open_closed_streams, speak_any_locale
from common.ids import DeviceKey
from common.link import Link, Tracker, as_endpoint, parse_link
from common.messages.refusals import Code
from common.names import printable
from common.units import size_text
from tracker import cluster_commands, operator_commands, web_command
from tracker.admin.home import CURVE_KEY, LAST_LINK, LAST_OPTIONS, SIGNING_KEY, Home
from tracker.admin.info_entry import entry_of
from tracker.cli_options import (
    DEFAULT_BIND,
    ENDPOINT,
    Serving,
    database_option,
    home_option,
    http_section,
    json_option,
    serving_options,
    show,
    wants_json,
)

PROGRAM = TRACKER_PROGRAM
COMPLETE_VARIABLE = "_MINI_TORRENT_TRACKER_COMPLETE"


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
@json_option
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
    http = http_section(path, found.pop("http", {}))
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
    sections["run"] = http | sections.get("run", {})
    # What `run` has in a file holds for `start` as well, which starts it.
    sections.setdefault("start", sections["run"])
    return sections


def _known(names: Iterable[str]) -> str:
    return f"known are: {', '.join(sorted(names))}"


# -- run ----------------------------------------------------------------------------------------


@tracker.command()
@home_option
@serving_options
@json_option
def run(home: Path, given: Serving) -> None:
    """Run the tracker until `quit` or a signal.

    TRACKER_INFO NUMBER takes the address from entry NUMBER of a text file with a line for the IP
    and one for the port of each tracker; its key line is added where it is missing.

    Example: mini-torrent-tracker run --bind tcp://0.0.0.0:5000 --advertise tracker.example.org
    """
    # Imported here: the other commands need no sockets and start fast.
    import asyncio
    import logging

    from common.host import process
    from tracker.service.addresses import Addresses
    from tracker.service.main import serve
    from tracker.service.web_process import WebSettings

    web = WebSettings(given.http, given.http_origin, given.metrics, given.log_json)
    entry = entry_of(given.info, given.number, given.bind_at)
    endpoint = entry.endpoint if entry else as_endpoint(given.bind_at or DEFAULT_BIND)
    os.umask(0o077)
    process.start_up(logging.DEBUG if given.verbose else logging.INFO, log_json=given.log_json)
    # Alembic's messages about a new database are of no interest.
    logging.getLogger("alembic").setLevel(logging.INFO if given.verbose else logging.WARNING)
    opened = Home(home)
    try:
        events = as_endpoint(given.events) if given.events else ""
        addresses = Addresses(endpoint, events, given.advertise)
        asyncio.run(serve(opened, addresses, web, _print_ready, given.info, entry, given.database))
    finally:
        opened.release()


def _print_ready(link: str) -> None:
    show({"link": link}, f"tracker ready: {link}")


# -- other commands------------------------------------------------------------------------------


@tracker.command()
@home_option
@json_option
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
    found = _last_link(home, pair.public)
    show({"link": found}, found)


def _last_link(home: Path, key: DeviceKey) -> str:
    try:
        last = parse_link((home / LAST_LINK).read_text(encoding="utf-8").strip())
    except (OSError, ConfigError):
        return Tracker(DEFAULT_BIND, key).link
    # A restored home may have had another key before.
    return Link(last.endpoints, key).text


@tracker.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@home_option
@database_option
@click.option("--replace", is_flag=True, help="Replace FILE if it is there.")
@json_option
def backup(file: Path, home: Path, database: str | None, replace: bool) -> None:
    """Copy everything, keys included, to FILE. The tracker may keep running.

    Example: mini-torrent-tracker backup /mnt/backup/tracker-$(date +%F).db
    """
    from tracker.admin.backup import back_up

    size = back_up(home, file, database, replace=replace)
    text = f"wrote {file}: {size_text(size)}. It holds all secrets: keep it safe."
    show({"file": str(file), "size_bytes": size}, text)


@tracker.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@home_option
@database_option
@json_option
def restore(file: Path, home: Path, database: str | None) -> None:
    """Go back to the backup in FILE. The tracker must not run.

    With a database of PostgreSQL, which must be empty, it is restored there.

    Example: mini-torrent-tracker restore /mnt/backup/tracker-2031-05-17.db
    """
    from common.crypto.keys import load_pair
    from tracker.admin.backup import restore as put_back

    opened = Home(home)
    try:
        aside = put_back(opened, file, database)
    finally:
        opened.release()
    found = _last_link(opened.path, load_pair(opened.path / CURVE_KEY).public)
    lines = [f"restored {file}"]
    if aside is not None:
        lines.append(f"the former database is kept as {aside}")
    lines += [f"its link is {found}", "all invitations from before it have ended"]
    with contextlib.suppress(OSError):
        where = (opened.path / LAST_OPTIONS).read_text(encoding="utf-8").strip()
        options = ("--home", str(opened.path), *shlex.split(where))
        lines.append(tracker_hint("to run it there", "run", options=options))
    former = None if aside is None else str(aside)
    show({"file": str(file), "former": former, "link": found}, "\n".join(lines))


@tracker.command()
@home_option
@click.option(
    "--bind",
    "bind_at",
    metavar="ENDPOINT",
    envvar="MINI_TORRENT_TRACKER_BIND",
    show_envvar=True,
    default=DEFAULT_BIND,
    show_default=True,
    help=f"The address to try: {ENDPOINT}.",
)
@database_option
@json_option
def doctor(home: Path, bind_at: str, database: str | None) -> None:
    """Check for problems and suggest fixes.

    Looks over the home, the database, the disk, the libraries and the address.

    Exits with 1 if something is bad. Example: mini-torrent-tracker doctor
    """
    from tracker.admin.doctor import examine
    from tracker.admin.findings import Health

    rows, lines = [], []
    for finding in examine(home, as_endpoint(bind_at), database):
        advice = finding.advice and shown_by_tracker(finding.advice, _home_typed())
        health = finding.health.value
        rows.append(
            {"check": finding.subject, "health": health, "found": finding.text, "hint": advice}
        )
        lines.append(f"{health:8}{finding.subject}: {finding.text}")
        lines += [f"        {advice}"] if advice else []
    show(rows, "\n".join(lines))
    if any(row["health"] == Health.BAD for row in rows):
        sys.exit(1)


@tracker.command()
@home_option
@click.option("--now", is_flag=True, help="Invalidate tickets signed with the old key immediately.")
@json_option
def rotate_key(home: Path, now: bool) -> None:
    """Make a fresh key for signing tickets.

    The tracker must not run. Tickets of the old key stay valid until the next rotation, so that no
    user is interrupted. While other trackers serve the same database, the first call makes a key
    for all of them to know, by export-keys and join. The second call signs with it.

    Example: mini-torrent-tracker rotate-key
    """
    from tracker.admin.database_choice import chosen
    from tracker.admin.rotation import rotate

    opened = Home(home)
    try:
        url = chosen(opened.path, None)
        count = rotate(opened.path / SIGNING_KEY, url, at_once=now)
    finally:
        opened.release()
    text = f"tickets are signed with a fresh key; {count} keys are valid"
    if count is None:
        lines = (
            "a key is prepared, and signs nothing yet",
            tracker_hint("start this tracker again", "start"),
            tracker_hint("bring the key to all others, for join there", "export-keys", "FILE"),
            tracker_hint("then sign with it, at each tracker in turn", "rotate-key"),
        )
        text = "\n".join(lines)
    show({"keys": count, "prepared": count is None}, text)


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
        if getattr(error, "option_name", None) == "--home":
            text, hint = "--home belongs behind the command", _home_behind()
        _fail(Code.USAGE, text[:1].lower() + text[1:], hint, error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except TransportError as error:
        _fail(error.code, error.message, error.hint, 1)
    except MiniTorrentError as error:
        _fail(error.code, error.message, error.hint, exit_code_of(error))
    except BrokenPipeError:  # the reader of the output has ended
        abandon_output()
    except OSError as error:
        what = f"{error.filename}: " if error.filename else ""
        _fail(Code.STORAGE, f"{what}{error.strerror or error}", None, 1)


def _home_typed() -> str | None:
    """Return the home that this command line names, for the commands in hints."""
    home = os.environ.get("MINI_TORRENT_TRACKER_HOME")
    for word, following in zip(sys.argv, [*sys.argv[1:], ""], strict=True):
        if word == "--home" or word.startswith("--home="):
            home = following if word == "--home" else word.removeprefix("--home=")
    return home or None


def _home_behind() -> str:
    """Return the hint where ``--home`` stands before the command: the same line with it behind."""
    words = iter(sys.argv[1:])
    kept = [word for word in words if word != "--home" or not next(words, "")]
    kept = [word for word in kept if not word.startswith("--home=")]
    if not kept or kept[0].startswith("-"):
        return f"it is used so: {PROGRAM} COMMAND --home DIR"
    return shell_hint("put it behind", PROGRAM, *kept)


def _fail(code: Code, message: str, hint: str | None, exit_code: int) -> NoReturn:
    abandon_output()
    hint = None if hint is None else shown_by_tracker(hint, _home_typed())
    if "--json" in sys.argv[1:] or wants_json():
        error = {"code": code.value, "message": message} | ({"hint": hint} if hint else {})
        print(json_text({"error": error}), file=sys.stderr)
    else:
        print(f"error: {printable(message)}", file=sys.stderr)
        if hint is not None:
            print(f"hint: {printable(hint)}", file=sys.stderr)
    sys.exit(exit_code)


for each in (*operator_commands.COMMANDS, *cluster_commands.COMMANDS, *web_command.COMMANDS):
    tracker.add_command(each)


if __name__ == "__main__":
    main()
