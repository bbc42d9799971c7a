"""Events and effects of the download machine.

Owns: the values that pass between `Download` and its driver. Not here: sockets, frames, files and
threads; the driver turns those into events, and carries out the effects in the order given.

Sizes and counts are bytes; times are seconds of one monotonic clock.
"""

from __future__ import annotations

from enum import Enum, unique
from typing import TypeAlias

from common.ids import DeviceKey, UserId
from peer.swarm.pieces import Bitfield
from peer.swarm.value import Value

SourceId: TypeAlias = DeviceKey
"""A device that is fetched from. Its connections come and go; the device is the identity."""


@unique
class Verdict(Enum):
    """Reason for which a source is closed."""

    FINISHED = "finished"
    """The download is complete."""
    SLOW = "slow"
    """Far slower than the others, or stalled for too long."""
    SILENT = "silent"
    """Requests are in flight and not a byte arrives: a message may be lost, so reconnect."""
    BUSY = "busy"
    """It declared itself busy; it may be opened again later."""
    UNREACHABLE = "unreachable"
    """It could not be connected to, or the connection was lost."""
    REFUSED = "refused"
    """It refuses to serve this device."""
    USELESS = "useless"
    """It offers no missing piece, or did not hold the pieces that it offered."""
    WRONG = "wrong"
    """A whole piece from it failed its digest: banned for good."""
    GONE = "gone"
    """The tracker no longer lists it."""


@unique
class DiscardReason(Enum):
    """Reason for which the buffer of a received piece is dropped unread."""

    UNREQUESTED = "unrequested"
    """Never requested from this source: a strike."""
    DUPLICATE = "duplicate"
    """Requested, but another source was faster."""
    WRONG_SIZE = "wrong size"
    """Not of the size that the manifest gives: a strike."""
    PAUSED = "paused"
    """Arrived after the download was paused."""
    BANNED = "banned"
    """Arrived from a source that has served wrong bytes."""


# --- Events --------------------------------------------------------------------------------------


class SourceKnown(Value, frozen=True):
    """The tracker lists a device that offers (`complete`) or fetches the content. Repeatable."""

    source: SourceId
    user: UserId
    complete: bool


class SourceGone(Value, frozen=True):
    """The tracker reports the device as offline, or its offer as withdrawn."""

    source: SourceId


class Opened(Value, frozen=True):
    """The source answered `Open`. `have` are the pieces that it holds; None means every piece.

    The download keeps `have` and modifies it: pass a bitfield that nothing else uses.
    """

    source: SourceId
    have: Bitfield | None


class HaveMore(Value, frozen=True):
    """The source announces that it holds these pieces too."""

    source: SourceId
    pieces: tuple[int, ...]


class OnItsWay(Value, frozen=True):
    """The source gave these requested pieces to its socket: they arrive without further delay."""

    source: SourceId
    pieces: tuple[int, ...]


class PieceReceived(Value, frozen=True):
    """A whole piece of `size` bytes is in a buffer of the driver, not yet digested."""

    source: SourceId
    index: int
    size: int


class PieceVerified(Value, frozen=True):
    """The piece has the right digest and is written."""

    source: SourceId
    index: int


class PieceCorrupt(Value, frozen=True):
    """The piece failed its digest."""

    source: SourceId
    index: int


class PieceUnwritten(Value, frozen=True):
    """The piece could not be stored: a local error, no fault of the source."""

    source: SourceId
    index: int
    reason: str


class PieceMade(Value, frozen=True):
    """The piece of a `Make`, or one found in local files, has the right digest and is written."""

    index: int


class PieceNotMade(Value, frozen=True):
    """The piece of a `Make` could not be made or stored; it is retried later."""

    index: int


class PieceNotFound(Value, frozen=True):
    """No local file gave a piece that was looked for: it is fetched."""

    index: int


