"""Count of the verified copies of one version on other devices, as a value.

Owns: which device counts, which ones are missing, and which are new. Not here: the requests and
their rhythm (see peer.control.follows).

Rules: a device counts while it offers the version, also when it is offline or logged out: its copy
is on its disk. This device does not count. *All* means every other device that follows the group
and whose patterns match the name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from common.globs import matches
from common.ids import DeviceKey
from common.messages.tracker import HolderRow, HolderState


@dataclass(frozen=True, slots=True)
class Verdict:
    """State of a wait.

    ``came``: rows of devices with a copy that were not known before. ``copies``: how many there
    are; ``wanted``: how many are needed, or follow. ``missing``: rows of devices that should get a
    copy and have none.
    """

    done: bool
    copies: int
    wanted: int
    came: tuple[HolderRow, ...]
    missing: tuple[HolderRow, ...]


def shown(rows: Iterable[HolderRow], name: str) -> list[HolderRow]:
    """Return the rows that concern ``name``: followers of other names are left out."""
    return [row for row in rows if row.copy or row.state is HolderState.FETCHING or _due(row, name)]


def judge(
    rows: Sequence[HolderRow],
    name: str,
    own: DeviceKey,
    copies: int | None,
    known: Collection[bytes] = (),
) -> Verdict:
    """Return the state of a wait for ``copies`` on other devices; None for all followers."""
    others = [row for row in rows if row.device != own]
    holders = [row for row in others if row.copy]
    due = [row for row in others if _due(row, name)]
    if copies is None:
        missing = [row for row in due if not row.copy]
        wanted, done = len(due), not missing
    else:
        coming = [row for row in others if row.state is HolderState.FETCHING or _due(row, name)]
        missing = [row for row in coming if not row.copy]
        wanted, done = copies, len(holders) >= copies
    came = tuple(row for row in holders if row.device not in known)
    return Verdict(done, len(holders), wanted, came, () if done else tuple(missing))


def _due(row: HolderRow, name: str) -> bool:
    return row.follows and matches(row.globs, name)
