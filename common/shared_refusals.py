"""Refusals that the tracker and the peers share, with equal texts.

Why: a user cannot tell which of the two answered, and should not have to.
"""

from __future__ import annotations

from common import limits
from common.errors import Refused
from common.hints import hint
from common.messages.refusals import Code
from common.names import quoted


def not_logged_in() -> Refused:
    """Refusal on a device without a logged-in user."""
    return Refused(
        Code.NOT_LOGGED_IN, "no user is logged in on this device", hint("log in", "login", "USER")
    )


def not_active(user: str | None) -> Refused:
    """Refusal on a device on which ``user`` is not active: none is logged in, or not yet."""
    if user is None:
        return not_logged_in()
    return Refused(
        Code.BUSY,
        f"{user} is not active on this device yet: the tracker has not accepted its address",
        hint("see why", "doctor"),
    )


def no_group(group: str) -> Refused:
    """Refusal for a group that does not exist or is not the user's; it does not tell which."""
    return Refused(
        Code.UNKNOWN_GROUP,
        f"you are not a member of the group {quoted(group)}",
        hint("ask to join", "join-group", group),
    )


def still_pending(group: str) -> Refused:
    """Refusal for a group that the user has asked to join, and whose owner has not answered."""
    return Refused(
        Code.UNKNOWN_GROUP,
        f"you asked to join {quoted(group)}, and its owner has not answered yet",
        hint("see when the owner does", "watch", group),
    )


def check_new_password(password: str) -> None:
    """Refuse a password that is too short for a new account or a change.

    Shorter passwords of existing accounts remain valid.
    """
    if len(password) < limits.PASSWORD_CHARACTERS_MIN:
        raise Refused(
            Code.USAGE,
            f"a new password has at least {limits.PASSWORD_CHARACTERS_MIN} characters,"
            f" this one has {len(password)}",
            "choose a longer one",
        )
