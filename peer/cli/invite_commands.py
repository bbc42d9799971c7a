"""Commands about invitations: making, listing and revoking them, and joining by one."""

from __future__ import annotations

import click

from common import limits
from peer.cli.arguments import complete_invite, duration, group_argument
from peer.cli.command import command
from peer.cli.console import Console


@command("invite", example="mini-torrent invite films --uses 20 --expires 2d")
@group_argument
@click.option(
    "--uses",
    type=click.IntRange(1, limits.INVITATION_USES_MAX),
    default=1,
    show_default=True,
    metavar="N",
    help="The number of users who may join by it.",
)
@click.option(
    "--expires",
    metavar="DURATION",
    default="7d",
    show_default=True,
    callback=duration,
    help="The time until it ends, such as 12h or 30d.",
)
@click.option("--qr", is_flag=True, help="Draw the link as a QR code below the line.")
def invite(console: Console, group: str, uses: int, expires: float, qr: bool) -> None:
    """Make an invitation to a group that you own.

    Prints one line. Pasted on another machine, it starts a peer there, makes an account or logs in,
    and joins the group: no request, no waiting.

    The line is worth a membership: send it over a channel that you trust. The tracker keeps only a
    hash of its secret, so it cannot be shown again.
    """
    from common.hints import PROGRAM, quoted_line
    from common.messages.control import Invite, Invited
    from common.units import count_text, moment_text
    from peer.cli.json_form import plain

    answer = console.request(Invite(group, uses, int(expires)))
    if not isinstance(answer, Invited):
        return
    if answer.local:
        console.report("warning: the link names this machine's loopback: it works here only")
    if console.as_json:
        document = plain(answer)
        del document["local"]
        console.json(document)
        return
    console.print_line(quoted_line([PROGRAM, "join", answer.link]))
    if qr:
        from peer.cli.qr_code import drawn

        print(drawn(answer.link, colours=console.terminal), flush=True)
    until = moment_text(answer.expires)
    console.report(f"for {count_text(answer.uses, 'user')}, until {until}; its id is {answer.id}")


@command("list-invites", example="mini-torrent list-invites films")
@group_argument
def list_invites(console: Console, group: str) -> None:
    """List the invitations to a group that you own.

    Those that are used up are listed until they expire.
    """
    from common.messages.control import ListInvites
    from peer.cli.listings import invites_table
    from peer.cli.tables import show_rows

    show_rows(console, console.request(ListInvites(group)), invites_table)


@command("revoke-invite", example="mini-torrent revoke-invite films 3f2kq7ab")
@group_argument
@click.argument("id", shell_complete=complete_invite)
def revoke_invite(console: Console, group: str, id: str) -> None:
    """Revoke an invitation to a group that you own.

    ID is one of `list-invites`. Members who joined by it stay members.
    """
    from common.messages.control import RevokeInvite

    console.done(console.request(RevokeInvite(group, id)))


@command("join", example="mini-torrent join 'mini-torrent://192.0.2.7:5000/KEY#SECRET'")
@click.argument("link")
@click.argument("user", required=False)
@click.argument("password", required=False)
def join(console: Console, link: str, user: str | None, password: str | None) -> None:
    """Join a group by an invitation.

    On a new machine, this starts the peer, asks for a user name and a password, and logs in; an
    account that does not exist is made. A device that is logged in only joins. Repeated while the
    invitation is valid, it succeeds again.

    LINK is the link of the invitation, in quotes. With `-` it is read from the variable
    MINI_TORRENT_INVITE or, if that is not set, as one line from standard input.

    LINK and PASSWORD on the command line can be seen by other users of this machine, and stay in
    the shell's history.
    """
    from peer.cli.joining import join_by
    from peer.cli.json_form import plain

    joined = join_by(console, link, user, password)
    if console.as_json:
        console.json(plain(joined))
    elif not console.quiet:
        account = f"account {joined.user} created; " if joined.created else ""
        by = f", invited by {joined.by}" if joined.by != joined.user else ""
        console.print_line(f"{account}{joined.user} is a member of {joined.group}{by}")


COMMANDS = (invite, list_invites, revoke_invite, join)
