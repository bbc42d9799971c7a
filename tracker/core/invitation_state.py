"""Invitations in the mirror of the durable state: by group, and the group of each.

Owns: the two together. Not here: the rest of the mirror (see tracker.core.state).
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from common.ids import GroupId
from tracker.core import invitation_changes as ic
from tracker.core.records import Group, Invitation


def apply_invitation(
    groups: dict[GroupId, Group], invited_by: dict[bytes, GroupId], change: ic.InvitationChange
) -> None:
    """Apply ``change`` to the invitations of ``groups`` and to ``invited_by``."""
    match change:
        case ic.InvitationMade(group, key, user, at_ms, expires_ms, uses):
            groups[group].invitations[key] = Invitation(user, at_ms, expires_ms, uses)
            invited_by[key] = group
        case ic.InvitationUsed(group, key):
            known = groups[group].invitations[key]
            groups[group].invitations[key] = replace(known, used=known.used + 1)
        case ic.InvitationDropped(group, key):
            del groups[group].invitations[key], invited_by[key]
        case ic.InvitationsExpired(before_ms):
            for key, group in list(invited_by.items()):
                if groups[group].invitations[key].expires_ms <= before_ms:
                    del groups[group].invitations[key], invited_by[key]
        case _:
            assert_never(change)


def drop_invitations(group: Group, invited_by: dict[bytes, GroupId]) -> None:
    """Drop all invitations to ``group``."""
    for key in group.invitations:
        del invited_by[key]
    group.invitations.clear()
