"""Commands about groups: creating, joining, leaving them, their requests and members."""

from __future__ import annotations

import click

from peer.cli.arguments import (
    complete_member,
    complete_request,
    duration,
    group_argument,
    yes_option,
)
from peer.cli.command import command
from peer.cli.console import Console
from peer.cli.errors import refuse_usage

request_argument = click.argument("user", shell_complete=complete_request)
member_argument = click.argument("user", shell_complete=complete_member)


@command("create-group", example="mini-torrent create-group films")
@click.argument("group")
def create_group(console: Console, group: str) -> None:
    """Create a group that you own."""
    from common.messages.control import CreateGroup

    console.done(console.request(CreateGroup(group)))


@command("join-group", example="mini-torrent join-group films --wait")
@group_argument
@click.option("--wait", is_flag=True, help="Wait for the owner's answer; exit with 1 if it is no.")
@click.option(
    "--timeout",
    metavar="DURATION",
    callback=duration,
    help="Wait at most this long (90s, 10m, 12h, 7d); then exit with 6. The request stays.",
)
def join_group(console: Console, group: str, wait: bool, timeout: float | None) -> None:
    """Ask the owner of a group to accept you.

    With --wait, a user who is a member already is done at once.
    """
    from common.messages.control import JoinGroup

    if not wait:
        if timeout is not None:
            refuse_usage("--timeout needs --wait")
        console.done(console.request(JoinGroup(group)))
        return
    from peer.cli.join_request import request_and_wait

    console.done(request_and_wait(console, group, timeout))


@command("leave-group", example="mini-torrent leave-group films")
@group_argument
@yes_option
def leave_group(console: Console, group: str, yes: bool) -> None:
    """Leave a group, and stop sharing in it.

    A group that you own passes to the member who joined first. The last member dissolves the group.
    """
    from common.messages.control import LeaveGroup

    answer = console.request_with_consent(lambda yes: LeaveGroup(group, yes), yes)
    console.done(answer)


@command("list-groups", example="mini-torrent list-groups --json")
def list_groups(console: Console) -> None:
    """List the groups, and your role in each."""
    from common.messages.control import ListGroups
    from peer.cli.listings import groups_table
    from peer.cli.tables import show_rows

    show_rows(console, console.request(ListGroups()), groups_table)


@command("list-requests", example="mini-torrent list-requests films")
@group_argument
def list_requests(console: Console, group: str) -> None:
    """List the requests to join a group that you own."""
    from common.messages.control import ListRequests
    from peer.cli.listings import users_table
    from peer.cli.tables import show_rows

    answer = console.request(ListRequests(group))
    show_rows(console, answer, lambda rows: users_table(rows, "There are no requests to join."))


@command("list-members", example="mini-torrent list-members films")
@group_argument
def list_members(console: Console, group: str) -> None:
    """List the members of a group that you are in."""
    from common.messages.control import ListMembers
    from peer.cli.listings import users_table
    from peer.cli.tables import show_rows

    answer = console.request(ListMembers(group))
    show_rows(console, answer, lambda rows: users_table(rows, "This group has no members."))


@command("accept-request", example="mini-torrent accept-request films bert")
@group_argument
@request_argument
def accept_request(console: Console, group: str, user: str) -> None:
    """Accept the request of USER to join a group that you own."""
    from common.messages.control import AcceptRequest

    console.done(console.request(AcceptRequest(group, user)))


@command("reject-request", example="mini-torrent reject-request films mallory")
@group_argument
@request_argument
def reject_request(console: Console, group: str, user: str) -> None:
    """Reject the request of USER to join a group that you own."""
    from common.messages.control import RejectRequest

    console.done(console.request(RejectRequest(group, user)))


@command("remove-member", example="mini-torrent remove-member films mallory")
@group_argument
@member_argument
def remove_member(console: Console, group: str, user: str) -> None:
    """Remove USER from a group that you own.

    From this moment on the other members no longer serve USER, who keeps the files already fetched.
    """
    from common.messages.control import RemoveMember

    console.done(console.request(RemoveMember(group, user)))


COMMANDS = (
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
