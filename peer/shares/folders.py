"""Folders of shares, checked often to notice disks that go and come back.

Owns: which folders there are, and whether each is still there. Not here: the consequences for a
share, and checks of each file (see peer.shares.watching).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TypeVar

from peer.files.fingerprint import SharedLocation
from peer.files.folder_identity import FolderIdentity, why_away

FOLDERS_INTERVAL_S = 5.0  # between two checks
FOLDERS_MAX = 1000  # folders checked that often; with more, all wait for the check of the files

T = TypeVar("T")


def by_folder(placed: Iterable[tuple[SharedLocation, T]]) -> list[tuple[SharedLocation, list[T]]]:
    """The items in each folder, with one location for all; empty above `FOLDERS_MAX` folders.

    Locations recorded by earlier versions, without a folder, are left out.
    """
    found: dict[tuple[str, FolderIdentity], tuple[SharedLocation, list[T]]] = {}
    for place, item in placed:
        if place.where is not None:
            folder = os.path.dirname(place.path)
            found.setdefault((folder, place.where), (place, []))[1].append(item)
    return list(found.values()) if len(found) <= FOLDERS_MAX else []


def any_away(places: Sequence[SharedLocation]) -> list[bool]:
    """Whether each location is away. Blocks as long as the disks do."""
    return [why_away(place.path, place.where) is not None for place in places]
