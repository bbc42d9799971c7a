"""Commands about invitations, from the command line to the tracker and back.

Owns: the secret of a new invitation, which the tracker never gets, and the login by one. Not here:
the link's form (see common.invitation), the effects of a login (see peer.session).
"""

from __future__ import annotations

import contextlib
from typing import TypeAlias, assert_never

from common import limits, names
from common.errors import ConfigError, Refused
from common.hints import hint
from common.ids import GroupId, UserId
from common.invitation import Invitation, id_of, key_of, new_secret, parse_invitation
from common.link import Link, check_endpoint, is_loopback
from common.messages import control, tracker
from common.messages.refusals import Code
from common.shared_refusals import not_logged_in
from peer.control.account import Account
from peer.control.views import time_text
from peer.tracker_client.claims import check_invited, check_redeemed
from peer.tracker_client.group_replica import GroupReplica
from peer.tracker_client.link import TrackerLink
from peer.tracker_client.listing import listing

Command: TypeAlias = control.Invite | control.ListInvites | control.RevokeInvite | control.Redeem


class InvitationCommands:
    """Carries out the commands about invitations."""

    def __init__(self, link: TrackerLink, replica: GroupReplica, account: Account) -> None:
        self._link = link
        self._replica = replica
        self._account = account

    async def handle(self, command: Command) -> control.Answer:
        """Carry ``command`` out. Raises `MiniTorrentError`."""
        match command:
            case control.Invite(group, uses, life_s):
                return await self._invite(names.group_id(group), uses, life_s)
            case control.ListInvites(group):
                return await self._list(names.group_id(group))
            case control.RevokeInvite(group, id_text):
                changed = {"group": names.group_id(group), "id": _id(id_text)}
                await self._link.request(tracker.RevokeInvitation(**changed), tracker.Done)
                text = f"the invitation {changed['id']} to {changed['group']} is revoked"
                return control.Done(text, {**changed})
            case control.Redeem():
                return await self._redeem(command)
            case _:
                assert_never(command)

    async def _invite(self, group: GroupId, uses: int, life_s: int) -> control.Invited:
        _check_bounds(uses, life_s)
        await self._link.reachable()
        invitation = Invitation(self._link.known, new_secret())
        key = key_of(invitation.proof)
        reply = await self._link.request(tracker.Invite(group, key, uses, life_s), tracker.Invited)
        row = reply.row
        check_invited(row, id_of(key), uses)
        where = _for_others(invitation.tracker, reply.endpoint)
        link = Invitation(where, invitation.secret).link
        local = all(map(is_loopback, where.endpoints))
        return control.Invited(group, row.id, link, row.uses, time_text(row.expires_ms), local)

    async def _list(self, group: GroupId) -> control.Invites:
        async def page(last: tracker.InvitationRow | None) -> tracker.InvitationRows:
            command = tracker.ListInvitations(group, "" if last is None else last.id)
            return await self._link.request(command, tracker.InvitationRows)

        rows = listing(page, lambda row: row.id, "invitations", limits.INVITATIONS_KEPT_MAX)
        return control.Invites(
            [
                control.InviteRow(
                    row.id,
                    row.user,
                    time_text(row.made_ms),
                    time_text(row.expires_ms),
                    row.uses,
                    row.used,
                )
                async for row in rows
            ]
        )

    # -- redeeming ------------------------------------------------------------------------------

    async def _redeem(self, command: control.Redeem) -> control.Redeemed:
        invitation, current = parse_invitation(command.link), self._replica.user
        await self._link.reachable()
        if self._link.where.key != invitation.tracker.key:
            raise other_tracker(self._link.known.text, current)
        if command.user is None or command.password is None:
            if current is None:
                raise not_logged_in()
            user = current
            reply = await self._join(invitation)
        else:
            user = names.user_id(command.user)
            reply = await self._enter(invitation, user, command)
        group, by = check_redeemed(reply, user)
        return control.Redeemed(group, user, by, reply.created)

    async def _join(self, invitation: Invitation) -> tracker.Redeemed:
        joined = self._link.request(tracker.Redeem(invitation.proof), tracker.Redeemed)
        return await self._replica.sync_after(joined)

    async def _enter(
        self, invitation: Invitation, user: UserId, command: control.Redeem
    ) -> tracker.Redeemed:
        current = self._replica.user
        if current is not None and current != user:
            raise other_user(current)
        enter = tracker.Enter(invitation.proof, user, command.password or "", command.create)
        reply = await self._account.request_with_retry(enter, tracker.Redeemed)
        check_redeemed(reply, user)
        await self._account.entered(user)
        await self._replica.sync()
        return reply


def _check_bounds(uses: int, life_s: int) -> None:
    if not 1 <= uses <= limits.INVITATION_USES_MAX:
        raise Refused(
            Code.USAGE, f"an invitation has 1 to {limits.INVITATION_USES_MAX:,} uses, not {uses:,}"
        )
    if not limits.INVITATION_S_MIN <= life_s <= limits.INVITATION_S_MAX:
        days = limits.INVITATION_S_MAX // 86_400
        raise Refused(Code.USAGE, f"an invitation lasts at most {days} days")


def _id(typed: str) -> str:
    if not typed or len(typed) > limits.USER_ID_MAX:
        raise Refused(Code.USAGE, f"{names.quoted(typed)} is not the id of an invitation")
    return typed.lower()


def _for_others(known: Link, claimed: str) -> Link:
    """Return the trackers as other machines reach them, as far as can be known.

    Why not what the tracker claims, always: we have reached it where we know it. The key is ours in
    any case, so a claim cannot lead to another tracker.
    """
    others = tuple(endpoint for endpoint in known.endpoints if not is_loopback(endpoint))
    if others:
        return Link(others, known.key)
    if claimed.startswith("tcp://"):
        with contextlib.suppress(ConfigError):
            if not is_loopback(check_endpoint(claimed)):
                return Link((claimed,), known.key)
    return known


def other_tracker(where: str, user: str | None) -> Refused:
    """Return the refusal of an invitation at another tracker than that of this device."""
    if user is None:
        return Refused(
            Code.FAILED,
            f"the invitation is for another tracker; this device uses {where}",
            hint("end this peer, and join again", "down"),
        )
    return Refused(
        Code.FAILED,
        f"the invitation is for another tracker; this device is logged in as {user} at {where}",
        hint("join with another --home, or log out here first", "logout"),
    )


def other_user(current: str) -> Refused:
    """Return the refusal to join as another user than the one who is logged in."""
    return Refused(
        Code.FAILED,
        f"{current} is logged in on this device",
        hint("log out first, or join without a user name", "logout"),
    )
