"""The vocabulary between the deciding core of the peer and its shell.

Owns the events that the core is told of and the effects that it asks for. It decides nothing, and
says nothing of sockets, frames, files or threads: the shell turns those into events and carries the
effects out, in the order given.

Two machines speak it. ``Download`` fetches one content; ``Serving`` answers all who fetch from
this peer. Sizes and counts are bytes, times are seconds of one monotonic clock.
"""

from __future__ import annotations

from enum import Enum, unique
from typing import NewType, TypeAlias

import msgspec

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
    SLOW = "slow"
    """Far below the others, or without any progress."""
    SILENT = "silent"
    """It owes something and nothing came: its connection begins anew, for something may be lost."""
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


class _Value(msgspec.Struct, frozen=True, gc=False):
    """A value. Several are made for every piece, at a tenth of a frozen dataclass's cost."""


# --- What happens to a download ------------------------------------------------------------------


class SourceKnown(_Value, frozen=True):
    """The tracker lists a device that offers (`complete`) or fetches the content; repeatable."""

    source: SourceId
    user: UserId
    complete: bool


class SourceGone(_Value, frozen=True):
    """The tracker says that the device is offline or has withdrawn its offer."""

    source: SourceId


class Opened(_Value, frozen=True):
    """The source answered `Open`. `have` is what it holds; None means every piece.

    The download keeps `have` and writes into it: hand over a bitfield of its own.
    """

    source: SourceId
    have: Bitfield | None


class HaveMore(_Value, frozen=True):
    """The source holds these pieces too."""

    source: SourceId
    pieces: tuple[int, ...]


class PieceReceived(_Value, frozen=True):
    """A whole piece of `size` bytes is in a buffer of the shell, not yet digested."""

    source: SourceId
    index: int
    size: int


class PieceVerified(_Value, frozen=True):
    """The piece has the right digest and is written."""

    source: SourceId
    index: int


class PieceCorrupt(_Value, frozen=True):
    """The piece failed its digest."""

    source: SourceId
    index: int


class PieceUnwritten(_Value, frozen=True):
    """The piece could not be stored: trouble on this side, no fault of the source."""

    source: SourceId
    index: int
    reason: str


class PieceMade(_Value, frozen=True):
    """The piece of a `Make` has the right digest and is written."""

    index: int


class PieceNotMade(_Value, frozen=True):
    """The piece of a `Make` could not be made or stored: it is tried again in a while."""

    index: int


class SourceBusy(_Value, frozen=True):
    """The source declined these requests (all that are outstanding when empty) for a while."""

    source: SourceId
    retry_after_s: float
    pieces: tuple[int, ...] = ()


class SourceRefused(_Value, frozen=True):
    """The source gives us nothing: for a while when `transient`, else until it is listed anew."""

    source: SourceId
    transient: bool
    why: str


class PiecesRefused(_Value, frozen=True):
    """The source has these pieces no more (or never had)."""

    source: SourceId
    pieces: tuple[int, ...]


class SourceUnreachable(_Value, frozen=True):
    """`Open` led to no connection."""

    source: SourceId


class SourceClosed(_Value, frozen=True):
    """An opened connection was lost, with everything that was asked on it. It may come back."""

    source: SourceId


class SourceMoves(_Value, frozen=True):
    """Bytes of the source came in at `at`, though no whole message: a piece is on its way."""

    source: SourceId
    at: float


class Paused(_Value, frozen=True):
    """Ask for nothing more until `Resumed` (the user's wish, or a full disk)."""


class Resumed(_Value, frozen=True):
    """Go on."""


class Tick(_Value, frozen=True):
    """Time has passed: send it when `next_wakeup` is reached. Either machine takes it."""


DownloadEvent: TypeAlias = (
    SourceKnown
    | SourceGone
    | Opened
    | HaveMore
    | PieceReceived
    | PieceVerified
    | PieceCorrupt
    | PieceUnwritten
    | PieceMade
    | PieceNotMade
    | SourceBusy
    | SourceRefused
    | PiecesRefused
    | SourceUnreachable
    | SourceClosed
    | SourceMoves
    | Paused
    | Resumed
    | Tick
)


# --- What a download asks for --------------------------------------------------------------------


class Open(_Value, frozen=True):
    """Connect to the source and open the content with it.

    Answer with `Opened`, `SourceRefused`, `SourceBusy`, `SourceUnreachable` or `SourceClosed`.
    """

    source: SourceId