class SourceBusy(Value, frozen=True):
    """The source declined these requests for now; an empty tuple: all requests in flight."""

    source: SourceId
    retry_after_s: float
    pieces: tuple[int, ...] = ()


class SourceRefused(Value, frozen=True):
    """The source refuses to serve: for a while if `transient`, else until it is listed again."""

    source: SourceId
    transient: bool
    why: str


class PiecesRefused(Value, frozen=True):
    """The source no longer holds these pieces, or never held them."""

    source: SourceId
    pieces: tuple[int, ...]


class SourceUnreachable(Value, frozen=True):
    """`Open` failed: no connection."""

    source: SourceId


class SourceClosed(Value, frozen=True):
    """An open connection was lost, with all requests on it. The source may come back."""

    source: SourceId


class SourceMoves(Value, frozen=True):
    """Bytes of the source arrived at `at`, perhaps not a whole message yet."""

    source: SourceId
    at: float


class Paused(Value, frozen=True):
    """Send no requests until `Resumed`: the user paused the download, or the disk is full."""


class Resumed(Value, frozen=True):
    """Send requests again."""


class HeadEvent(Value, frozen=True):
    """A reader of the content, by its number, moved or left."""

    reader: int


class ReadHead(HeadEvent, frozen=True):
    """The reader needs the `count` pieces from `first` on, in this order and before all others."""

    first: int
    count: int


class ReadHeadGone(HeadEvent, frozen=True):
    """The reader needs nothing more."""


class Tick(Value, frozen=True):
    """Time has passed: send it when `next_wakeup` is reached."""


DownloadEvent: TypeAlias = (
    SourceKnown
    | SourceGone
    | Opened
    | HaveMore
    | OnItsWay
    | PieceReceived
    | PieceVerified
    | PieceCorrupt
    | PieceUnwritten
    | PieceMade
    | PieceNotMade
    | PieceNotFound
    | SourceBusy
    | SourceRefused
    | PiecesRefused
    | SourceUnreachable
    | SourceClosed
    | SourceMoves
    | Paused
    | Resumed
    | HeadEvent
    | Tick
)


# --- Effects -------------------------------------------------------------------------------------


class Open(Value, frozen=True):
    """Connect to the source and open the content with it.

    Answer with `Opened`, `SourceRefused`, `SourceBusy`, `SourceUnreachable` or `SourceClosed`.
    """

    source: SourceId


class Request(Value, frozen=True):
    """Request these pieces from the source, in this order of preference."""

    source: SourceId
    pieces: tuple[int, ...]


class CancelRequest(Value, frozen=True):
    """Cancel these requests at the source. Pieces on the way may still arrive."""

    source: SourceId
    pieces: tuple[int, ...]


class Verify(Value, frozen=True):
    """Digest and write the piece in the buffer.

    Answer with `PieceVerified`, `PieceCorrupt` or `PieceUnwritten`.
    """

    source: SourceId
    index: int


class Make(Value, frozen=True):
    """Make the piece without a source: a copy of the held piece ``like``, or zeros (None).

    Answer with `PieceMade` or `PieceNotMade`. If ``like`` turned out damaged, report that first.
    """

    index: int
    like: int | None


class Discard(Value, frozen=True):
    """Drop the buffer of a received piece."""

    source: SourceId
    index: int
    why: DiscardReason


class Close(Value, frozen=True):
    """Close the content with the source; nothing more is expected from it.

    With `Verdict.SILENT` the connection itself is closed: the next `Open` makes a new one.
    """

    source: SourceId
    verdict: Verdict


class Announce(Value, frozen=True):
    """Announce to the requesters of this content that this peer holds these pieces too."""

    pieces: tuple[int, ...]


class Complete(Value, frozen=True):
    """Every piece is held. The driver verifies the digest of the whole and renames."""


DownloadEffect: TypeAlias = (
    Open | Request | CancelRequest | Verify | Make | Discard | Close | Announce | Complete
)
