"""Tickets: the right of a member to one, for each of its groups.

Owns: the decision on `GetTickets`. Not here: the signing (see tracker.service.ticket_signer).
"""

from __future__ import annotations

from common.ids import UserId
from common.messages import tracker
from tracker.core.context import Decision, SignTickets, find_group, refuse_group
from tracker.core.state import State


def get_tickets(state: State, user: UserId, command: tracker.GetTickets) -> Decision:
    """Issue tickets for some or all of the caller's groups.

    Groups that the caller is not in are ignored unless none remains: the caller may have left one a
    moment ago.
    """
    if command.groups:
        asked = [find_group(state, text) for text in command.groups]
        groups = {g.id: g for g in asked if g is not None and user in g.members}
        if not groups:
            refuse_group(command.groups[0])
    else:
        groups = {group.id: group for group in state.groups_with(user)}
    return Decision(deferred=SignTickets(user, tuple((g.id, g.epoch) for g in groups.values())))
