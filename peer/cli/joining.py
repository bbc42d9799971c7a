"""Joining by an invitation: the peer that it needs, the account, and the way back on a failure.

Owns: the start of a peer for `join`, and the change to another tracker. Not here: redeeming (see
peer.control.invitations).

Invariant: if the invitation is not redeemed, no peer runs that did not run before, and no tracker
is remembered that was not.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from common import names
from common.errors import ConfigError, MiniTorrentError, Refused, TransportError
from common.hints import CHECK_LINK, hint
from common.ids import DeviceKey
from common.invitation import Invitation, parse_invitation
from common.link import parse_link, trackers_of
from common.messages import control
from common.messages.refusals import Code
from peer.cli import daemon_process
from peer.cli.arguments import read_password
from peer.cli.console import Console
from peer.cli.errors import refuse_usage
from peer.cli.up_options import checked
from peer.control.client import CommandFailed, Ended
from peer.control.invitations import other_tracker, other_user
from peer.settings import load

VARIABLE = "MINI_TORRENT_INVITE"
_ADDRESSES = ("listen", "advertise")  # of a peer that `join` starts
LAST_TRACKER = "tracker"  # in the home: the key of the tracker of the last login


def join_by(
    console: Console, typed: str, user: str | None, password: str | None
) -> control.Redeemed:
    """Redeem the invitation ``typed``, on a peer that is started if none runs."""
    invitation = parse_invitation(_from_outside() if typed == "-" else typed)
    if user is not None:
        user = names.user_id(user)
    with _peer_for(console, invitation) as status:
        if status.user is None and not status.connected:
            raise TransportError(
                f"the tracker at {', '.join(invitation.tracker.endpoints)} cannot be reached"
                + (f": {status.trouble}" if status.trouble else ""),
                CHECK_LINK,
            )
        if status.user is not None:
            if user not in (None, status.user):
                raise other_user(status.user)
            answer = console.request(control.Redeem(invitation.link))
        else:
            answer = _enter(console, invitation, user, password)
    assert isinstance(answer, control.Redeemed)
    return answer


def _from_outside() -> str:
    """Return the link from the environment or standard input, where no other user sees it."""
    found = os.environ.get(VARIABLE)
    if found:
        return found
    if sys.stdin.isatty():
        from getpass import getpass

        return getpass("Invitation (not shown): ")
    line = sys.stdin.readline()
    if not line.strip():
        refuse_usage(
            "no invitation was given",
            f"write its link as one line to standard input, or into {VARIABLE}",
        )
    return line


# -- the account --------------------------------------------------------------------------------


def _enter(
    console: Console, invitation: Invitation, user: str | None, password: str | None
) -> Ended:
    """Log in and join. A person who is asked for the password types that of a new account twice."""
    user = names.user_id(_read_name()) if user is None else user
    asked = password is None and sys.stdin.isatty()
    password = read_password(password, twice=False)
    link = invitation.link
    try:
        return console.request(control.Redeem(link, user, password, create=not asked))
    except CommandFailed as error:
        if error.code is not Code.UNKNOWN_USER:
            raise
    console.report(f"{user} is a new name here: an account is made")
    if read_password(None, twice=False, prompt="Repeat the password: ") != password:
        refuse_usage("the two passwords differ", "type the same one twice")
    return console.request(control.Redeem(link, user, password))


def _read_name() -> str:
    if sys.stdin.isatty():
        print("User name: ", end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    if not line.strip():
        refuse_usage("no user name was given", "give it behind the link, or type it when asked")
    return line.strip()


# -- the peer -----------------------------------------------------------------------------------


@contextlib.contextmanager
def _peer_for(console: Console, invitation: Invitation) -> Iterator[control.StatusIs]:
    """Yield the status of a peer that uses the tracker of the invitation.

    If the block fails, what was started or changed is undone; otherwise it is remembered.
    """
    home, link = console.home, invitation.tracker.text
    undo: list[Callable[[], object]] = []
    options = _from_environment()
    try:
        status = daemon_process.running(home)
        if status is None:
            known = _known_keys(home)
            if not known or known == {invitation.tracker.key}:
                options["tracker"] = link
            status = _start(console, options, undo)
        if parse_link(status.tracker).key != invitation.tracker.key:
            _check_change(console, status)
            console.report(f"this device changes to the tracker {link}")
            if not undo:
                undo.append(lambda: daemon_process.start(home, {}, remember=False))
            daemon_process.stop(home)
            undo[1:] = []
            options["tracker"] = link
            status = _start(console, options, undo)
        yield status
    except BaseException:
        for step in reversed(undo):
            with contextlib.suppress(MiniTorrentError):
                step()
        raise
    if options:
        daemon_process.remember(home, options)


def _from_environment() -> dict[str, Any]:
    """Return the options of `up` that the environment names, checked."""
    found = {name: os.environ.get(f"MINI_TORRENT_{name.upper()}") or None for name in _ADDRESSES}
    return checked(found, os.getcwd())


def _start(
    console: Console, options: dict[str, Any], undo: list[Callable[[], object]]
) -> control.StatusIs:
    """Start a peer that `undo` ends."""
    home = console.home
    status = daemon_process.start(home, options, verbose=console.verbose, remember=False)
    undo.append(lambda: daemon_process.stop(home))
    if status.connected:
        console.warn_if_alone(status)
    return status


def _known_keys(home: Path) -> set[DeviceKey]:
    """Return the keys of the trackers that the peer of ``home`` remembers."""
    tracker = load(home).tracker
    if tracker is None:
        return set()
    with contextlib.suppress(ConfigError):
        return {each.key for each in trackers_of(tracker)}
    return set()


def _check_change(console: Console, status: control.StatusIs) -> None:
    """Raise `Refused` unless this device may change from the tracker of ``status`` to another."""
    if status.user is not None or console.at_prompt:
        raise other_tracker(status.tracker, status.user)
    if not status.connected and (console.home / LAST_TRACKER).exists():
        raise Refused(
            Code.FAILED,
            f"this device was last logged in at another tracker, {status.tracker},"
            " which cannot be reached now",
            hint("join with another --home, or see what is wrong", "doctor"),
        )
