"""Commands about groups and their listings, from the command line to the tracker and back.

Owns the table of commands that the tracker does by one command of its own, and the result texts.
Not here: the shares of a group that is left (see peer.session).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from msgspec.structs import replace

from common import limits, names
from common.ids import GroupId
from common.messages import control, tracker
from peer.control.views import file_row, group_row, user_row
from peer.session import Session
from peer.shares.manager import Shares
from peer.tracker_client.group_replica import GroupReplica
from peer.tracker_client.link import TrackerLink
from peer.tracker_client.listing import listing

RelayedCommand: TypeAlias = (
    control.CreateGroup
    | control.JoinGroup
    | control.AcceptRequest
    | control.RejectRequest
    | control.RemoveMember
)
Command: TypeAlias = (
    RelayedCommand
    | control.LeaveGroup
    | control.ListGroups
    | control.ListRequests
    | control.ListMembers
    | control.ListFiles
)


@dataclass(frozen=True, slots=True)
class Relay:
    """A command that one command of the tracker does. ``text`` is the result, for people; ``role``:
    the one that its user has afterwards; ``sync``: the groups of this user change by it."""

    command: Callable[..., tracker.Command]
    text: str
    role: str
    sync: bool = False
    group_id: Callable[[str], GroupId] = names.group_id


RELAYS: dict[type[RelayedCommand], Relay] = {
    control.CreateGroup: Relay(
        tracker.CreateGroup, "group {group} created; you own it", "owner", True, names.new_group_id
    ),
    control.JoinGroup: Relay(
        tracker.JoinGroup, "asked to join {group}; its owner decides", "pending", sync=True
    ),
    control.AcceptRequest: Relay(tracker.AcceptRequest, "{user} is a member of {group}", "member"),
    control.RejectRequest: Relay(
        tracker.RejectRequest, "the request of {user} to join {group} was rejected", "none"
    ),
    control.RemoveMember: Relay(
        tracker.RemoveMember, "{user} is no longer a member of {group}", "none"
    ),
}


class GroupCommands:
    """Carries out the commands about groups."""

    def __init__(
        self, link: TrackerLink, replica: GroupReplica, session: Session, shares: Shares
    ) -> None:
        self._link = link
        self._replica = replica
        self._session = session
        self._shares = shares

    async def handle(self, command: Command) -> control.Answer:
        """Carry ``command`` out. Raises `MiniTorrentError`."""
        match command:
            case control.LeaveGroup(group, yes):
                return await self._leave(names.group_id(group), yes)
            case control.ListGroups():
                return await self._all_groups()
            case control.ListRequests(group):
                requests = tracker.ListRequests(names.group_id(group))
                return await self._users(requests, limits.REQUESTS_PER_GROUP_MAX)
            case control.ListMembers(group):
                members = tracker.ListMembers(names.group_id(group))
                return await self._users(members, limits.MEMBERS_PER_GROUP_MAX)
            case control.ListFiles(group, versions):
                return await self._all_files(names.group_id(group), versions)
            case _:
                return await self._relay(command, RELAYS[type(command)])

    async def _relay(self, command: RelayedCommand, relay: Relay) -> control.Done:
        fields: dict[str, str] = {"group": relay.group_id(command.group)}
        match command:
            case control.AcceptRequest() | control.RejectRequest() | control.RemoveMember():
                fields["user"] = names.user_id(command.user)
        change = self._link.request(relay.command(**fields), tracker.Done)
        await (self._replica.sync_after(change) if relay.sync else change)
        changed = {"group": fields["group"], "user": fields.get("user", self._replica.user)}
        return control.Done(relay.text.format(**fields), {**changed, "role": relay.role})

    async def _leave(self, group: GroupId, yes: bool) -> control.Answer:
        replica = self._replica
        withdraws = group in replica.pending
        row = await self._group_row(group)  # the owner may have changed a moment ago
        owned = row is not None and row.role == "owner"
        if row is not None and owned and not yes:
            return control.NeedsConsent(leaving_question(group, row.members))
        replica.pending.discard(group)  # a withdrawn request gets no answer

        async def leave() -> None:
            await self._link.request(tracker.LeaveGroup(group), tracker.Done)
            await self._session.left_group(group)

        await replica.sync_after(leave())
        if withdraws:
            return self._left(group, f"you no longer ask to join {group}")
        if not owned:
            return self._left(group, f"left {group}")
        row = await self._group_row(group)
        if row is None:
            return self._left(group, f"left {group}; the group no longer exists", deleted=True)
        owner = names.printable(row.owner)
        return self._left(group, f"left {group}; {owner} owns it now", new_owner=row.owner)

    def _left(
        self, group: GroupId, text: str, *, new_owner: str | None = None, deleted: bool = False
    ) -> control.Done:
        changed = {"group": group, "user": self._replica.user, "role": "none"}
        return control.Done(text, {**changed, "new_owner": new_owner, "deleted": deleted})

    async def _group_row(self, group: GroupId) -> tracker.GroupRow | None:
        """The row of one group among those of the tracker, which are in order."""
        page = await self._link.request(tracker.ListGroups(group[:-1]), tracker.GroupRows)
        while page.rows:
            for row in page.rows:
                if names.fold_id(row.group) == group:
                    return row
            last = names.fold_id(page.rows[-1].group)
            if not page.more or last > group:
                return None
            page = await self._link.request(tracker.ListGroups(last), tracker.GroupRows)
        return None

    async def _all_groups(self) -> control.Groups:
        async def page(last: tracker.GroupRow | None) -> tracker.GroupRows:
            command = tracker.ListGroups("" if last is None else last.group)
            return await self._link.request(command, tracker.GroupRows)

        rows = listing(
            page, lambda row: names.fold_id(row.group), "groups", limits.GROUPS_LISTED_MAX
        )
        return control.Groups([group_row(row) async for row in rows])

    async def _all_files(self, group: GroupId, versions: bool) -> control.Files:
        async def page(last: tracker.FileRow | None) -> tracker.FileRows:
            after = "" if last is None else last.name
            if last is not None and versions:
                after = names.versioned(last.name, last.version)
            return await self._link.request(
                tracker.ListFiles(group, after, versions), tracker.FileRows
            )

        def key(row: tracker.FileRow) -> tuple[str, int]:
            return names.fold_name(row.name), row.version

        rows = listing(page, key, "files", limits.SHARES_PER_GROUP_MAX)
        away = self._shares.away()
        return control.Files(
            [
                replace(file_row(row), away=(group, names.fold_name(row.name), row.version) in away)
                async for row in rows
            ]
        )

    async def _users(
        self, command: tracker.ListRequests | tracker.ListMembers, rows_max: int
    ) -> control.Users:
        async def page(last: tracker.UserRow | None) -> tracker.UserRows:
            after = "" if last is None else last.user
            return await self._link.request(type(command)(command.group, after), tracker.UserRows)

        rows = listing(page, lambda row: names.fold_id(row.user), "users", rows_max)
        return control.Users([user_row(row) async for row in rows])


def leaving_question(group: str, members: int) -> str:
    """The question to an owner who leaves."""
    if members <= 1:
        return f"you are the only member of {group}: leaving deletes it and its list of shares"
    return f"you own {group}: it passes to the member who joined first"
