"""Events and effects of the download machine.

Owns the values that pass between `Download` and the code that drives it. The machine never sees a
socket, a frame, a file or a thread: the driver turns those into events, and carries out the
effects in the order given. Sizes and counts are bytes; times are seconds of one monotonic clock.
"""

from __future__ import annotations

from enum import Enum, unique
from typing import TypeAlias

import msgspec

from common.ids import DeviceKey, UserId
from peer.swarm.pieces import Bitfield

SourceId: TypeAlias = DeviceKey
"""A device that is fetched from. Its connections come and go; the device is the identity."""


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


class _Value(msgspec.Struct, frozen=True, gc=False):
    """Base of events and effects. Why not a frozen dataclass: several are made for every piece, and
    a struct costs a tenth."""


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
    Open | Request | CancelRequest | Verify | Make | Discard | Close | Announce | Complete
)
