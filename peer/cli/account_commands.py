"""Commands about the account: creating it, logging in and out, the password, the devices."""

from __future__ import annotations

import click

from peer.cli.arguments import complete_device, read_password, yes_option
from peer.cli.command import command
from peer.cli.console import Console

user_argument = click.argument("user")
password_argument = click.argument("password", required=False)


@command("create-user", example="mini-torrent create-user anna")
@user_argument
@password_argument
def create_user(console: Console, user: str, password: str | None) -> None:
    """Create an account.

    PASSWORD on the command line can be seen by other users of this machine, and stays in the
    shell's history. Without it, a terminal is asked, and a pipe is read for one line.
    """
    from common.messages.control import CreateUser
    from common.names import new_user_id

    console.need_peer()
    new_user_id(user)  # a wrong name is refused before a password is asked for
    answer = console.request(CreateUser(user, read_password(password, twice=True)))
    console.done(answer)


@command("login", example="mini-torrent login anna")
@user_argument
@password_argument
@yes_option
def login(console: Console, user: str, password: str | None, yes: bool) -> None:
    """Log in on this device, until `logout`.

    Earlier shares of this device are shared again. A restarted peer needs no login.

    PASSWORD on the command line can be seen by other users of this machine, and stays in the
    shell's history. Without it, a terminal is asked, and a pipe is read for one line.
    """
    from common.messages.control import Login

    console.need_peer()
    password = read_password(password, twice=False)
    answer = console.request_with_consent(lambda yes: Login(user, password, yes), yes)
    console.done(answer)


@command("logout", example="mini-torrent logout")
def logout(console: Console) -> None:
    """Log out on this device; it stops serving your shares."""
    from common.messages.control import Logout

    console.done(console.request(Logout()))


@command("change-password", example="mini-torrent change-password")
@click.argument("old", required=False)
@click.argument("new", required=False)
@click.option("--keep-devices", is_flag=True, help="Leave your other devices logged in.")
def change_password(console: Console, old: str | None, new: str | None, keep_devices: bool) -> None:
    """Change your password, and log out all your other devices.

    This device stays logged in. On the others, log in again with the new password.

    OLD and NEW on the command line can be seen by other users of this machine, and stay in the
    shell's history. Without them, a terminal is asked, and a pipe is read for a line each.
    """
    from common.messages.control import ChangePassword

    console.need_peer()
    old = read_password(old, twice=False, prompt="Old password: ")
    new = read_password(new, twice=True, prompt="New password: ")
    answer = console.request(ChangePassword(old, new, keep_devices))
    console.done(answer)


@command("list-devices", example="mini-torrent list-devices")
def list_devices(console: Console) -> None:
    """List the devices on which you are logged in."""
    from common.messages.control import ListDevices
    from peer.cli.listings import devices_table
    from peer.cli.tables import show_rows

    show_rows(console, console.request(ListDevices()), devices_table)


@command("forget-device", example="mini-torrent forget-device 3f0c9a1b")
@click.argument("id", shell_complete=complete_device)
def forget_device(console: Console, id: str) -> None:
    """Log out another device of yours, such as a lost one.

    ID is an id of `list-devices`, or at least its first 4 characters.

    From this moment on the device can no longer share or fetch, and its shares are no longer
    listed. It keeps the files that it has.
    """
    from common.messages.control import ForgetDevice

    console.done(console.request(ForgetDevice(id)))


COMMANDS = (create_user, login, logout, change_password, list_devices, forget_device)
