"""The commands about accounts and groups."""

from __future__ import annotations

from typing import Any

import click

from peer.cli.arguments import (
    complete_device,
    complete_group,
    complete_member,
    complete_request,
    read_password,
)
from peer.cli.command import command
from peer.cli.console import Console, plain

group_argument = click.argument("group", shell_complete=complete_group)
user_argument = click.argument("user")
request_argument = click.argument("user", shell_complete=complete_request)
member_argument = click.argument("user", shell_complete=complete_member)
yes_option = click.option("--yes", "-y", is_flag=True, help="Do not ask for confirmation.")
password_argument = click.argument("password", required=False)

# -- accounts -----------------------------------------------------------------------------------


@command("create-user", example="mini-torrent create-user anna")
@user_argument
@password_argument
def create_user(console: Console, user: str, password: str | None) -> None:
    """Make an account.

    PASSWORD on the command line can be seen by other users of this machine, and stays in the
    shell's history. Left out, it is asked for, or read as one line from standard input.
    """
    from common.messages.control import CreateUser
    from common.names import new_user_id

    console.need_peer()
    new_user_id(user)  # a name that is none is refused before a password is asked for
    answer = console.ask(CreateUser(user, read_password(password, twice=True)))
    console.done(answer, f"account {user} made")


@command("login", example="mini-torrent login anna")
@user_argument
@password_argument
@yes_option
def login(console: Console, user: str, password: str | None, yes: bool) -> None:
    """Log in on this device, until `logout`.

    What was shared here before is shared again. A restarted peer needs no login.

    PASSWORD on the command line can be seen by other users of this machine, and stays in the
    shell's history. Left out, it is asked for, or read as one line from standard input.
    """
    from common.messages.control import Login

    console.need_peer()
    password = read_password(password, twice=False)
    answer = console.ask_with_consent(lambda yes: Login(user, password, yes), yes)
    console.done(answer, f"logged in as {user}")


@command("logout", example="mini-torrent logout")
def logout(console: Console) -> None:
    """End the login of this device; it serves nothing any more."""
    from common.messages.control import Logout

    console.done(console.ask(Logout()), "logged out")


@command("change-password", example="mini-torrent change-password")
@click.argument("old", required=False)
@click.argument("new", required=False)
@click.option("--keep-devices", is_flag=True, help="Leave your other devices logged in.")
def change_password(console: Console, old: str | None, new: str | None, keep_devices: bool) -> None:
    """Change your password, and log out all your other devices.

    This device stays logged in. On the others, log in again with the new password.

    OLD and NEW on the command line can be seen by other users of this machine, and stay in the
    shell's history. Left out, they are asked for, or read as a line each from standard input.
    """
    from common.messages.control import ChangePassword

    console.need_peer()
    old = read_password(old, twice=False, prompt="Old password: ")
    new = read_password(new, twice=True, prompt="New password: ")
    answer = console.ask(ChangePassword(old, new, keep_devices))
    console.done(answer, "password changed")


@command("list-devices", example="mini-torrent list-devices")
def list_devices(console: Console) -> None:
    """List the devices on which you are logged in."""
    from common.messages.control import ListDevices
    from peer.cli.listings import devices_table

    _list(console, console.ask(ListDevices()), devices_table)


@command("forget-device", example="mini-torrent forget-device 3f0c9a1b")
@click.argument("id", shell_complete=complete_device)
def forget_device(console: Console, id: str) -> None:
    """Log out a device of yours, such as a lost one, from here.

    ID is what `list-devices` shows, or 4 characters of its beginning at least.

    The device shares and fetches nothing any more from this moment on, and what it shared is listed
    no more; what it has, it keeps.
    """
    from common.messages.control import ForgetDevice

    console.done(console.ask(ForgetDevice(id)), f"device {id} is logged out")


# -- groups -------------------------------------------------------------------------------------


@command("create-group", example="mini-torrent create-group films")
@click.argument("group")
def create_group(console: Console, group: str) -> None:
    """Make a group that you own."""
    from common.messages.control import CreateGroup

    console.done(console.ask(CreateGroup(group)), f"group {group} made")


@command("join-group", example="mini-torrent join-group films")
@group_argument
def join_group(console: Console, group: str) -> None:
    """Ask the owner of a group to be let in."""
    from common.messages.control import JoinGroup

    console.done(console.ask(JoinGroup(group)), f"asked to join {group}")


@command("leave-group", example="mini-torrent leave-group films")
@group_argument
@yes_option
def leave_group(console: Console, group: str, yes: bool) -> None:
    """Leave a group, and stop sharing in it.

    If it is yours, it passes to whoever is a member for longest; the last one dissolves it.
    """
    from common.messages.control import LeaveGroup

    answer = console.ask_with_consent(lambda yes: LeaveGroup(group, yes), yes)
    console.done(answer, f"left {group}")


@command("list-groups", example="mini-torrent list-groups --json")
def list_groups(console: Console) -> None:
    """List the groups, and what you are in each."""
    from common.messages.control import ListGroups
    from peer.cli.listings import groups_table

    _list(console, console.ask(ListGroups()), groups_table)


@command("list-requests", example="mini-torrent list-requests films")
@group_argument
def list_requests(console: Console, group: str) -> None:
    """List who asks to join a group that you own."""
    from common.messages.control import ListRequests
    from peer.cli.listings import users_table

    answer = console.ask(ListRequests(group))
    _list(console, answer, lambda rows: users_table(rows, "Nobody asks to join."))


@command("list-members", example="mini-torrent list-members films")
@group_argument
def list_members(console: Console, group: str) -> None:
    """List the members of a group that you are in."""
    from common.messages.control import ListMembers
    from peer.cli.listings import users_table

    answer = console.ask(ListMembers(group))
    _list(console, answer, lambda rows: users_table(rows, "Nobody is in this group."))


@command("accept-request", example="mini-torrent accept-request films bert")
@group_argument
@request_argument
def accept_request(console: Console, group: str, user: str) -> None:
    """Let USER into a group that you own."""
    from common.messages.control import AcceptRequest

    console.done(console.ask(AcceptRequest(group, user)), f"{user} is in {group}")


@command("reject-request", example="mini-torrent reject-request films mallory")
@group_argument
@request_argument
def reject_request(console: Console, group: str, user: str) -> None:
    """Turn down USER, who asks to join."""
    from common.messages.control import RejectRequest

    console.done(console.ask(RejectRequest(group, user)), f"{user} was turned down")


@command("remove-member", example="mini-torrent remove-member films mallory")
@group_argument
@member_argument
def remove_member(console: Console, group: str, user: str) -> None:
    """Remove USER from a group that you own.

    Nobody serves them any more from this moment on; what they have, they keep.
    """
    from common.messages.control import RemoveMember

    console.done(console.ask(RemoveMember(group, user)), f"{user} is no longer in {group}")


def _list(console: Console, answer: Any, table: Any) -> None:
    from peer.cli.tables import show

    if console.as_json:
        console.json(plain(answer.rows))
    else:
        show(table(answer.rows), console)


ACCOUNTS = (create_user, login, logout, change_password, list_devices, forget_device)
GROUPS = (
    create_group,
    join_group,
    leave_group,
    list_groups,
    list_requests,
    accept_request,
    reject_request,
    list_members,
    remove_member,
)
