"""The vocabulary between the deciding core of the peer and its shell.

Owns the events that the core is told of and the effects that it asks for. It decides nothing, and
says nothing of sockets, frames, files or threads: the shell turns those into events and carries the
effects out, in the order given.

Two machines speak it. ``Download`` fetches one content; ``Serving`` answers all who fetch from
this peer. Sizes and counts are bytes, times are seconds of one monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, unique
from typing import NewType, TypeAlias

from common.ids import ContentId, DeviceKey, UserId
from peer.swarm.pieces import Bitfield

SourceId: TypeAlias = DeviceKey
"""Whom we fetch from: the device is the identity, its connections come and go."""

RequesterId = NewType("RequesterId", bytes)
"""Who fetches from us: one connection, so that its credit starts at nought with it."""


@unique
class Verdict(Enum):
    """Why a source is closed: what the download thinks of it."""

    FINISHED = "finished"
    """Nothing more is needed: the download is complete."""
    REPLACED = "replaced"
    """It did its work, but a spare source promises more."""
    SLOW = "slow"
    """Far below the others, or without any progress."""
    BUSY = "busy"
    """It says that too many ask it; it may be asked again later."""
    UNREACHABLE = "unreachable"
    """No connection came about, or it was lost."""
    REFUSED = "refused"
    """It does not give to us."""
    USELESS = "useless"
    """It offers nothing that is missing here, or had not what it offered."""
    WRONG = "wrong"
    """A piece that came whole from it failed its digest: banned for good."""
    GONE = "gone"
    """The tracker says that it has left."""


@unique
class DiscardReason(Enum):
    """Why the buffer of a piece that came is dropped unread."""

    UNREQUESTED = "unrequested"
    """Never asked of this source: counts against it."""
    DUPLICATE = "duplicate"
    """Asked for, but another source was quicker."""
    WRONG_SIZE = "wrong size"
    """A peer that counts otherwise than the manifest: counts against it."""
    PAUSED = "paused"
    """Came after the download was paused."""
    BANNED = "banned"
    """Came from a source that served wrong bytes."""


@unique
class DeclineReason(Enum):
    """Why requests are not going to be answered."""

    BUSY = "busy"
    """The queue is full; ask again in a while, or elsewhere."""
    NOT_HELD = "not held"
    """This peer has not got the piece."""
    UNKNOWN_CONTENT = "unknown content"
    """This peer does not offer that content."""
    OUT_OF_RANGE = "out of range"
    """The content has no such piece."""


# --- What happens to a download ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SourceKnown:
    """The tracker lists a device that offers (`complete`) or fetches the content; repeatable."""

    source: SourceId
    user: UserId
    complete: bool


@dataclass(frozen=True, slots=True)
class SourceGone:
    """The tracker says that the device is offline or has withdrawn its offer."""

    source: SourceId


@dataclass(frozen=True, slots=True)
class Opened:
    """The source answered `Open`. `have` is what it holds; None means every piece.

    The download keeps `have` and writes into it: hand over a bitfield of its own.
    """

    source: SourceId
    have: Bitfield | None


@dataclass(frozen=True, slots=True)
class HaveMore:
    """The source holds these pieces too."""

    source: SourceId
    pieces: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PieceCame:
    """A whole piece of `size` bytes is in a buffer of the shell, not yet digested."""

    source: SourceId
    index: int
    size: int


@dataclass(frozen=True, slots=True)
class PieceVerified:
    """The piece has the right digest and is written."""

    source: SourceId
    index: int


@dataclass(frozen=True, slots=True)
class PieceCorrupt:
    """The piece failed its digest."""

    source: SourceId
    index: int


@dataclass(frozen=True, slots=True)
class PieceUnwritten:
    """The piece could not be stored: trouble on this side, no fault of the source."""

    source: SourceId
    index: int
    reason: str


@dataclass(frozen=True, slots=True)
class SourceBusy:
    """The source declined these requests (all that are outstanding when empty) for a while."""

    source: SourceId
    retry_after_s: float
    pieces: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceRefused:
    """The source gives us nothing: for a while when `transient`, else until it is listed anew."""

    source: SourceId
    transient: bool
    why: str


@dataclass(frozen=True, slots=True)
class PiecesRefused:
    """The source has these pieces no more (or never had)."""

    source: SourceId
    pieces: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SourceUnreachable:
    """`Open` led to no connection."""

    source: SourceId


@dataclass(frozen=True, slots=True)
class SourceClosed:
    """An opened connection was lost, with everything that was asked on it. It may come back."""

    source: SourceId


@dataclass(frozen=True, slots=True)
class Paused:
    """Ask for nothing more until `Resumed` (the user's wish, or a full disk)."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """Go on."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed: send it when `next_wakeup` is reached. Either machine takes it."""


DownloadEvent: TypeAlias = (
    SourceKnown
    | SourceGone
    | Opened
    | HaveMore
    | PieceCame
    | PieceVerified
    | PieceCorrupt
    | PieceUnwritten
    | SourceBusy
    | SourceRefused
    | PiecesRefused
    | SourceUnreachable
    | SourceClosed
    | Paused
    | Resumed
    | Tick
)


# --- What a download asks for --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Open:
    """Connect to the source and open the content with it.

    Answer with `Opened`, `SourceRefused`, `SourceBusy`, `SourceUnreachable` or `SourceClosed`.
    """

    source: SourceId


@dataclass(frozen=True, slots=True)
class Request:
    """Ask the source for these pieces, in this order of wish."""

    source: SourceId
    pieces: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """Tell the source that these are not wanted any longer; what is on its way may still come."""

    source: SourceId
    pieces: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Credit:
    """Tell the source how much has come: it waits for that, and no request is due to carry it.

    Every `Request` carries the same count, so credit needs no timer of the shell.
    """

    source: SourceId


@dataclass(frozen=True, slots=True)
class Verify:
    """Digest the piece in the buffer, write it, and report how that went."""

    source: SourceId
    index: int


@dataclass(frozen=True, slots=True)
class Discard:
    """Drop the buffer of a piece that came."""

    source: SourceId
    index: int
    why: DiscardReason


@dataclass(frozen=True, slots=True)
class Close:
    """Drop the connection for this content. Nothing of the source is expected any longer."""

    source: SourceId
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell those who fetch this content from us that we hold these pieces too."""

    pieces: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Complete:
    """Every piece is held. The digest of the whole and the rename are the shell's."""


DownloadEffect: TypeAlias = (
    Open | Request | CancelRequest | Credit | Verify | Discard | Close | Announce | Complete
)


# --- What happens to the serving side ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ContentAdded:
    """This peer offers a content of `size` bytes in pieces of `piece_length`.

    `have` is what it holds of it, copied; None means every piece.
    """

    content: ContentId
    piece_length: int
    size: int
    have: Bitfield | None = None


@dataclass(frozen=True, slots=True)
class ContentRemoved:
    """The content is offered no longer; what waits for it is dropped with a decline."""

    content: ContentId


@dataclass(frozen=True, slots=True)
class HeldMore:
    """Pieces of an unfinished content were verified: they may be served from this moment."""

    content: ContentId
    pieces: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class HeldLess:
    """Pieces were found damaged: they are not served any longer."""

    content: ContentId
    pieces: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """A requester wants pieces, in its order of wish.

    `received_bytes` is all the piece data that it has got on this connection so far.
    """

    requester: RequesterId
    user: UserId
    content: ContentId
    pieces: tuple[int, ...]
    received_bytes: int


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A requester has no more use for these; what is committed already still goes."""

    requester: RequesterId
    content: ContentId
    pieces: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Abandoned:
    """A requester has no more use for anything of a content: it closed it, or lost the right."""

    requester: RequesterId
    content: ContentId


@dataclass(frozen=True, slots=True)
class Credited:
    """All the piece data that the requester has got on this connection so far, in bytes."""

    requester: RequesterId
    received_bytes: int


@dataclass(frozen=True, slots=True)
class Left:
    """The requester's connection is gone, and everything that it wanted."""

    requester: RequesterId


@dataclass(frozen=True, slots=True)
class Blocked:
    """The socket did not take the piece of a `Send`: it was not sent, and must be tried again."""

    requester: RequesterId
    content: ContentId
    index: int


ServingEvent: TypeAlias = (
    ContentAdded
    | ContentRemoved
    | HeldMore
    | HeldLess
    | Asked
    | Withdrawn
    | Abandoned
    | Credited
    | Left
    | Blocked
    | Tick
)


# --- What the serving side asks for --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """Read the piece and send it: it counts as committed until the requester credits it.

    A piece that cannot be read after all: report `HeldLess` and `Blocked`, in this order.
    """

    requester: RequesterId
    content: ContentId
    index: int


@dataclass(frozen=True, slots=True)
class Decline:
    """Tell the requester that these will not come; for `BUSY`, to ask again after a while."""

    requester: RequesterId
    content: ContentId
    pieces: tuple[int, ...]
    why: DeclineReason
    retry_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Drop:
    """Close the connection of a requester that takes pieces and never says so."""

    requester: RequesterId


ServingEffect: TypeAlias = Send | Decline | Drop
