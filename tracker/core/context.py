"""What goes into a decision and what comes out of it.

Owns the shapes that the deciding modules share, and the few questions that all of them ask first:
who is it, which group is meant, is it theirs. Decides no command itself.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn, Protocol, TypeAlias, TypeVar

from common.errors import Refused
from common.ids import ContentId, DeviceKey, GroupId, TrackerId, UserId
from common.messages import events, tracker
from common.messages.refusals import Code
from common.names import BadName, group_id, quoted
from common.shared_refusals import no_group, not_logged_in, still_pending
from tracker.core.changes import Change, Logged
from tracker.core.presence import Presence
from tracker.core.records import Group
from tracker.core.state import State

T = TypeVar("T")
Key = TypeVar("Key", bound=str | tuple[str, str])


class Rng(Protocol):
    """The source of randomness that is passed in; the shell's must be fit for keys."""

    def randbytes(self, n: int, /) -> bytes: ...

    def sample(self, population: Sequence[T], k: int, /) -> list[T]: ...


@dataclass(frozen=True, slots=True)
class Now:
    """One moment on both clocks: dates in ms since 1970, timers in seconds."""

    wall_ms: int
    mono_s: float


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a command: the key that the handshake proved, and the address it came from."""

    device: DeviceKey
    address: str = ""
    request_id: bytes = b""


@dataclass(frozen=True, slots=True)
class TrackerIdentity:
    """What does not change while a tracker runs. ``inbox_secret``: 32 bytes; ``events``: as in
    `Welcome`; ``ipc``: whether it listens on ipc, so that all its peers are on this machine;
    ``networked``: whether other machines can reach it."""

    tracker_id: TrackerId
    verify_keys: tuple[bytes, ...]
    inbox_secret: bytes = field(repr=False)
    events: str
    ipc: bool = False
    networked: bool = False


@dataclass(slots=True)
class Context:
    """All that a decision may look at."""

    identity: TrackerIdentity
    state: State
    presence: Presence
    rng: Rng


# -- what comes out -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HashPassword:
    """Hash the password of an account to be made; then decide `commands.PasswordHashed`."""

    user: UserId
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class CheckPassword:
    """Check ``password`` against ``password_hash``, or for None spend the same time and fail: then
    decide `commands.PasswordRight`. ``trusted``: this device is logged in as that user, so that
    guesses of others do not slow it down."""

    user: UserId
    password: str = field(repr=False)
    password_hash: str | None = field(repr=False)
    trusted: bool


@dataclass(frozen=True, slots=True)
class ReplacePassword:
    """Check ``old`` against ``password_hash`` and hash ``new``: then decide
    `commands.PasswordChecked`. Only a device that is logged in can ask for it, which makes it a
    trusted one in the sense of `CheckPassword`."""

    user: UserId
    old: str = field(repr=False)
    password_hash: str = field(repr=False)
    new: str = field(repr=False)
    keep_devices: bool


@dataclass(frozen=True, slots=True)
class TakePart:
    """A part of a manifest to be gathered: when it is whole decide `commands.ManifestGathered`."""

    user: UserId
    content: ContentId
    total_bytes: int
    offset: int


@dataclass(frozen=True, slots=True)
class ReadPart:
    """Answer with the manifest's bytes from ``offset``."""

    content: ContentId
    offset: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class ReadLog:
    """Answer with the log's entries after ``after`` and up to ``head``, and with ``snapshot``,
    which is as of ``head``, if the next one is no longer kept."""

    group: GroupId
    after: int
    head: int
    snapshot: tracker.GroupState


@dataclass(frozen=True, slots=True)
class SignTickets:
    """Answer with a ticket for each group and its epoch."""

    user: UserId
    groups: tuple[tuple[GroupId, int], ...]


@dataclass(frozen=True, slots=True)
class ProbeDevice:
    """Answer with whether ``device`` of ``user`` can be connected to at ``endpoint``."""

    user: UserId
    device: DeviceKey
    endpoint: str


Deferred: TypeAlias = (
    HashPassword
    | CheckPassword
    | ReplacePassword
    | TakePart
    | ReadPart
    | ReadLog
    | SignTickets
    | ProbeDevice
)
"""What only the shell can do before there is an answer."""


