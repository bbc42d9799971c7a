"""Partial content on disk: verified bytes go in, a complete file or folder comes out.

Owns: which pieces are durable, and the order of the steps that make a download visible: sync,
verify the whole, rename, sync the folder. Not here: what a restart left (see
peer.files.unverified_part) and which piece is fetched from which source (see peer.swarm).

Invariant: a held piece has its digest; the final name never exists with other content; the journal
names a piece only after a sync.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock
from typing import NoReturn

from common.digests import Buffer
from common.errors import LocalProtocolError
from common.host.clock import monotonic
from common.names import quoted
from peer.files import disk_check
from peer.files.direct_part import DirectPart
from peer.files.disk_space import alike, zeros_told
from peer.files.errors import DigestMismatch, DiskFull, IOFailed, PieceNotHeld, WrongPiece
from peer.files.fingerprint import SharedLocation
from peer.files.hashing import never_cancelled
from peer.files.held_pieces import HeldPieces, runs_of, split
from peer.files.part_resources import PartResources
from peer.files.partfile import NotShared, OpenRange, pieces_in
from peer.files.sharing import location_of
from peer.files.whole_digest import DIGEST_TRUST_S, WholeDigest
from peer.native.fetcher import StoredRun


class PartialContent:
    """Pieces of one download. Made by `open_part.create` or `UnverifiedPart.recover`.

    ``only_verified_writes``: nothing else was ever written to the part. Why: only then do unwritten
    ranges read as zeros, so that a piece of zeros needs no write and sparse files stay sparse.

    Thread safety: every method; each blocks.
    """

    def __init__(
        self,
        part: PartResources,
        *,
        only_verified_writes: bool = True,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.manifest = part.manifest
        self.path = part.path
        self.part_path = part.part_path
        self.alike = alike(part.manifest)  # pieces that need no source
        self.kept: str | None = None  # path of what is kept of a replaced folder
        self._part = part
        self._files = part.files
        self._guard = part.guard
        selection = part.fit.selection
        self.wanted = None if selection is None else selection.pieces()  # None: all pieces
        self._held = HeldPieces(part.manifest.piece_count, self.wanted)
        self._only_verified_writes = only_verified_writes
        self._is_zeros = zeros_told(part.manifest)
        # Guarded by `_checkpointing`, which lets one checkpoint run at a time. After a failed sync
        # the system may take pages for clean that never reached the disk.
        self._checkpointing = Lock()
        self._rewrite = False
        self._failed: IOFailed | None = None
        # Guarded by `_finishing`: the location, once the content has its final name for good.
        self._finishing = Lock()
        self._location: SharedLocation | None = None
        self._verified_at: float | None = None  # when the whole was last verified
        self.direct = DirectPart(part.manifest, part.files, part.part_path, clock)
        self._whole = self._new_digest()

    def add_recovered(self, index: int, data: bytes, *, unsynced: bool) -> None:
        """Hold piece ``index``, which was read from the part and verified."""
        self._whole.feed(index, data)
        self._held.add(range(index, index + 1), unsynced=unsynced)

    # -- pieces ---------------------------------------------------------------------------------

    def write_piece(self, index: int, data: Buffer) -> None:
        """Verify and write piece ``index``, which is held from then on.

        Raises the errors of `write_run`, and `WrongPiece` if the bytes are not that piece.
        """
        if self.write_run(index, 1, memoryview(data)):
            raise WrongPiece(f"piece {index} is not what its digest promises")

    def write_run(self, first: int, count: int, data: memoryview) -> set[int]:
        """Verify ``count`` adjacent pieces from ``first`` on, and write and hold the right ones.

        Return the wrong ones. Raises `DiskFull`, after which the same call can be made again, or
        `IOFailed`, after which this object is of no use. No further piece is held then.
        """
        length = self.manifest.piece_length
        views = dict(enumerate(self.manifest.cut(data, count), first))
        with self._guard:
            self._require_sound()
            right = []
            for index, view in views.items():
                if self.manifest.verifies(index, view):
                    right.append(index)
                    # Before the write. Why: the bytes are in the processor's cache now, and a
                    # repeated write after a failure writes the same bytes.
                    self._whole.feed(index, view)
            runs = split(right, self._is_hole)
            for hole, pieces in runs:
                begin, end = pieces.start - first, pieces.stop - first
                self._put(hole, pieces.start, data[begin * length : end * length])
            for _, pieces in runs:
                self._held.add(pieces, unsynced=True)
        return views.keys() - set(right)

    def hold_stored(self, pieces: list[int], run: StoredRun) -> None:
        """Hold pieces of a run, ascending, that the compiled data path verified and wrote.

        Raises the errors of `write_run`.
        """
        with self._guard:
            self._require_sound()
            if run.truncated:
                self.invalidate()
            try:
                self.direct.check(run)
            except IOFailed as error:
                self._failed = error
                raise
            self._whole.mark(pieces)
            for adjacent in runs_of(pieces):
                self._held.add(adjacent, unsynced=True)

    def _is_hole(self, index: int) -> bool:
        return self._only_verified_writes and self._is_zeros(index)

    def _put(self, hole: bool, first: int, data: Buffer) -> None:
        offset = first * self.manifest.piece_length
        try:
            if hole:
                self._files.leave_hole(offset, len(data))
            else:
                self._files.write(offset, data)
                if self._files.truncated:
                    self.invalidate()
        except IOFailed as error:
            self._failed = error
            raise

    def make_zeros(self, first: int, count: int) -> None:
        """Make ``count`` pieces of zeros from ``first`` on, verified like received pieces.

        Raises the errors of `write_run`, and `WrongPiece` for a piece that is not of zeros.
        """
        _, length = self.manifest.run_span(first, count)
        if self.write_run(first, count, memoryview(bytes(length))):
            raise WrongPiece(f"pieces from {first} on are not of zeros")

    def copy_piece(self, index: int, like: int) -> None:
        """Make piece ``index`` as a copy of the held piece ``like``.

        Raises the errors of `read_piece` and `write_piece`.
        """
        self.write_piece(index, self.read_piece(like))

    def share_blocks(self, index: int, sources: Sequence[OpenRange]) -> bool:
        """Make piece ``index`` of the blocks of other files, and verify it in the part.

        Return False if it is not that piece: it is not held then. Raises `NotShared`, `DiskFull`
        and `IOFailed`.
        """
        offset, length = self.manifest.piece_span(index)
        with self._guard:
            self._require_sound()
            try:
                self._files.share_blocks(offset, sources)
                data = self._files.read(offset, length)
            except IOFailed as error:
                self._failed = error
                raise
            except NotShared as error:
                self._only_verified_writes &= not error.some
                raise
            except DiskFull:
                self._only_verified_writes = False  # some blocks may be there
                raise
            if data is None or not self.manifest.verifies(index, data):
                self._only_verified_writes = False
                return False
            self._whole.feed(index, data)
            self._held.add(range(index, index + 1), unsynced=True)
            return True

    def read_piece(self, index: int) -> Buffer:
        """The bytes of a held piece, verified once more so that no wrong byte leaves.

        Raises `DigestMismatch` if they were damaged; the piece is no longer held then.
        """
        data = self._read_verified(index, 1)
        if data is None:
            self._lose((index,))
            raise DigestMismatch(f"piece {index} of {quoted(self.part_path)} is damaged", (index,))
        return data

    def read_run(self, first: int, count: int) -> Buffer:
        """The bytes of ``count`` held pieces from ``first`` on, verified once more.

        Raises the errors of `read_piece`, for the first damaged piece.
        """
        data = self._read_verified(first, count)
        return data or b"".join(map(self.read_piece, range(first, first + count)))

    def _read_verified(self, first: int, count: int) -> Buffer | None:
        """The bytes of held pieces; None if some are missing or damaged."""
        with self._guard:
            span = self.manifest.run_span(first, count)
            for index in range(first, first + count):
                if not self.has(index):
                    raise PieceNotHeld(f"piece {index} is not held")
            data = self._files.read(*span)
            if data is not None:
                views = enumerate(self.manifest.cut(data, count), first)
                if all(self.manifest.verifies(index, view) for index, view in views):
                    return data
            return None

    def has(self, index: int) -> bool:
        """Whether piece ``index`` is verified and written."""
        return self._held.has(index)

    @property
    def held_count(self) -> int:
        return len(self._held)

    @property
    def is_complete(self) -> bool:
        """Whether every piece is held. That alone does not verify the whole."""
        return self._held.is_complete

    def held_indexes(self) -> list[int]:
        """The held pieces, ascending."""
        return self._held.indexes()

    @property
    def unsynced_bytes(self) -> int:
        """About how much a crash would cost: bytes to fetch again."""
        return self._held.unsynced_count * self.manifest.piece_length

    def checkpoint(self) -> tuple[int, ...]:
        """Sync written pieces and record them in the journal; return the pieces made durable.

        To be called every few seconds or every 64 MiB. Raises `DiskFull`, after which it can be
        called again; `DigestMismatch` for pieces that did not survive such a failure; or
        `IOFailed`, after which this object is of no use.
        """
        with self._guard, self._checkpointing:
            self._require_sound()
            batch = self._held.take_unsynced()
            if not batch:
                return ()
            try:
                pieces = self._make_durable(batch)
            except BaseException as error:
                self._held.requeue_unsynced(batch)
                self._rewrite = True
                if isinstance(error, IOFailed):
                    self._failed = error
                raise
            self._rewrite = False
            return pieces

    def advance_digest(self) -> bool:
        """Feed some pieces to the digest of the whole, if they arrived out of order; return whether
        more of them wait.

        For an idle worker thread, about 20 ms at a time. `finalize` has to wait for pieces that are
        left.
        """
        with self._guard:
            return self._whole.advance()

    def invalidate(self) -> None:
        """Distrust the digest of the whole: the part is idle, and other programs can write to it.

        The bytes on the disk are read back before the whole counts as verified.
        """
        self._whole.invalidate()
        self._verified_at = None

    def _new_digest(self) -> WholeDigest:
        return self.direct.new_digest(self.has, self._files.read_into)

    def _make_durable(self, batch: list[range]) -> tuple[int, ...]:
        if self._rewrite:
            self._write_again(batch)
        self._files.sync()
        pieces = dict.fromkeys(index for run in batch for index in run if self.has(index))
        self._part.journal.append(pieces)
        return tuple(pieces)

    def _write_again(self, batch: list[range]) -> None:
        # The system caches the bytes of one write in one block, and drops a block whole or not at
        # all.
        for run in batch:
            data = {index: self.read_piece(index) for index in run if self.has(index)}
            self._files.forget_cached(*self.manifest.run_span(run.start, len(run)))
            for index, piece in data.items():
                self._files.write(index * self.manifest.piece_length, piece)

    def _lose(self, pieces: tuple[int, ...]) -> None:
        self._only_verified_writes = False
        self._verified_at = None
        self._held.remove(pieces)
        # The digest may have taken in the damaged bytes.
        self._whole = self._new_digest()

    def _require_sound(self) -> None:
        if self._failed is not None:
            raise IOFailed(self._failed.message, self._failed.hint)

    # -- ending ---------------------------------------------------------------------------------

    def finalize(self, cancelled: Callable[[], bool] = never_cancelled) -> SharedLocation:
        """Verify the whole, put everything on the disk and give it its final name.

        Return its location, ready to be shared; this object can be read from until it is closed.
        Raises `DigestMismatch` (fetch its pieces again), `AlreadyExists` (the other file is left
        alone), or `DiskFull`; each leaves the part as it is.

        Thread safety: of threads that call it at once, one does the work; the others wait for its
        result.
        """
        with self._guard, self._finishing:
            self.direct.close()
            if self._location is None:
                if not self._part.destination.renamed:
                    self._seal(cancelled)
                self._publish()
                self._part.journal.remove()
                self._location = self._locate(cancelled)
            return self._location

    def _publish(self) -> None:
        self._part.destination.publish(self._files.fd, self._is_content)
        self.kept = self._part.remove_replaced() or self.kept

    def _locate(self, cancelled: Callable[[], bool]) -> SharedLocation:
        return location_of(self.manifest, self.path, seen=self._files.sealed)

    def _is_content(self, name: str) -> bool:
        return disk_check.is_content(self.manifest, self._part.destination, name)

    def _seal(self, cancelled: Callable[[], bool]) -> None:
        if not self.is_complete:
            raise LocalProtocolError("a download cannot be finished before it is complete")
        self._require_sound()
        # First: a full disk is mostly found here, and verifying takes its time.
        self.checkpoint()
        if self._verified_at is None or self.direct.clock() - self._verified_at > DIGEST_TRUST_S:
            self._verify_whole(cancelled)
            self._verified_at = self.direct.clock()
        try:
            truncated = self._files.seal()
        except IOFailed as error:
            self._failed = error
            raise
        if truncated:
            self._lose_damaged(pieces_in(truncated, self.manifest.piece_length))

    def _lose_damaged(self, pieces: tuple[int, ...]) -> NoReturn:
        self._lose(pieces)
        raise DigestMismatch(f"{quoted(self.part_path)} was damaged on the disk", pieces)

    def _verify_whole(self, cancelled: Callable[[], bool]) -> None:
        if self._whole.finish(cancelled) == self.manifest.digest:
            return
        bad, digest = disk_check.examine(self.manifest, self._files.read_into, cancelled)
        if bad:
            self._lose_damaged(bad)
        if digest != self.manifest.digest:
            raise DigestMismatch(
                f"the pieces of {quoted(self.path)} do not make up what was promised",
                (),
                "its first member gave a wrong manifest; ask for it to be shared again",
            )

    def discard(self) -> None:
        """Close everything, then remove the part and the journal."""
        self.direct.close()
        self._part.discard()

    def close(self) -> None:
        """Wait for the calls under way, then close everything. The part stays."""
        self.direct.close()
        self._part.close()
