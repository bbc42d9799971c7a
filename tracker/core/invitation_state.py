"""Invitations in the mirror of the durable state: by group, and the group of each.

Owns: the two together. Not here: the rest of the mirror (see tracker.core.state).
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from common.ids import GroupId
from tracker.core import invitation_changes as ic
from tracker.core.records import Group, Invitation
from tracker.core.undo import UndoLog


def apply_invitation(
    groups: dict[GroupId, Group],
    invited_by: dict[bytes, GroupId],
    change: ic.InvitationChange,
    undo: UndoLog,
) -> None:
    """Apply ``change`` to the invitations of ``groups`` and to ``invited_by``."""

    def drop(group: GroupId, key: bytes) -> None:
        undo.removal(groups[group].invitations, key)
        undo.removal(invited_by, key)
        del groups[group].invitations[key], invited_by[key]

    match change:
        case ic.InvitationMade(group, key, user, at_ms, expires_ms, uses):
            add_invitation(
                groups[group], invited_by, key, Invitation(user, at_ms, expires_ms, uses), undo
            )
        case ic.InvitationUsed(group, key):
            known = groups[group].invitations[key]
            undo.item(groups[group].invitations, key)
            groups[group].invitations[key] = replace(known, used=known.used + 1)
        case ic.InvitationDropped(group, key):
            drop(group, key)
        case ic.InvitationsExpired(before_ms):
            for key, group in list(invited_by.items()):
                if groups[group].invitations[key].expires_ms <= before_ms:
                    drop(group, key)
        case _:
            assert_never(change)


def add_invitation(
    group: Group,
    invited_by: dict[bytes, GroupId],
    key: bytes,
    invitation: Invitation,
    undo: UndoLog,
) -> None:
    """Add an invitation to ``group``."""
    undo.item(group.invitations, key)
    group.invitations[key] = invitation
    undo.item(invited_by, key)
    invited_by[key] = group.id


def drop_invitations(group: Group, invited_by: dict[bytes, GroupId], undo: UndoLog) -> None:
    """Drop all invitations to ``group``."""
    for key in group.invitations:
        undo.removal(invited_by, key)
        del invited_by[key]
    undo.clearing(group.invitations)
    group.invitations.clear()