@dataclass(frozen=True, slots=True)
class Nudge:
    """Tell ``device``, by its inbox, to look at its groups again."""

    device: DeviceKey


@dataclass(frozen=True, slots=True)
class RenewLease:
    """``device`` is there for another lease."""

    device: DeviceKey
    user: UserId
    endpoint: str
    leeching: tuple[tuple[GroupId, ContentId, int], ...]
    instance: bytes = b""


@dataclass(frozen=True, slots=True)
class ReleaseLease:
    device: DeviceKey


SoftEffect: TypeAlias = Nudge | RenewLease | ReleaseLease
"""What a decision does that need not last."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Outcome of a command, with either ``reply`` or ``deferred``.

    Invariant: ``changes`` are committed first. Then ``effects`` take effect, and ``reply`` is sent
    or ``deferred`` is started.
    """

    reply: tracker.Reply | None = None
    changes: tuple[Change, ...] = ()
    effects: tuple[SoftEffect, ...] = ()
    deferred: Deferred | None = None


# -- what all of them ask -----------------------------------------------------------------------


def user_of(state: State, caller: Caller) -> UserId:
    """Who is logged in on the actor's device. Raises `Refused`."""
    user = state.devices.get(caller.device)
    if user is None:
        raise not_logged_in()
    return user


def refuse_group(text: str) -> NoReturn:
    """Refuse in the same words a group that is not there and one that is none of the asker's."""
    raise no_group(text)


def find_group(state: State, text: str) -> Group | None:
    """The group that ``text`` names, to whomever it belongs."""
    try:
        return state.groups.get(group_id(text))
    except BadName:
        return None


def group_of(state: State, user: UserId, text: str) -> Group:
    """The group that ``text`` names and that ``user`` is a member of. Raises `Refused`."""
    group = find_group(state, text)
    if group is None or user not in group.members:
        if group is not None and user in group.requests:
            raise still_pending(group.id)
        refuse_group(text)
    return group


def owned_group(state: State, user: UserId, text: str) -> Group:
    """The group that ``text`` names and that ``user`` owns. Raises `Refused`."""
    group = group_of(state, user, text)
    if group.owner != user:
        raise Refused(
            Code.NOT_OWNER,
            f"only the owner of {quoted(group.id)}, who is {quoted(group.owner)}, can do that",
        )
    return group


def page(keys: Sequence[Key], after: Key, rows: int = tracker.PAGE_ROWS) -> tuple[list[Key], bool]:
    """The next ``rows`` of the sorted ``keys`` after ``after``, and whether there are more."""
    start = bisect.bisect_right(keys, after) if after else 0
    return list(keys[start : start + rows]), start + rows < len(keys)


def nudges(state: State, user: UserId) -> tuple[Nudge, ...]:
    """A nudge for every device of ``user``."""
    return tuple(Nudge(device) for device in state.devices_of.get(user, ()))


class LogAppender:
    """Numbers and seals the log entries of one group within one decision.

    An entry is sealed with the key of the epoch in which it comes; what comes after `rekey` with
    the fresh one, while the entry that tells of the fresh epoch is still sealed with the old one.
    """

    def __init__(self, group: Group, now: Now) -> None:
        self.seq = group.seq
        self.epoch = group.epoch
        self._group = group
        self._key = group.key
        self._now = now

    def add(self, event: events.GroupEvent, *, epoch: int | None = None) -> Logged:
        """The next entry; ``epoch``: the group's once this has happened, if it is a later one."""
        self.seq += 1
        entry = events.LogEntry(
            self._group.id, self.seq, self._now.wall_ms, epoch or self.epoch, event
        )
        return Logged(entry, self._group.topic, self._key, self.epoch)

    def rekey(self, epoch: int, key: bytes) -> None:
        """Entries from here on belong to ``epoch``."""
        self.epoch, self._key = epoch, key


def fingerprint_of(*parts: bytes) -> bytes:
    """16 bytes that tell one command from another."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(4, "big") + part)
    return digest.digest()
