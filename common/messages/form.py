"""Form of a conversation: a checksum by which two programs see that their releases differ."""

from __future__ import annotations

from collections.abc import Iterable
from zlib import crc32

import msgspec


def form_of(kinds: Iterable[type[msgspec.Struct]]) -> str:
    """Return the checksum of messages and rows: their names, and the names and types of fields."""
    rows = [f"{kind.__name__}{kind.__struct_fields__}{kind.__annotations__}" for kind in kinds]
    text = "\n".join(rows).encode()
    return f"{crc32(text):08x}{len(text):08x}"
