"""Meter of the command loop: commands by outcome, and how long they and commits take.

Plain numbers that the loop adds to. Not here: their text (see tracker.metrics).
"""

from __future__ import annotations

from collections import Counter

from common.messages import tracker
from common.messages.base import Refusal
from common.messages.refusals import Code
from common.metrics.histogram import Histogram

READ, WRITE, LOGIN = "read", "write", "login"
CLASSES = (READ, WRITE, LOGIN)
OK, REFUSED, ERROR = "ok", "refused", "error"
OUTCOMES = (OK, REFUSED, ERROR)
LOGINS = ("ok", "wrong", "slowed", "other")
DURATIONS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)

# They hash a password, which takes longer than all else.
_LOGINS = (tracker.CreateUser, tracker.Login, tracker.ChangePassword, tracker.Enter)
_READS = (
    tracker.Hello, tracker.ListDevices, tracker.ListGroups, tracker.ListRequests,
    tracker.ListMembers, tracker.MyOffers, tracker.ListFiles, tracker.FindShare,
    tracker.GetSources, tracker.GetManifest, tracker.GetTickets, tracker.GetDevices,
    tracker.EventsSince, tracker.ProbeMe, tracker.ListInvitations, tracker.WhoHas,
)  # fmt: skip
_RESULTS = {Code.WRONG_CREDENTIALS: "wrong", Code.SLOW_DOWN: "slowed"}


class CommandMeter:
    """Counts of commands off the wire. All methods run in the event loop."""

    def __init__(self) -> None:
        self.commands: Counter[tuple[str, str]] = Counter()
        """By the type of the command and its outcome."""
        self.logins: Counter[str] = Counter()
        self.durations = {kind: Histogram(DURATIONS_S) for kind in CLASSES}
        self.commits = Histogram(DURATIONS_S)
        self.batch_size = 0
        """Changes in the last commit."""

    def answered(self, command: object, reply: object, seconds: float) -> None:
        """Count a command, from its arrival to its reply."""
        code = reply.code if isinstance(reply, Refusal) else None
        outcome = OK if code is None else ERROR if code is Code.INTERNAL else REFUSED
        self.commands[type(command).__name__, outcome] += 1
        if isinstance(command, tracker.Login):
            self.logins[OK if code is None else _RESULTS.get(code, "other")] += 1
        kind = WRITE
        if isinstance(command, _READS):
            kind = READ
        elif isinstance(command, _LOGINS):
            kind = LOGIN
        self.durations[kind].observe(seconds)

    def committed(self, changes: int, seconds: float) -> None:
        """Count a commit."""
        self.commits.observe(seconds)
        self.batch_size = changes
