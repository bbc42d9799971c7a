"""Messages between two devices: one fetches (DEALER), one serves (ROUTER).

A fetching device opens a channel for each content, under a small number of its own choice, and
shows a ticket for the group. The serving side answers requests in the order that is best for the
swarm; a cancelled request may get no answer. Received bytes are acknowledged by their cumulative
count on the connection, which every request carries.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, TypeAlias

from msgspec import Meta

from common import limits
from common.messages.base import (
    Count,
    IdText,
    Key32,
    PieceIndex,
    PieceList,
    Refusal,
    TimeMs,
    Token,
    Wire,
)

Channel = Annotated[int, Meta(ge=0, lt=1 << 16)]
RunLength = Annotated[int, Meta(ge=1, le=limits.RUN_BYTES // limits.PIECE_LENGTH_MIN)]


# -- from the one that fetches ------------------------------------------------------------------


class Open(Wire, frozen=True):
    """Open ``channel`` for ``content``, which is shared in ``group``, with ``ticket``.

    ``bulk``: pieces may come on a bulk connection. ``notices``: send `OnItsWay`. ``aegis``:
    the bulk connection may be sealed with AEGIS-128L."""

    channel: Channel
    group: IdText
    content: Key32
    ticket: Token
    bulk: bool = False
    notices: bool = False
    aegis: bool = False


class Renew(Wire, frozen=True):
    """A fresh ticket for ``group``, before the last one expires."""

    group: IdText
    ticket: Token


class Request(Wire, frozen=True):
    """Request pieces. ``received_bytes``: of piece data on this connection, so far."""

    channel: Channel
    pieces: PieceList
    received_bytes: Count


class Credit(Wire, frozen=True):
    """Acknowledge ``received_bytes`` alone, when there is nothing to request."""

    received_bytes: Count


class Withdraw(Wire, frozen=True):
    """Cancel requests: the pieces came from elsewhere. A piece in transit may still arrive."""

    channel: Channel
    pieces: PieceList


class Close(Wire, frozen=True):
    channel: Channel


class AskManifest(Wire, frozen=True):
    """Request a part of the manifest of an open channel's content."""

    channel: Channel
    offset: Count


ClientMessage: TypeAlias = Open | Renew | Request | Credit | Withdraw | Close | AskManifest


# -- from the one that serves -------------------------------------------------------------------


class Opened(Wire, frozen=True):
    """Unless ``complete``, the data frame is the bitfield of what is held, most significant bit
    first; later pieces follow as `Have`."""

    channel: Channel
    complete: bool
    until_ms: TimeMs


class Have(Wire, frozen=True):
    channel: Channel
    pieces: PieceList


class OnItsWay(Wire, frozen=True):
    """These requested pieces follow without further delay: request them nowhere else meanwhile."""

    channel: Channel
    pieces: PieceList


class Piece(Wire, frozen=True):
    """The piece itself is the data frame."""

    channel: Channel
    index: PieceIndex


class Pieces(Wire, frozen=True):
    """Data of ``count`` pieces from ``first`` on, one after another. On bulk connections, where
    there is no other message."""

    channel: Channel
    first: PieceIndex
    count: RunLength


class Declined(Wire, frozen=True):
    """Requests that will not be served: not held, or too many at once (``busy``)."""

    channel: Channel
    pieces: PieceList
    busy: bool = False
    retry_after_ms: Annotated[int, Meta(ge=0, le=60_000)] = 0


class Closed(Wire, frozen=True):
    """The channel is closed by the serving side, and why."""

    channel: Channel
    refusal: Refusal


class Bulk(Wire, frozen=True):
    """Pieces may come on another connection from here on, to ``port`` of the same host, if the
    fetching device makes it. ``word`` is the one-time admission token; ``key`` opens the sealed
    messages, which are sealed with AES-256-GCM, or with AEGIS-128L if ``aegis``.
    """

    port: Annotated[int, Meta(ge=1, lt=1 << 16)]
    word: Key32
    key: Key32
    aegis: bool = False


class ManifestBytes(Wire, frozen=True):
    """Up to ``limits.MANIFEST_PART_BYTES`` of the encoded manifest, as the data frame."""

    channel: Channel
    total_bytes: Count
    offset: Count


Answer: TypeAlias = (
    Opened | Have | OnItsWay | Piece | Declined | Closed | Bulk | ManifestBytes | Refusal
)


def piece_lists(pieces: Sequence[int]) -> Iterator[list[int]]:
    """Cut a list of pieces to lists that a message may carry."""
    for at in range(0, len(pieces), limits.PIECES_PER_REQUEST_MAX):
        yield list(pieces[at : at + limits.PIECES_PER_REQUEST_MAX])
