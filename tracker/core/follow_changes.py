"""Durable changes of follows, as values, and what they do to the mirror.

Owns: these types, and the end of follows with a device or a membership. Not here: the other changes
(see tracker.core.changes), and the decisions (see tracker.core.follows).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from common.ids import DeviceKey, GroupId, UserId
from tracker.core.undo import UndoLog


@dataclass(frozen=True, slots=True)
class FollowRecord:
    """A device of ``user`` follows a group; ``globs`` as in `SetFollow`."""

    user: UserId
    globs: tuple[str, ...]
    at_ms: int


@dataclass(frozen=True, slots=True)
class FollowSet:
    """``device`` follows the group; unbinding, `MemberGone` and `GroupDissolved` end it too."""

    group: GroupId
    user: UserId
    device: DeviceKey
    globs: tuple[str, ...]
    at_ms: int


@dataclass(frozen=True, slots=True)
class FollowEnded:
    group: GroupId
    device: DeviceKey


class Followed(Protocol):
    """Group, as far as its follows are concerned."""

    follows: dict[DeviceKey, FollowRecord]


def apply_follow(
    groups: Mapping[GroupId, Followed], change: FollowSet | FollowEnded, undo: UndoLog
) -> None:
    """Apply ``change`` to the mirror."""
    follows = groups[change.group].follows
    if isinstance(change, FollowSet):
        undo.item(follows, change.device)
        follows[change.device] = FollowRecord(change.user, change.globs, change.at_ms)
    else:
        undo.removal(follows, change.device)
        del follows[change.device]


def drop_follows(groups: Iterable[Followed], devices: Iterable[DeviceKey], undo: UndoLog) -> None:
    """End the follows of ``groups`` by ``devices``."""
    gone = list(devices)
    for group in groups:
        for device in gone:
            undo.removal(group.follows, device)
            group.follows.pop(device, None)
