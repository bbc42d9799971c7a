"""The folders that shares lie in, looked at often to notice disks that come and go.

Owns which folders there are and whether each is there still. What becomes of a share whose place is
away, and the look at each file, are ``registry``'s.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TypeVar

from peer.files.fingerprint import SharedLocation
from peer.files.folder_identity import FolderIdentity, why_away

PLACES_INTERVAL_S = 5.0  # between two looks
PLACES_MAX = 1000  # folders looked at that often; with more, all wait for the look at the files

T = TypeVar("T")


def by_folder(placed: Iterable[tuple[SharedLocation, T]]) -> list[tuple[SharedLocation, list[T]]]:
    """What lies in each folder, with one place for all of it; nothing of more than `PLACES_MAX`.

    Places of earlier versions, of which no folder is known, are left out.
    """
    found: dict[tuple[str, FolderIdentity], tuple[SharedLocation, list[T]]] = {}
    for place, what in placed:
        if place.where is not None:
            folder = os.path.dirname(place.path)
            found.setdefault((folder, place.where), (place, []))[1].append(what)
    return list(found.values()) if len(found) <= PLACES_MAX else []


def any_away(places: Sequence[SharedLocation]) -> list[bool]:
    """Whether each place is away. Blocks for as long as the disks do."""
    return [why_away(place.path, place.where) is not None for place in places]
