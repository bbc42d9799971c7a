"""Selected files of a folder on disk, while they are fetched and when they get their places.

Owns: their verification, and the steps that make them visible: the first ones by one rename of the
folder, later ones file by file (see peer.files.addition). Not here: everything that a selection has
in common with a whole content (see peer.files.partial_content).

A selection has no digest of its own: its pieces are read back from the disk and verified. If later
files complete the folder, its whole is verified by the digest of the content.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from common.host.clock import monotonic
from common.manifest import Manifest
from common.names import quoted
from peer.files import addition, disk_check, sharing
from peer.files.destination import Destination
from peer.files.errors import ContentChanged, DigestMismatch
from peer.files.fingerprint import SharedLocation
from peer.files.hashing import never_cancelled
from peer.files.part_resources import PartResources
from peer.files.partfolder import PartFolder
from peer.files.partial_content import PartialContent
from peer.files.selection import Selection


def content_of(
    part: PartResources,
    *,
    only_verified_writes: bool = True,
    clock: Callable[[], float] = monotonic,
) -> PartialContent:
    """The content of a part, by what is to be fetched of it."""
    kind = PartialContent if part.fit.selection is None else SelectedContent
    return kind(part, only_verified_writes=only_verified_writes, clock=clock)


class SelectedContent(PartialContent):
    """Pieces of the selected files of one download."""

    def _verify_whole(self, cancelled: Callable[[], bool]) -> None:
        bad = disk_check.wrong_pieces(
            self.manifest, self.wanted or [], self._files.read_into, cancelled
        )
        if bad:
            self._lose_damaged(bad)

    def _publish(self) -> None:
        destination, fit = self._part.destination, self._part.fit
        assert isinstance(self._files, PartFolder)
        assert fit.selection is not None
        replace = fit.replaces is not None
        if fit.adds and not replace and not destination.renamed:
            # Now, not after some of the moves: the part can still be resumed or discarded.
            addition.refuse_in_the_way(destination, self.manifest, fit.selection.entries)
        self._files.drop_rest()
        if not fit.adds:
            super()._publish()
            return
        addition.begin(destination, self._files.fd)
        addition.finish(destination, self.manifest, fit.selection.entries, replace=replace)

    def _is_content(self, name: str) -> bool:
        assert self._part.fit.selection is not None
        path = os.path.join(self._part.destination.folder, name)
        return selected_at(self.manifest, path, self._part.fit.selection) is not None

    def _locate(self, cancelled: Callable[[], bool]) -> SharedLocation:
        leaves = self._part.fit.leaves
        assert leaves is not None
        if not leaves.is_whole:
            return sharing.location_of(self.manifest, self.path, selected=leaves.entries)
        location = sharing.location_of(self.manifest, self.path)
        try:
            return sharing.verify(self.manifest, location, whole=True, cancelled=cancelled)
        except ContentChanged as error:
            raise DigestMismatch(
                f"{quoted(self.path)} is complete, but files that were there before are not as"
                f" they were: {error}",
                (),
                "fetch all of it again with --overwrite",
            ) from error


def selected_at(
    manifest: Manifest,
    path: str,
    selection: Selection,
    *,
    cancelled: Callable[[], bool] = never_cancelled,
) -> SharedLocation | None:
    """The location of selected files if they stand at ``path``, by the pieces that lie in them
    alone. Blocks."""
    try:
        location = sharing.location_of(manifest, path, selected=selection.entries)
    except ContentChanged:
        return None
    inner = sorted(set(selection.pieces()).difference(selection.shared_pieces()))
    destination = Destination.again(path)
    try:
        found = PartFolder(
            manifest, destination, destination.open(destination.name), selection=selection
        )
        try:
            bad = disk_check.wrong_pieces(manifest, inner, found.read_into, cancelled)
        finally:
            found.close()
    finally:
        destination.close()
    return None if bad else location
