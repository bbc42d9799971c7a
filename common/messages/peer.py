"""The conversation between two devices: one fetches (DEALER), one serves (ROUTER).

A fetching device opens a channel for each content, under a small number of its own choice, and
shows a ticket for the group. Requests are wishes: the serving side answers them in the order that
is best for the swarm, or when they are withdrawn never. What arrives is credited by the cumulative
count of bytes received on the connection, which rides on every request.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from common import limits
from common.messages.base import Count, IdText, Key32, PieceIndex, PieceList, TimeMs, Token
from common.messages.refusals import Refusal

Channel = Annotated[int, Meta(ge=0, lt=1 << 16)]
RunLength = Annotated[int, Meta(ge=1, le=limits.RUN_BYTES // limits.PIECE_LENGTH_MIN)]


class _Wire(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of what travels here: an array that begins with the name of its type."""


# -- from the one that fetches ------------------------------------------------------------------


class Open(_Wire, frozen=True):
    """Open ``channel`` for ``content``, which is shared in ``group``, by right of ``ticket``.

    ``bulk``: pieces may come on a bulk connection."""

    channel: Channel
    group: IdText
    content: Key32
    ticket: Token
    bulk: bool = False


class Renew(_Wire, frozen=True):
    """A fresh ticket for ``group``, before the last one expires."""

    group: IdText
    ticket: Token


class Request(_Wire, frozen=True):
    """Wishes for pieces. ``received_bytes``: of piece data on this connection, so far."""

    channel: Channel
    pieces: PieceList
    received_bytes: Count


class Credit(_Wire, frozen=True):
    """``received_bytes`` alone, when there is nothing to ask for."""

    received_bytes: Count


class Withdraw(_Wire, frozen=True):
    """These pieces came from elsewhere; one that is on its way already may still arrive."""

    channel: Channel
    pieces: PieceList


class Close(_Wire, frozen=True):
    channel: Channel


class AskManifest(_Wire, frozen=True):
    """A part of the manifest of an open channel's content."""

    channel: Channel
    offset: Count


Ask: TypeAlias = Open | Renew | Request | Credit | Withdraw | Close | AskManifest


# -- from the one that serves -------------------------------------------------------------------


class Opened(_Wire, frozen=True):
    """Unless ``complete``, the data frame is the bitfield of what is held, most significant bit
    first; later pieces follow as `Have`."""

    channel: Channel
    complete: bool
    until_ms: TimeMs


class Have(_Wire, frozen=True):
    channel: Channel
    pieces: PieceList


class Piece(_Wire, frozen=True):
    """The piece itself is the data frame."""

    channel: Channel
    index: PieceIndex


class Pieces(_Wire, frozen=True):
    """``count`` pieces from ``first`` on, one after another in the data. On bulk connections, where
    there is no other message."""

    channel: Channel
    first: PieceIndex
    count: RunLength


class Declined(_Wire, frozen=True):
    """These wishes will not be served: not held (``gone``), or too many at once (``busy``)."""

    channel: Channel
    pieces: PieceList
    busy: bool = False
    retry_after_ms: Annotated[int, Meta(ge=0, le=60_000)] = 0


class Closed(_Wire, frozen=True):
    """The channel is closed by the serving side, and why."""

    channel: Channel
    refusal: Refusal


class Bulk(_Wire, frozen=True):
    """Pieces may come on another connection from here on, to ``port`` of the same host, if the
    fetching device makes it. ``word`` lets it in there, once; ``key`` opens what comes."""

    port: Annotated[int, Meta(ge=1, lt=1 << 16)]
    word: Key32
    key: Key32


class ManifestBytes(_Wire, frozen=True):
    """Up to ``limits.MANIFEST_PART_BYTES`` of the encoded manifest, as the data frame."""

    channel: Channel
    total_bytes: Count
    offset: Count


Answer: TypeAlias = Opened | Have | Piece | Declined | Closed | Bulk | ManifestBytes | Refusal
