"""What the tracker and the peers refuse alike, in the same words.

A user cannot tell which of the two answered, and should not have to.
"""

from __future__ import annotations

from common import limits
from common.errors import Refused
from common.hints import hint
from common.messages.refusals import Code
from common.names import quoted


def not_logged_in() -> Refused:
    """Nobody is logged in on this device."""
    return Refused(
        Code.NOT_LOGGED_IN, "nobody is logged in on this device", hint("log in", "login", "USER")
    )


def no_group(group: str) -> Refused:
    """A group that is not there, or none of the user's: which of them is not told."""
    return Refused(
        Code.UNKNOWN_GROUP,
        f"you are not a member of the group {quoted(group)}",
        hint("ask to join", "join-group", group),
    )


def still_pending(group: str) -> Refused:
    """A group that the user has asked to join, and whose owner has not answered."""
    return Refused(
        Code.UNKNOWN_GROUP,
        f"you asked to join {quoted(group)}, and its owner has not answered yet",
        hint("see when the owner does", "watch", group),
    )


def check_new_password(password: str) -> None:
    """Refuse a password that is too short for a new account or a change. Those that there are
    still let their users in."""
    if len(password) < limits.PASSWORD_CHARACTERS_MIN:
        raise Refused(
            Code.USAGE,
            f"a new password has at least {limits.PASSWORD_CHARACTERS_MIN} characters,"
            f" this one has {len(password)}",
            "choose a longer one",
        )
