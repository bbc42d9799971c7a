"""Wait for the answer of a group's owner to a request to join.

Why it asks the peer and not the tracker: the peer hears of the answer by itself, so that a wait of
days costs the tracker nothing.
"""

from __future__ import annotations

import sys
import time

from common.errors import Refused, TimedOut
from common.hints import hint
from common.messages import control
from common.messages.refusals import Code
from common.names import fold_id, quoted
from common.shared_refusals import not_logged_in
from peer.cli.console import Console

INTERVAL_S = 0.5


def request_and_wait(console: Console, group: str, timeout: float | None) -> control.Done:
    """Ask to join ``group``; return when the user is a member.

    Raises `Refused` if the owner says no, and `TimedOut` after ``timeout`` seconds.
    """
    ends = None if timeout is None else time.monotonic() + timeout
    try:
        asked = console.request(control.JoinGroup(group))
        if isinstance(asked, control.Done) and sys.stderr.isatty():
            console.report(asked.text)
    except Refused as error:
        if error.code != Code.ALREADY_MEMBER:
            raise
    while True:
        status = console.request(control.Status())
        assert isinstance(status, control.StatusIs)
        if status.user is None:
            raise not_logged_in()
        if status.connected and fold_id(group) not in status.pending:
            return _answered(console, group, status.user)
        if ends is not None and time.monotonic() >= ends:
            raise TimedOut(
                f"the owner of {quoted(group)} has not answered yet; the request stays",
                hint("to withdraw it", "leave-group", group),
            )
        time.sleep(INTERVAL_S)


def _answered(console: Console, group: str, user: str) -> control.Done:
    rows = getattr(console.request(control.ListGroups()), "rows", [])
    for row in rows:
        if row.group == fold_id(group) and row.role in ("member", "owner"):
            changed = {"group": row.group, "user": user, "role": row.role}
            return control.Done(f"{user} is a member of {row.group}", changed)
    raise Refused(Code.FAILED, f"the owner of {quoted(group)} did not accept {quoted(user)}")
