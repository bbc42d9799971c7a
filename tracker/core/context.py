"""Decision context: the inputs and outputs of every decision, and checks that many of them share.

Owns: the types between the core and the service, and the look-ups of a caller's user and group. Not
here: the decision on any command.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn, Protocol, TypeAlias, TypeVar

from common.errors import Refused
from common.ids import ContentId, DeviceKey, GroupId, TrackerId, UserId
from common.messages import events, operator, tracker
from common.messages.refusals import Code
from common.names import BadName, group_id, quoted
from common.shared_refusals import no_group, not_logged_in, still_pending
from tracker.core.changes.base import Change
from tracker.core.changes.groups import Logged
from tracker.core.fellows import Fellows
from tracker.core.presence import Presence
from tracker.core.records import Group
from tracker.core.state import State

T = TypeVar("T")
Key = TypeVar("Key", bound=str | tuple[object, ...])


class Rng(Protocol):
    """Random source that the caller passes in; in the service it must be fit for keys."""

    def randbytes(self, n: int, /) -> bytes: ...

    def sample(self, population: Sequence[T], k: int, /) -> list[T]: ...


@dataclass(frozen=True, slots=True)
class Now:
    """One moment on both clocks: wall clock in ms since 1970, monotonic in seconds."""

    wall_ms: int
    mono_s: float


@dataclass(frozen=True, slots=True)
class Caller:
    """Sender of a command: the key that the handshake proved, and the address it came from."""

    device: DeviceKey
    address: str = ""
    request_id: bytes = b""


@dataclass(frozen=True, slots=True)
class TrackerIdentity:
    """Facts about the tracker that do not change while it runs.

    ``inbox_secret``: 32 bytes. ``events``: as in `Welcome`. ``ipc``: it listens on ipc, so all its
    peers are on this machine. ``networked``: other machines can reach it. ``endpoint``: that of its
    link.
    """

    tracker_id: TrackerId
    verify_keys: tuple[bytes, ...]
    inbox_secret: bytes = field(repr=False)
    events: str
    ipc: bool = False
    networked: bool = False
    endpoint: str = ""


@dataclass(slots=True)
class Context:
    """All inputs that a decision may read."""

    identity: TrackerIdentity
    state: State
    presence: Presence
    rng: Rng
    fellows: Fellows = field(default_factory=Fellows)


# -- outcomes -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HashPassword:
    """Hash the password of a new account. Resumes with `commands.PasswordHashed`.

    ``invitation``: hash of the invitation that it is made by, if any.
    """

    user: UserId
    password: str = field(repr=False)
    invitation: bytes | None = None


@dataclass(frozen=True, slots=True)
class CheckPassword:
    """Check ``password`` against ``password_hash``; for None spend the same time and fail.

    Resumes with `commands.PasswordRight`. ``trusted``: this device is logged in as that user, so
    guesses from other devices do not slow it down. ``invitation``: hash of the one to redeem after
    the login, if any.
    """

    user: UserId
    password: str = field(repr=False)
    password_hash: str | None = field(repr=False)
    trusted: bool
    invitation: bytes | None = None


@dataclass(frozen=True, slots=True)
class ReplacePassword:
    """Check ``old`` against ``password_hash`` and hash ``new``.

    Resumes with `commands.PasswordChecked`. The device is logged in, and so trusted in the sense of
    `CheckPassword`.
    """

    user: UserId
    old: str = field(repr=False)
    password_hash: str = field(repr=False)
    new: str = field(repr=False)
    keep_devices: bool


@dataclass(frozen=True, slots=True)
class TakePart:
    """Add a part of a manifest. When it is complete, resumes with `commands.ManifestGathered`."""

    user: UserId
    content: ContentId
    total_bytes: int
    offset: int


@dataclass(frozen=True, slots=True)
class ReadPart:
    """Reply with the manifest's bytes from ``offset``."""

    content: ContentId
    offset: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class ReadLog:
    """Reply with the log's entries after ``after`` and up to ``head``.

    If the first of them is no longer kept, the reply includes ``snapshot``, as of ``head``.
    """

    group: GroupId
    after: int
    head: int
    snapshot: tracker.GroupState


@dataclass(frozen=True, slots=True)
class SignTickets:
    """Reply with a ticket for each group and its epoch."""

    user: UserId
    groups: tuple[tuple[GroupId, int], ...]


@dataclass(frozen=True, slots=True)
class ProbeDevice:
    """Reply whether ``device`` of ``user`` can be connected to at ``endpoint``."""

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
"""Slow step that the service does before there is a reply."""


