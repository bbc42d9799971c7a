"""Options that several commands of `mini-torrent-tracker` share, and its two forms of output."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from common.cli.json_form import json_text
from common.errors import ConfigError
from common.host.home import default_home
from common.names import printable
from tracker.admin.info_entry import EntryNumber

DEFAULT_BIND = "tcp://127.0.0.1:5000"
ENDPOINT = "HOST:PORT, tcp://HOST:PORT or ipc:///PATH"
_JSON = "mini-torrent-tracker.json"  # in the meta of a context
Command = Callable[..., Any]


def home_option(command: Command) -> Command:
    """Add ``--home``."""
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


def check_database(url: str, *, typed: bool) -> None:
    """Raise `ConfigError` for a URL that is wrong, or that shows a password to all users."""
    from tracker.store.postgres_connections import has_password

    if has_password(url) and typed:
        raise ConfigError(
            "a password on the command line can be read by every user of this machine",
            "put it into ~/.pgpass (mode 0600), or the URL into MINI_TORRENT_TRACKER_DATABASE",
        )


def _take_database(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value:
        source = ctx.get_parameter_source(param.name or "")
        check_database(value, typed=source is ParameterSource.COMMANDLINE)
    return value or None


def database_option(command: Command) -> Command:
    """Add ``--database``."""
    return click.option(
        "--database",
        metavar="URL",
        envvar="MINI_TORRENT_TRACKER_DATABASE",
        show_envvar=True,
        callback=_take_database,
        show_default="as last, else a file in the home",
        help="A PostgreSQL database, which several trackers may share: postgresql://USER@HOST/NAME.",
    )(command)


def _set_json(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        ctx.find_root().meta[_JSON] = True


def json_option(command: Command) -> Command:
    """Add ``--json``, which `wants_json` reads."""
    return click.option(
        "--json",
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=_set_json,
        help="Print JSON for programs.",
    )(command)


def wants_json() -> bool:
    """Whether the command line or the environment asks for JSON."""
    ctx = click.get_current_context(silent=True)
    if ctx is not None and ctx.find_root().meta.get(_JSON):
        return True
    return os.environ.get("MINI_TORRENT_JSON", "") not in ("", "0")


_SERVING = (
    click.argument(
        "info", metavar="[TRACKER_INFO]", required=False, type=click.Path(path_type=Path)
    ),
    click.argument("number", metavar="[NUMBER]", required=False, type=EntryNumber()),
    click.option(
        "--bind",
        "bind_at",
        metavar="ENDPOINT",
        envvar="MINI_TORRENT_TRACKER_BIND",
        show_envvar=True,
        show_default=DEFAULT_BIND,
        help=f"Where to listen: {ENDPOINT}.",
    ),
    click.option(
        "--events",
        metavar="ENDPOINT",
        envvar="MINI_TORRENT_TRACKER_EVENTS",
        show_envvar=True,
        default="",
        show_default="the next port",
        help=f"Where to publish events: {ENDPOINT}.",
    ),
    click.option(
        "--advertise",
        metavar="HOST",
        envvar="MINI_TORRENT_TRACKER_ADVERTISE",
        show_envvar=True,
        default="",
        help="The host to put into the link, when it is not the one that is bound.",
    ),
    click.option(
        "--log-json",
        is_flag=True,
        envvar="MINI_TORRENT_TRACKER_LOG_JSON",
        show_envvar=True,
        help="Log one JSON object a line.",
    ),
    click.option("-v", "--verbose", is_flag=True, help="Log more."),
    database_option,
    click.option(
        "--http/--no-http",
        "http",
        envvar="MINI_TORRENT_TRACKER_HTTP",
        show_envvar=True,
        help="Serve the HTTP API and the page at api.sock in the home; off by default.",
    ),
    click.option(
        "--http-origin",
        metavar="ORIGIN",
        envvar="MINI_TORRENT_TRACKER_HTTP_ORIGIN",
        show_envvar=True,
        default="",
        help="The page's origin behind your proxy, such as https://tracker.example.org.",
    ),
    click.option(
        "--metrics",
        metavar="HOST:PORT",
        envvar="MINI_TORRENT_TRACKER_METRICS",
        show_envvar=True,
        default="",
        help="Serve /metrics, /healthz and /readyz there.",
    ),
)


@dataclass(frozen=True, slots=True)
class Serving:
    """Arguments and options by which a tracker is started."""

    info: Path | None
    number: int | None
    bind_at: str | None
    events: str
    advertise: str
    log_json: bool
    verbose: bool
    database: str | None
    http: bool
    http_origin: str
    metrics: str


def serving_options(command: Callable[[Path, Serving], None]) -> Command:
    """Add what a tracker is started by; ``command`` gets it after its home, as one value."""

    @functools.wraps(command)
    def gathered(home: Path, **found: Any) -> None:
        command(home, Serving(**found))

    made: Command = gathered
    for decorate in reversed(_SERVING):
        made = decorate(made)
    return made


def http_section(path: Path, found: Any) -> dict[str, Any]:
    """Return the options of `run` that the section ``[http]`` of ``path`` stands for.

    Raise `ConfigError`.
    """
    known = {"on": ("http", bool), "origin": ("http_origin", str)}
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: [http] is no section")
    options = {}
    for key, value in found.items():
        if key not in known:
            hint = f"known are: {', '.join(known)}"
            raise ConfigError(f"{path}: [http] has no option {key!r}", hint)
        name, kind = known[key]
        if not isinstance(value, kind):
            wanted = "true or false" if kind is bool else "a text"
            raise ConfigError(f"{path}: [http] {key} must be {wanted}")
        options[name] = value
    return options


def show(document: Any, text: str) -> None:
    """Print a result: ``document`` with ``--json``, otherwise ``text``."""
    lines = "\n".join(map(printable, text.split("\n")))
    print(json_text(document) if wants_json() else lines, flush=True)


def show_rows(document: Any, titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a listing: ``document`` with ``--json``, otherwise aligned columns.

    Columns with digits alone are aligned to the right. Cells are names of users and groups, which
    are ASCII, numbers and times.
    """
    if wants_json():
        print(json_text(document), flush=True)
        return
    table = [list(map(printable, row)) for row in (titles, *rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    numbers = [
        all(cell[:1].isdigit() for cell in column[1:]) for column in zip(*table, strict=True)
    ]
    for row in table:
        cells = zip(row, widths, numbers, strict=True)
        line = "  ".join(
            cell.rjust(width) if right and rows else cell.ljust(width)
            for cell, width, right in cells
        )
        print(line.rstrip(), flush=True)
