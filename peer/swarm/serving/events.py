"""Events and effects of the serving machine.

Owns: the values that pass between `Serving` and its driver. Not here: sockets, frames, files and
threads; the driver turns those into events, and carries out the effects in the order given.

Sizes and counts are bytes; times are seconds of one monotonic clock.
"""

from __future__ import annotations

from enum import Enum, unique
from typing import NewType, TypeAlias

from common.ids import ContentId, UserId
from peer.swarm.pieces import Bitfield
from peer.swarm.value import Value

RequesterId = NewType("RequesterId", bytes)
"""One connection of a device that fetches from us. Why not the device: the count of received bytes
starts at zero with every connection."""


@unique
class DeclineReason(Enum):
    """Reason for which requests are declined."""

    BUSY = "busy"
    """The queue is full: retry later, or elsewhere."""
    NOT_HELD = "not held"
    """This peer does not hold the piece."""
    UNKNOWN_CONTENT = "unknown content"
    """This peer does not offer that content."""
    OUT_OF_RANGE = "out of range"
    """The content has no such piece."""


# --- Events --------------------------------------------------------------------------------------


class ContentAdded(Value, frozen=True):
    """New content at this peer of `size` bytes in pieces of `piece_length`.

    `have` are the pieces that this peer holds; it is copied. None means every piece.
    """

    content: ContentId
    piece_length: int
    size: int
    have: Bitfield | None = None


class ContentRemoved(Value, frozen=True):
    """The content is no longer offered; waiting requests for it are declined."""

    content: ContentId


class HeldMore(Value, frozen=True):
    """Pieces of an unfinished content were verified: they may be served from now on."""

    content: ContentId
    pieces: tuple[int, ...]


class HeldLess(Value, frozen=True):
    """Pieces were found damaged: they are no longer served."""

    content: ContentId
    pieces: tuple[int, ...]


class RequestReceived(Value, frozen=True):
    """A requester requests pieces, in its order of preference.

    `received_bytes` is all the piece data that it has received on this connection so far.
    """

    requester: RequesterId
    user: UserId
    content: ContentId
    pieces: tuple[int, ...]
    received_bytes: int


class RequestCancelled(Value, frozen=True):
    """A requester cancels requests; pieces that are being sent still go."""

    requester: RequesterId
    content: ContentId
    pieces: tuple[int, ...]


class ContentClosed(Value, frozen=True):
    """A requester closed a content, or lost the right to it: all its requests for it end."""

    requester: RequesterId
    content: ContentId


class Acknowledged(Value, frozen=True):
    """A requester acknowledges all the piece data received on its connection so far, in bytes."""

    requester: RequesterId
    received_bytes: int


class RequesterGone(Value, frozen=True):
    """The requester's connection is gone, with all its requests."""

    requester: RequesterId


class SendBlocked(Value, frozen=True):
    """The socket did not accept the piece of a `Send`: it was not sent, and must be retried."""

    requester: RequesterId
    content: ContentId
    index: int


class SendDropped(Value, frozen=True):
    """The piece of a `Send` was not sent, and the requester no longer waits for it."""

    requester: RequesterId
    content: ContentId
    index: int


class Tick(Value, frozen=True):
    """Time has passed: send it when `next_wakeup` is reached."""


ServingEvent: TypeAlias = (
    ContentAdded
    | ContentRemoved
    | HeldMore
    | HeldLess
    | RequestReceived
    | RequestCancelled
    | ContentClosed
    | Acknowledged
    | RequesterGone
    | SendBlocked
    | SendDropped
    | Tick
)


# --- Effects -------------------------------------------------------------------------------------


class Send(Value, frozen=True):
    """Read the piece and send it. It is in flight until the requester acknowledges it.

    `notify`: first tell the requester that the piece is on its way. If the piece cannot be read:
    report `HeldLess` and `SendBlocked`, in this order.
    """

    requester: RequesterId
    content: ContentId
    index: int
    notify: bool = False


class Decline(Value, frozen=True):
    """Report to the requester that these pieces will not come; for `BUSY`, when to retry."""

    requester: RequesterId
    content: ContentId
    pieces: tuple[int, ...]
    why: DeclineReason
    retry_after_s: float = 0.0


class Drop(Value, frozen=True):
    """Close the connection of a requester that takes pieces and does not acknowledge them."""

    requester: RequesterId


ServingEffect: TypeAlias = Send | Decline | Drop