@dataclass(frozen=True, slots=True)
class Nudge:
    """Hint to ``device``, in its inbox, to refresh its groups."""

    device: DeviceKey


@dataclass(frozen=True, slots=True)
class RenewLease:
    """New lease of ``device``, which is online. ``elsewhere``: as in `Announced`."""

    device: DeviceKey
    user: UserId
    endpoint: str
    leeching: tuple[tuple[GroupId, ContentId, int], ...]
    instance: bytes = b""
    rates: tuple[int, int] = (0, 0)
    elsewhere: bool = False


@dataclass(frozen=True, slots=True)
class ReleaseLease:
    device: DeviceKey


SoftEffect: TypeAlias = Nudge | RenewLease | ReleaseLease
"""Effect of a decision that is not durable."""


Reply: TypeAlias = tracker.Reply | operator.Answer
"""Reply to a device, or to the operator."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Outcome of a command, with either ``reply`` or ``deferred``.

    Invariant: ``changes`` are committed first. Then ``effects`` take effect, and ``reply`` is sent
    or ``deferred`` is started.
    """

    reply: Reply | None = None
    changes: tuple[Change, ...] = ()
    effects: tuple[SoftEffect, ...] = ()
    deferred: Deferred | None = None


# -- shared checks ------------------------------------------------------------------------------


def user_of(state: State, caller: Caller) -> UserId:
    """Return the user who is logged in on the caller's device. Raise `Refused` if there is none."""
    user = state.user_on(caller.device)
    if user is None:
        if caller.device in state.devices:
            raise disabled(state.devices[caller.device])
        raise not_logged_in()
    return user


def disabled(user: UserId) -> Refused:
    """Return the refusal for a disabled account; peers take it for the end of the login."""
    return Refused(
        Code.NOT_LOGGED_IN,
        f"the account {quoted(user)} is disabled",
        "ask the operator of the tracker",
    )


def refuse_group(text: str) -> NoReturn:
    """Refuse a group that does not exist and one that the caller is not in with the same text."""
    raise no_group(text)


def find_group(state: State, text: str) -> Group | None:
    """Return the group that ``text`` names, whether or not the caller is a member."""
    try:
        return state.groups.get(group_id(text))
    except BadName:
        return None


def group_of(state: State, user: UserId, text: str) -> Group:
    """Return the group that ``text`` names and that ``user`` is a member of. Raise `Refused`."""
    group = find_group(state, text)
    if group is None or user not in group.members:
        if group is not None and user in group.requests:
            raise still_pending(group.id)
        refuse_group(text)
    return group


def owned_group(state: State, user: UserId, text: str) -> Group:
    """Return the group that ``text`` names and that ``user`` owns. Raise `Refused`."""
    group = group_of(state, user, text)
    if group.owner != user:
        raise Refused(
            Code.NOT_OWNER,
            f"only the owner of {quoted(group.id)}, who is {quoted(group.owner)}, can do that",
        )
    return group


def page(keys: Sequence[Key], after: Key, rows: int = tracker.PAGE_ROWS) -> tuple[list[Key], bool]:
    """Return the next ``rows`` of the sorted ``keys`` after ``after``, and whether more follow."""
    start = bisect.bisect_right(keys, after) if after else 0
    return list(keys[start : start + rows]), start + rows < len(keys)


def nudges(state: State, user: UserId) -> tuple[Nudge, ...]:
    """Return a nudge for each device of ``user``."""
    return tuple(Nudge(device) for device in state.devices_of.get(user, ()))


class LogAppender:
    """Numbers the log entries of one group within one decision, and picks the key of each.

    The entry that begins a new epoch is sealed with the old key; entries after `rekey` with the
    fresh one.
    """

    def __init__(self, group: Group, now: Now) -> None:
        self.seq = group.seq
        self.epoch = group.epoch
        self._group = group
        self._key = group.key
        self._now = now

    def add(self, event: events.GroupEvent, *, epoch: int | None = None) -> Logged:
        """Return the next entry; ``epoch``: the one that this event begins, if it does."""
        self.seq += 1
        entry = events.LogEntry(
            self._group.id, self.seq, self._now.wall_ms, epoch or self.epoch, event
        )
        return Logged(entry, self._group.topic, self._key, self.epoch)

    def rekey(self, epoch: int, key: bytes) -> None:
        """Write further entries under ``epoch``."""
        self.epoch, self._key = epoch, key


def fingerprint_of(*parts: bytes) -> bytes:
    """Return 16 bytes that tell one command from another."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(4, "big") + part)
    return digest.digest()
