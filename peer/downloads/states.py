"""States of a download in this process, beside the one that its record keeps over restarts.

Each is a value of its own with that which exists in it alone. The record (`DownloadState`, its
reason, and whether its user paused it) tells what a user sees of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from peer.downloads.transfer import Transfer
from peer.files.partial_content import PartialContent


@dataclass(frozen=True, slots=True)
class AtRest:
    """Nothing works on it: it is queued, paused, failed or complete, as its record says."""


@dataclass(frozen=True, slots=True)
class Loading:
    """State before the start: the journal is read, to show how much is held."""


@dataclass(frozen=True, slots=True)
class Opening:
    """State in which the part is opened and verified. A new download brings its ``part`` along."""

    part: PartialContent | None = None


@dataclass(frozen=True, slots=True)
class Copying:
    """State in which pieces are copied from this device, or searched for on it."""

    part: PartialContent


@dataclass(frozen=True, slots=True)
class Fetching:
    """State in which it fetches and serves; while it is paused, it only serves."""

    transfer: Transfer


@dataclass(frozen=True, slots=True)
class Finishing:
    """State with every piece held: the whole is verified, renamed and shared. It also serves."""

    transfer: Transfer


@dataclass(frozen=True, slots=True)
class Closing:
    """State in which the part is closed or removed, and the end recorded."""


AT_REST = AtRest()
State = AtRest | Loading | Opening | Copying | Fetching | Finishing | Closing
