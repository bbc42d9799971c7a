"""Bounded field types, and structs that several conversations share."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from common import limits
from common.messages.refusals import Code

# A name as the user typed it; `common.names` validates it.
IdText = Annotated[str, Meta(min_length=1, max_length=limits.USER_ID_MAX)]
ShareName = Annotated[str, Meta(min_length=1, max_length=255)]
Password = Annotated[str, Meta(max_length=limits.PASSWORD_BYTES_MAX)]
Endpoint = Annotated[str, Meta(min_length=6, max_length=300)]

Key32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
Topic = Annotated[bytes, Meta(min_length=16, max_length=16)]
Digest = Annotated[bytes, Meta(min_length=20, max_length=32)]
Token = Annotated[bytes, Meta(min_length=1, max_length=1024)]

Count = Annotated[int, Meta(ge=0, le=limits.COUNT_MAX)]
Version = Annotated[int, Meta(ge=0, le=limits.VERSION_MAX)]  # of a name; 0: the current one
PieceIndex = Annotated[int, Meta(ge=0, lt=limits.PIECES_MAX)]
PieceList = Annotated[list[PieceIndex], Meta(max_length=limits.PIECES_PER_REQUEST_MAX)]
TimeMs = Annotated[int, Meta(ge=0, lt=1 << 53)]


class Wire(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of all messages: an array that begins with the name of its type."""


class Source(msgspec.Struct, frozen=True, array_like=True):
    """A device that holds (``complete``) or fetches a content, and where it answers."""

    device: Key32
    user: IdText
    endpoint: Endpoint
    complete: bool
    held: Count = 0


class Refusal(Wire, frozen=True):
    """A refusal on the wire: ``code`` for programs, ``message`` and ``hint`` for people."""

    code: Code
    message: Annotated[str, Meta(max_length=2000)]
    hint: Annotated[str, Meta(max_length=2000)] | None = None
