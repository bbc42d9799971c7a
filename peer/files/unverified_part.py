"""Part of a download after a restart: nothing of it is held until it was read and verified.

Owns: the pieces that the journal claims, and whether the part belongs to this download. Not here:
opening it (see peer.files.open_part) and everything once it is verified (see
peer.files.partial_content).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from common.host.clock import monotonic
from common.names import quoted
from peer.files.errors import AlreadyExists
from peer.files.hashing import hash_pieces, never_cancelled
from peer.files.part_resources import PartResources
from peer.files.partial_content import PartialContent
from peer.files.selected_content import content_of
from peer.files.sharing import no_progress


class UnverifiedPart:
    """A part as it lies on the disk. Made by `open_part.resume`.

    ``claims`` are the pieces to verify. ``journalled``: the journal names them, so that they need
    no entry of their own. ``owned``: a journal, which is made after its part, shows that the part
    is ours; otherwise `recover` decides. ``only_verified_writes``: as of `PartialContent`.

    Thread safety: one call of `recover` or `discard` at a time; `close` at any time.
    """

    def __init__(
        self,
        part: PartResources,
        claims: Sequence[int] = (),
        *,
        journalled: bool = True,
        owned: bool = True,
        only_verified_writes: bool = False,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._part = part
        self._claims = sorted(claims)
        self._journalled = journalled
        self._owned = owned
        self._only_verified_writes = only_verified_writes
        self._clock = clock
        self._zero_digests: dict[int, bytes] = {}  # by length, of which there are two at most

    def recover(
        self,
        *,
        on_progress: Callable[[int], None] = no_progress,
        cancelled: Callable[[], bool] = never_cancelled,
        threads: int | None = None,
    ) -> PartialContent:
        """Verify the pieces that the journal claims, or all of them if the journal was damaged.

        Pieces that were cut off or damaged on the disk are not held, and are fetched again.
        ``on_progress`` gets the bytes verified so far. Raises `AlreadyExists` for a part without a
        journal that holds other content: another program made it before ours was made. Closing
        this part closes the returned content too.
        """
        part, manifest = self._part, self._part.manifest
        content = content_of(
            part, only_verified_writes=self._only_verified_writes, clock=self._clock
        )
        done = 0
        empty = True

        def in_order(index: int, view: memoryview, digest: bytes | None) -> None:
            nonlocal done, empty
            done += len(view)
            empty = empty and (digest is None or digest == self._digest_of_zeros(len(view)))
            if digest == manifest.piece_digest(index):
                # A copy: the view's memory is used again for the next pieces.
                content.add_recovered(index, bytes(view), unsynced=not self._journalled)
            on_progress(done)

        with part.guard:
            part.files.forget_cached(0, manifest.size)
            hash_pieces(
                self._claims,
                manifest.piece_span,
                part.files.read_into,
                manifest.algorithm,
                in_order,
                threads=threads,
                cancelled=cancelled,
            )
            is_new = empty and part.files.may_be_new()
            if not self._owned and not content.held_count and not is_new:
                raise AlreadyExists(
                    f"{quoted(part.part_path)} is already there, and none of ours",
                    "remove or rename it, and resume the download",
                )
            self._owned = True
            if not self._journalled:
                part.journal.begin()
            return content

    def _digest_of_zeros(self, length: int) -> bytes:
        if length not in self._zero_digests:
            digest_of = self._part.manifest.algorithm.digest_of
            self._zero_digests[length] = digest_of(bytes(length))
        return self._zero_digests[length]

    def discard(self) -> None:
        """Close the part, and remove it with its journal; a part of another program stays."""
        try:
            if not self._owned:
                self.recover()
        except AlreadyExists:
            self._part.close()
        self._part.discard()

    def close(self) -> None:
        """Wait for `recover` if it runs, then close everything. The part stays."""
        self._part.close()
