"""Base class of events and effects of both machines."""

from __future__ import annotations

import msgspec


class Value(msgspec.Struct, frozen=True, gc=False):
    """An immutable value.

    Why not a frozen dataclass: several are made for every piece, and a struct costs a tenth.
    """
