"""Commands of the operator, which talk to a running tracker over the socket in its home.

Owns: their options, hints and output. Not here: `run` and the commands about files (see
tracker.cli). Exit code 3: no tracker runs for this home.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from common.cli.json_form import plain
from common.units import moment_text, number_text, size_text, time_text
from tracker.cli_options import (
    Serving,
    home_option,
    json_option,
    serving_options,
    show,
    show_rows,
)

if TYPE_CHECKING:
    from common.messages import operator as messages


# -- the process --------------------------------------------------------------------------------


@click.command("start")
@home_option
@json_option
@serving_options
def start(home: Path, given: Serving) -> None:
    """Start the tracker in the background.

    Waits until it serves, and prints its link. Options as for `run`; without an address it listens
    where it listened last. Its log is `tracker.log` in its home.

    Example: mini-torrent-tracker start --bind tcp://0.0.0.0:5000 --advertise tracker.example.org
    """
    from common.hints import tracker_hint
    from tracker import background
    from tracker.admin.database_choice import choose_database

    home = _absolute(home)
    words: list[str] = [] if given.info is None else [os.path.abspath(given.info)]
    words += [] if given.number is None else [str(given.number)]
    words += _words(("--bind", given.bind_at), ("--events", given.events))
    words += _words(("--advertise", given.advertise))
    web = ["--http"] if given.http else []
    web += _words(("--http-origin", given.http_origin), ("--metrics", given.metrics))
    last = _last_words(home)
    status = background.running(home)
    if status is not None:
        # A warning and no refusal: a script that wants a running tracker has one.
        said = f"the tracker is already running (PID {status.pid})"
        if words not in ([], last) or web:
            said += "; the options are not used. " + tracker_hint("For that", "stop")
        print(said, file=sys.stderr, flush=True)
    else:
        words = words or last
        words += web
        words += ["--log-json"] * given.log_json + ["--verbose"] * given.verbose
        choose_database(home, given.database)  # no option: all can read the words of a process
        status = background.start(home, words)
    show(plain(status), f"tracker ready: {status.link}")


def _words(*options: tuple[str, str | None]) -> list[str]:
    return [word for option, value in options if value for word in (option, value)]


def _absolute(home: Path) -> Path:
    return Path(os.path.abspath(home.expanduser()))


def _last_words(home: Path) -> list[str]:
    """Return the options by which the tracker of ``home`` listens where it listened last."""
    from tracker.admin.home import LAST_OPTIONS

    try:
        return shlex.split((home / LAST_OPTIONS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []


@click.command("stop")
@home_option
@json_option
def stop(home: Path) -> None:
    """Stop the running tracker.

    Waits until its process has ended. Peers go on with their transfers, and connect again when it
    is back.

    Example: mini-torrent-tracker stop
    """
    from tracker import background

    pid = background.stop(_absolute(home))
    show({"stopped": True, "pid": pid}, "tracker stopped")


@click.command("status")
@home_option
@json_option
def status(home: Path) -> None:
    """Show the running tracker: link, users, groups and shares.

    Exits with 3 if none runs. Example: mini-torrent-tracker status
    """
    from common.messages import operator as messages
    from tracker.operator_client import request

    found = request(_absolute(home), messages.Status(messages.FORM), messages.StatusIs)
    lines = [
        f"running: PID {found.pid}, version {found.version}, for {time_text(found.uptime_s)}",
        f"link: {found.link}",
        f"home: {found.home}",
        f"users: {number_text(found.users)}, {number_text(found.users_online)} online",
        f"devices: {number_text(found.devices)}, {number_text(found.devices_online)} online",
        f"groups: {number_text(found.groups)}, shares: {number_text(found.shares)}",
        f"log head: {number_text(found.log_head)}, database: {size_text(found.database_bytes)}",
        f"registration: {found.registration.value}",
    ]
    if found.trackers > 1:
        text = f"trackers: {found.trackers} on this database; the counts are of all of them"
        lines.insert(3, text)
    show(plain(found), "\n".join(lines))


@click.command("metrics")
@home_option
@json_option
def metrics(home: Path) -> None:
    """Print the metrics of the running tracker for Prometheus.

    Needs no port; docs/metrics.md lists them. No user, group or share is named.

    Example: mini-torrent-tracker metrics
    """
    from common.messages import operator as messages
    from tracker.operator_client import request

    found = request(_absolute(home), messages.Metrics(), messages.MetricsAre)
    show({"text": found.text}, found.text.rstrip("\n"))


# -- users --------------------------------------------------------------------------------------


user_argument = click.argument("user")


@click.command("list-users")
@home_option
@json_option
def list_users(home: Path) -> None:
    """List the accounts.

    Example: mini-torrent-tracker list-users --json
    """
    from common.messages import operator as messages
    from tracker.operator_client import request

    rows: list[messages.UserRow] = []
    page = messages.Users([], True)
    while page.more:
        after = rows[-1].user if rows else ""
        page = request(_absolute(home), messages.ListUsers(after), messages.Users)
        rows += page.rows
    titles = (
        "USER",
        "STATE",
        "CREATED",
        "LAST SEEN",
        "DEVICES",
        "ONLINE",
        "GROUPS",
        "OWNS",
        "SHARES",
    )
    show_rows(
        plain(rows),
        titles,
        [
            (
                row.user,
                "disabled" if row.disabled else "active",
                moment_text(row.created),
                moment_text(row.seen) if row.seen else "-",
                *map(number_text, (row.devices, row.online, row.groups, row.owns, row.shares)),
            )
            for row in rows
        ],
    )


def _change(home: Path, question: Any) -> tuple[dict[str, Any], str]:
    from common.messages import operator as messages
    from tracker.documents import document_of
    from tracker.operator_client import request

    changed = request(_absolute(home), question, messages.Changed)
    return document_of(question, changed), changed.text


@click.command("disable-user")
@user_argument
@home_option
@json_option
def disable_user(user: str, home: Path) -> None:
    """Shut USER out of everything, until `enable-user`.

    Takes effect at once: commands and logins are refused, and peers stop serving all devices of
    USER. Memberships and shares stay on record.

    Example: mini-torrent-tracker disable-user mallory
    """
    from common.messages.operator import SetDisabled

    show(*_change(home, SetDisabled(user, True)))


@click.command("enable-user")
@user_argument
@home_option
@json_option
def enable_user(user: str, home: Path) -> None:
    """Let USER in again after `disable-user`.

    Devices that were logged in are logged in again, and their shares return.

    Example: mini-torrent-tracker enable-user bert
    """
    from common.messages.operator import SetDisabled

    show(*_change(home, SetDisabled(user, False)))


@click.command("delete-user")
@user_argument
@home_option
@json_option
def delete_user(user: str, home: Path) -> None:
    """Delete the account of USER.

    USER leaves all groups. A group that USER owns passes to the member who joined first; one
    without other members is deleted. The name is free again.

    Example: mini-torrent-tracker delete-user mallory
    """
    from common.messages.operator import DeleteUser

    show(*_change(home, DeleteUser(user)))


@click.command("reset-password")
@user_argument
@click.option("--ask", "asks", is_flag=True, help="Ask for the password, or read it as one line.")
@home_option
@json_option
def reset_password(user: str, asks: bool, home: Path) -> None:
    """Give USER a new password, and log out all devices of USER.

    Prints a random password, unless --ask is given. USER should change it after the login, by
    `change-password`.

    Example: mini-torrent-tracker reset-password bert
    """
    from common.messages.operator import ResetPassword
    from tracker.operator_client import holder_of
    from tracker.random_password import random_password

    holder_of(_absolute(home))  # before a password is asked for
    password = _prompted_password() if asks else random_password()
    document, text = _change(home, ResetPassword(user, password))
    if asks:
        show(document, text)
    else:
        show({**document, "password": password}, f"{text}\nnew password: {password}")


def _prompted_password() -> str:
    if not sys.stdin.isatty():
        typed = sys.stdin.readline()
        if not typed.strip("\r\n"):
            raise click.UsageError("no password was given")
        return typed.rstrip("\r\n")
    from getpass import getpass

    password = getpass("New password: ")
    if getpass("Repeat the password: ") != password:
        raise click.UsageError("the two passwords differ")
    return password


# -- groups -------------------------------------------------------------------------------------


@click.command("list-groups")
@home_option
@json_option
def list_groups(home: Path) -> None:
    """List the groups.

    Example: mini-torrent-tracker list-groups --json
    """
    from common.messages import operator as messages
    from tracker.operator_client import request

    rows: list[messages.GroupRow] = []
    page = messages.Groups([], True)
    while page.more:
        after = rows[-1].group if rows else ""
        page = request(_absolute(home), messages.ListGroups(after), messages.Groups)
        rows += page.rows
    titles = ("GROUP", "OWNER", "CREATED", "MEMBERS", "REQUESTS", "INVITES", "SHARES", "SIZE")
    show_rows(
        plain(rows),
        titles,
        [
            (
                row.group,
                row.owner,
                moment_text(row.created),
                *map(number_text, (row.members, row.requests, row.invitations, row.shares)),
                size_text(row.size_bytes),
            )
            for row in rows
        ],
    )


@click.command("delete-group")
@click.argument("group")
@home_option
@json_option
def delete_group(group: str, home: Path) -> None:
    """Delete GROUP with its list of shares and its log.

    Its members are shut out at once. They keep the files that they have.

    Example: mini-torrent-tracker delete-group films
    """
    from common.messages.operator import DeleteGroup

    show(*_change(home, DeleteGroup(group)))


@click.command("registration")
@click.argument("mode", required=False, type=click.Choice(["open", "invite", "closed"]))
@home_option
@json_option
def registration(mode: str | None, home: Path) -> None:
    """Show or set who may make an account.

    With `open` all may, with `invite` only those who bring an invitation, with `closed` none at
    all. It lasts over restarts.

    Example: mini-torrent-tracker registration invite
    """
    from common.messages import operator as messages
    from tracker.operator_client import request

    wanted = None if mode is None else messages.Registration(mode)
    found = request(_absolute(home), messages.SetRegistration(wanted), messages.RegistrationIs)
    show(plain(found), f"registration is {found.registration.value}")


COMMANDS = (
    start,
    stop,
    status,
    metrics,
    list_users,
    disable_user,
    enable_user,
    delete_user,
    reset_password,
    list_groups,
    delete_group,
    registration,
)
