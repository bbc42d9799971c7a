"""Open files of a part: shared by the states of a download on disk, and closed once.

Owns: the folder, the part and the journal of one download while they are open. Not here: verifying
them after a restart (see peer.files.unverified_part) and the pieces (see
peer.files.partial_content).
"""

from __future__ import annotations

import logging
import os
from typing import NamedTuple

from common.errors import StorageError
from common.manifest import Manifest
from peer.files.destination import Destination
from peer.files.in_use_guard import InUseGuard
from peer.files.journal import Journal
from peer.files.partfile import PartFiles
from peer.files.replacement import Replaces, remove_replaced, renaming, replaced_name
from peer.files.selection import Selection

log = logging.getLogger(__name__)


class Fit(NamedTuple):
    """Rule of what becomes of the part, beside what stands at its final path."""

    replaces: Replaces | None = None
    """It takes the place of that. Nothing of it is kept but files that neither the known contents
    have nor its own. None: nothing is replaced."""
    selection: Selection | None = None
    """The files to fetch; None for all."""
    leaves: Selection | None = None
    """The files of the content that are in place afterwards."""
    adds: bool = False
    """The files are added to those that are in place."""


class PartResources:
    """Files, locks and digest of one part, which its states hand on to each other.

    Thread safety: the methods of these states run inside ``guard``; closing waits for them.
    ``path`` is the final path and ``part_path`` the path until then, both absolute and without
    links. ``path`` is the one to record, and to give to `open_part.resume`.
    """

    def __init__(
        self,
        manifest: Manifest,
        destination: Destination,
        files: PartFiles,
        journal: Journal,
        fit: Fit | None = None,
    ) -> None:
        self.manifest = manifest
        self.path = destination.path
        self.part_path = destination.part_path
        self.destination = destination
        self.files = files
        self.journal = journal
        self.guard = InUseGuard()
        self.fit = Fit() if fit is None else fit
        if self.fit.replaces is not None:
            destination.rename = renaming(self.fit.replaces)

    def remove_replaced(self) -> str | None:
        """Remove what stood at the final path; return the path of what is kept of it.

        An error changes nothing about the new content: what is left then counts as kept.
        """
        if self.fit.replaces is None:
            return None
        try:
            return remove_replaced(self.destination, (self.manifest, *self.fit.replaces.known))
        except StorageError as error:
            log.warning("what was replaced is not removed: %s", error)
            return os.path.join(self.destination.folder, replaced_name(self.destination.name))

    def close(self) -> None:
        """Wait for the calls under way, then close everything. The part stays."""
        if self.guard.close():
            self._release()

    def discard(self) -> None:
        """Close everything, then remove the part and the journal."""
        if self.guard.close():
            try:
                self.destination.remove_part(self.files.fd)
            finally:
                self._release()
        self.journal.remove()

    def _release(self) -> None:
        self.files.close()
        self.journal.close()
        self.destination.close()
