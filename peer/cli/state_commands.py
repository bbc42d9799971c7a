"""Commands about the state of this device's peer: status, whoami, logs, limit."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NoReturn

import click

from peer.cli.command import command
from peer.cli.console import Console
from peer.cli.errors import INTERRUPTED
from peer.cli.json_form import json_text, plain

if TYPE_CHECKING:
    from common.messages.control import StatusIs

LOG_LINES = 20


@command("status", example="mini-torrent status")
@click.option(
    "--check",
    is_flag=True,
    help="Exit with 3 if no peer runs, 4 if it is not connected, 1 if no user is logged in.",
)
def status(console: Console, check: bool) -> None:
    """Show the peer's status: user, tracker, shares and rates."""
    answer = _status(console)
    if check:
        _check(answer)
    if console.as_json:
        console.json(plain(answer))
        return
    from peer.cli.listings import status_lines

    print(console.hinted("\n".join(status_lines(answer, str(console.home)))), flush=True)


def _status(console: Console) -> StatusIs:
    from common.messages.control import Status, StatusIs

    answer = console.request(Status())
    assert isinstance(answer, StatusIs)
    return answer


def _check(status: StatusIs) -> None:
    """Raise the error that fits a peer that cannot do its work."""
    from common.errors import TransportError
    from common.shared_refusals import not_logged_in

    if not status.connected:
        reason = status.trouble or "it does not answer"
        raise TransportError(f"the tracker {status.tracker} cannot be reached: {reason}")
    if status.user is None:
        raise not_logged_in()


@command("whoami", example="mini-torrent whoami")
def whoami(console: Console) -> None:
    """Show the user of this device, the device and the tracker."""
    from common.names import printable
    from common.shared_refusals import not_logged_in

    answer = _status(console)
    if answer.user is None:
        raise not_logged_in()
    if console.as_json:
        keys = ("user", "id", "device", "tracker", "connected")
        document = plain(answer)
        console.json({key: document[key] for key in keys})
        return
    link = "" if answer.connected else " (not connected)"
    rows = (("user", answer.user), ("device", answer.id), ("tracker", answer.tracker + link))
    print("\n".join(f"{name:<10}{printable(text)}" for name, text in rows), flush=True)


@command("logs", example="mini-torrent logs -n 50 --follow")
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(0, 1_000_000),
    default=LOG_LINES,
    show_default=True,
    metavar="N",
    help="The number of lines to print.",
)
@click.option("-f", "--follow", is_flag=True, help="Print new lines as they come, until Ctrl-C.")
def logs(console: Console, lines: int, follow: bool) -> int:
    """Print the end of the log of this device's peer.

    A peer that `up --foreground` started, such as a service, logs to standard error instead.
    """
    from peer.cli.log_file import PeerLog

    log = PeerLog(console.home)
    found = log.last(lines)
    if console.as_json and not follow:
        console.json({"path": str(log.path), "lines": found})
        return 0
    console.report(f"{log.path}:")
    try:
        for line in found:
            _print_log(console, line)
        while follow:
            for line in log.news():
                _print_log(console, line)
    except KeyboardInterrupt:  # the usual way to end it, and no error
        console.leave_line()
        return INTERRUPTED
    return 0


def _print_log(console: Console, line: str) -> None:
    if console.as_json:
        print(json_text({"line": line}), flush=True)
    else:
        console.print_line(line)


def _rate(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    from peer.swarm.timetable import parse_rate

    try:
        return parse_rate(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from error


def _schedule(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is None or value.strip().lower() in ("off", "0"):
        return value and ""
    from peer.swarm.timetable import parse_timetable

    try:
        parse_timetable(value)
    except ValueError as error:
        _bad_schedule(ctx, param, str(error))
    return value


def _bad_schedule(ctx: click.Context, param: click.Parameter, message: str) -> NoReturn:
    raise click.BadParameter(message, ctx, param)


@command("limit", example='mini-torrent limit --up 5M --schedule "08:00,5M 18:00,off"')
@click.option("--up", metavar="RATE", callback=_rate, help="Bytes a second to all other peers.")
@click.option("--down", metavar="RATE", callback=_rate, help="Bytes a second from all of them.")
@click.option("--up-per-user", metavar="RATE", callback=_rate, help="The same to each user.")
@click.option("--down-per-user", metavar="RATE", callback=_rate, help="The same from each user.")
@click.option(
    "--schedule",
    metavar="SPEC",
    callback=_schedule,
    help="A timetable of limits, by the clock of this machine; `off` for none.",
)
def limit(
    console: Console,
    up: int | None,
    down: int | None,
    up_per_user: int | None,
    down_per_user: int | None,
    schedule: str | None,
) -> None:
    """Show the limits of this peer, or change them at once.

    RATE is 5M or 800K, in powers of 1024 bytes a second; 0 or `off` for none. SPEC is a timetable
    in rclone's form: "08:00,5M 18:00,off", "Mon-08:00,5M Sat-00:00,off", or "08:00,1M:5M" with
    another rate down than up. It sets the limits of both directions; what --up or --down set by
    hand holds until its next time.

    Limits stay over restarts of the peer.
    """
    from common.messages.control import Limit, LimitsAre
    from peer.cli.bandwidth_listing import limits_lines

    answer = console.request(Limit(up, down, up_per_user, down_per_user, schedule))
    assert isinstance(answer, LimitsAre)
    if console.as_json:
        console.json(plain(answer.row))
        return
    changed = any(value is not None for value in (up, down, up_per_user, down_per_user, schedule))
    if not (changed and console.quiet):
        print(os.linesep.join(limits_lines(answer.row)), flush=True)


COMMANDS = (status, whoami, logs, limit)