class Request(_Value, frozen=True):
    """Ask the source for these pieces, in this order of wish."""

    source: SourceId
    pieces: tuple[int, ...]


class CancelRequest(_Value, frozen=True):
    """Tell the source that these are not wanted any longer; what is on its way may still come."""

    source: SourceId
    pieces: tuple[int, ...]


class Credit(_Value, frozen=True):
    """Tell the source how much has come: it waits for that, and no request is due to carry it.

    Every `Request` carries the same count, so credit needs no timer of the shell.
    """

    source: SourceId


class Verify(_Value, frozen=True):
    """Digest the piece in the buffer, write it, and report how that went."""

    source: SourceId
    index: int


class Make(_Value, frozen=True):
    """Make the piece without any source: as a copy of the held piece ``like``, or of zeros (None).

    Answer with `PieceMade` or `PieceNotMade`; report first if ``like`` turned out damaged.
    """

    index: int
    like: int | None


class Discard(_Value, frozen=True):
    """Drop the buffer of a piece that came."""

    source: SourceId
    index: int
    why: DiscardReason


class Close(_Value, frozen=True):
    """Drop the connection for this content. Nothing of the source is expected any longer. With
    `Verdict.SILENT` the connection itself is dropped: the next `Open` makes another one."""

    source: SourceId
    verdict: Verdict


class Announce(_Value, frozen=True):
    """Tell those who fetch this content from us that we hold these pieces too."""

    pieces: tuple[int, ...]


class Complete(_Value, frozen=True):
    """Every piece is held. The digest of the whole and the rename are the shell's."""


DownloadEffect: TypeAlias = (
    Open | Request | CancelRequest | Credit | Verify | Make | Discard | Close | Announce | Complete
)


# --- What happens to the serving side ------------------------------------------------------------


class ContentAdded(_Value, frozen=True):
    """This peer offers a content of `size` bytes in pieces of `piece_length`.

    `have` is what it holds of it, copied; None means every piece.
    """

    content: ContentId
    piece_length: int
    size: int
    have: Bitfield | None = None


class ContentRemoved(_Value, frozen=True):
    """The content is offered no longer; what waits for it is dropped with a decline."""

    content: ContentId


class HeldMore(_Value, frozen=True):
    """Pieces of an unfinished content were verified: they may be served from this moment."""

    content: ContentId
    pieces: tuple[int, ...]


class HeldLess(_Value, frozen=True):
    """Pieces were found damaged: they are not served any longer."""

    content: ContentId
    pieces: tuple[int, ...]


class Asked(_Value, frozen=True):
    """A requester wants pieces, in its order of wish.

    `received_bytes` is all the piece data that it has got on this connection so far.
    """

    requester: RequesterId
    user: UserId
    content: ContentId
    pieces: tuple[int, ...]
    received_bytes: int


class Withdrawn(_Value, frozen=True):
    """A requester has no more use for these; what is committed already still goes."""

    requester: RequesterId
    content: ContentId
    pieces: tuple[int, ...]


class Abandoned(_Value, frozen=True):
    """A requester has no more use for anything of a content: it closed it, or lost the right."""

    requester: RequesterId
    content: ContentId


class Credited(_Value, frozen=True):
    """All the piece data that the requester has got on this connection so far, in bytes."""

    requester: RequesterId
    received_bytes: int


class Left(_Value, frozen=True):
    """The requester's connection is gone, and everything that it wanted."""

    requester: RequesterId


class Blocked(_Value, frozen=True):
    """The socket did not take the piece of a `Send`: it was not sent, and must be tried again."""

    requester: RequesterId
    content: ContentId
    index: int


class Unsent(_Value, frozen=True):
    """The piece of a `Send` was not sent, and nobody waits for it any more."""

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
    | Unsent
    | Tick
)


# --- What the serving side asks for --------------------------------------------------------------


class Send(_Value, frozen=True):
    """Read the piece and send it: it counts as committed until the requester credits it.

    A piece that cannot be read after all: report `HeldLess` and `Blocked`, in this order.
    """

    requester: RequesterId
    content: ContentId
    index: int


class Decline(_Value, frozen=True):
    """Tell the requester that these will not come; for `BUSY`, to ask again after a while."""

    requester: RequesterId
    content: ContentId
    pieces: tuple[int, ...]
    why: DeclineReason
    retry_after_s: float = 0.0


class Drop(_Value, frozen=True):
    """Close the connection of a requester that takes pieces and never says so."""

    requester: RequesterId


ServingEffect: TypeAlias = Send | Decline | Drop
