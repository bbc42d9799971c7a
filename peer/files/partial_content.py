"""A download in progress: verified bytes go in, a complete file or folder comes out.

Owns which pieces are held, what of them is on the disk for certain, and the order of the steps
that make a download visible: sync, verify the whole, rename, sync the folder. It never holds a
piece that does not have its digest, and the final name never exists with anything but the right
content. Which piece is fetched from whom is decided in ``peer.swarm``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from threading import Lock
from typing import NoReturn

from common.digests import Buffer
from common.errors import LocalProtocolError
from common.host.clock import monotonic
from common.manifest import Manifest
from common.names import quoted
from peer.files.destination import Destination
from peer.files.disk_space import alike, zeros_told
from peer.files.errors import (
    AlreadyExists,
    ContentChanged,
    DigestMismatch,
    IOFailed,
    PieceNotHeld,
    UnsafeDestination,
    WrongPiece,
)
from peer.files.fingerprint import SharedLocation
from peer.files.hashing import InOrder, hash_pieces, never_cancelled
from peer.files.in_use_guard import InUseGuard
from peer.files.journal import Journal
from peer.files.partfile import PartFile, PartFiles, Range
from peer.files.partfolder import PartFolder
from peer.files.sharing import no_progress, place_of
from peer.files.whole_digest import DIGEST_TRUST_S, WholeDigest


class PartialContent:
    """Safe for threads; every method blocks. Made by `opening.create` or `opening.resume`.

    ``path`` is where the content will be and ``part_path`` where it is collected, both absolute and
    without links; ``path`` is what is to be recorded and given to `opening.resume`.
    """

    def __init__(
        self,
        manifest: Manifest,
        destination: Destination,
        files: PartFiles,
        journal: Journal,
        claimed: tuple[int, ...] = (),
        *,
        journalled: bool = True,
        ours: bool = True,
        pristine: bool = True,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.manifest = manifest
        self.path = destination.path
        self.part_path = destination.part_path
        self._destination = destination
        self._files = files
        self._journal = journal
        self._gate = InUseGuard()
        self._held = bytearray(manifest.piece_count)  # by piece: 1 when verified and written
        self._lock = Lock()  # of the next two
        self._held_count = 0
        self._unsynced: list[range] = []  # stretches of pieces, each as it was written at once
        self._checkpoint = Lock()  # one at a time
        self._claimed = claimed  # by the journal, to be verified by `recover`
        self._claims_journalled = journalled
        self._ours = ours  # the part, by the journal that is made after it; else `recover` tells
        # Only while nothing but verified pieces was ever written do unwritten stretches read as
        # zeros, so that a piece of zeros needs no write and sparse files stay sparse.
        self._pristine = pristine
        self._is_zeros = zeros_told(manifest)
        self._zero_digests: dict[int, bytes] = {}  # by length, of which there are two at most
        self.alike = alike(manifest)  # which pieces need not be fetched
        # After a failed sync the system may take pages for clean that never reached the disk.
        self._rewrite = False
        self._failed: IOFailed | None = None
        self._clock = clock
        self._verified_at: float | None = None  # when the whole was, by its digest
        self._finishing = Lock()  # of the next one: one thread at a time
        self._place: SharedLocation | None = None  # once it has its final name for good
        self._whole = self._new_digest()

    # -- going on -------------------------------------------------------------------------------

    def recover(
        self,
        *,
        on_progress: Callable[[int], None] = no_progress,
        cancelled: Callable[[], bool] = never_cancelled,
        threads: int | None = None,
    ) -> int:
        """Verify what the journal claims, or all there is if the journal was damaged.

        Returns the number of pieces held. ``on_progress`` is told the bytes verified so far.
        Pieces that were cut off or damaged on the disk are not held and will be fetched again.
        Raises `AlreadyThere` for a part without a journal that holds something else altogether:
        it is somebody else's, and came when ours had not been made yet.
        """
        done = 0
        empty = True

        def in_order(index: int, view: memoryview, digest: bytes | None) -> None:
            nonlocal done, empty
            done += len(view)
            empty = empty and (digest is None or digest == self._digest_of_zeros(len(view)))
            if digest == self.manifest.piece_digest(index):
                # A copy: the view's memory is used again for the next pieces.
                self._whole.feed(index, bytes(view))
                self._hold(range(index, index + 1), unsynced=not self._claims_journalled)
            on_progress(done)

        with self._gate:
            claimed, self._claimed = sorted(self._claimed), ()
            self._files.forget_cached(0, self.manifest.size)
            self._hash(claimed, in_order, cancelled, threads)
            if not self._ours and not self._held_count and not (empty and self._files.may_be_new()):
                raise AlreadyExists(
                    f"{quoted(self.part_path)} is already there, and none of ours",
                    "remove or rename it, and resume the download",
                )
            self._ours = True
            if not self._claims_journalled:
                self._journal.begin()
                self._claims_journalled = True
            return self._held_count

    def _digest_of_zeros(self, length: int) -> bytes:
        if length not in self._zero_digests:
            self._zero_digests[length] = self.manifest.algorithm.digest_of(bytes(length))
        return self._zero_digests[length]

    # -- pieces ---------------------------------------------------------------------------------

    def write_piece(self, index: int, data: Buffer) -> None:
        """Verify and write piece ``index``, which is held from then on.

        Raises as `write_run`, and `WrongPiece` if the bytes are not that piece.
        """
        if self.write_run(index, 1, memoryview(data)):
            raise WrongPiece(f"piece {index} is not what its digest promises")

    def write_run(self, first: int, count: int, data: memoryview) -> set[int]:
        """Verify ``count`` pieces from ``first`` on, which lie in ``data`` one after another, and
        write those that are right, which are held from then on. Returns those that are wrong.

        Raises `DiskFull`, after which the same call can be made again, or `IOFailed`, after which
        nothing can. No more of them is held then than before.
        """
        length = self.manifest.piece_length
        views = dict(enumerate(self.manifest.cut(data, count), first))
        with self._gate:
            self._require_sound()
            right = []
            for index, view in views.items():
                if self.manifest.verifies(index, view):
                    right.append(index)
                    # Before it is written: it is in the cache now, and what is written again after
                    # a failure is the same.
                    self._whole.feed(index, view)
            stretches = self._stretches(right)
            for hole, pieces in stretches:
                begin, end = pieces.start - first, pieces.stop - first
                self._put(hole, pieces.start, data[begin * length : end * length])
            for _, pieces in stretches:
                self._hold(pieces, unsynced=True)
        return views.keys() - set(right)

    def _stretches(self, pieces: list[int]) -> list[tuple[bool, range]]:
        """Ascending pieces as stretches of adjacent ones, and whether they can stay a hole."""
        stretches: list[tuple[bool, range]] = []
        for index in pieces:
            begin = index
            hole = self._pristine and self._is_zeros(index)
            if stretches and stretches[-1][0] == hole and stretches[-1][1].stop == index:
                begin = stretches.pop()[1].start
            stretches.append((hole, range(begin, index + 1)))
        return stretches

    def _put(self, hole: bool, first: int, data: Buffer) -> None:
        offset = first * self.manifest.piece_length
        try:
            if hole:
                self._files.leave_hole(offset, len(data))
            else:
                self._files.write(offset, data)
                if self._files.cut_off:
                    self.invalidate()
        except IOFailed as error:
            self._failed = error
            raise

    def make_zeros(self, first: int, count: int) -> None:
        """Make ``count`` pieces of zeros from ``first`` on, verified like those that came.

        Raises as `write_run`, and `WrongPiece` for one that is not of zeros.
        """
        _, length = self.manifest.run_span(first, count)
        if self.write_run(first, count, memoryview(bytes(length))):
            raise WrongPiece(f"pieces from {first} on are not of zeros")

    def copy_piece(self, index: int, like: int) -> None:
        """Make piece ``index`` as a copy of the held piece ``like``.

        Raises as `read_piece` of ``like``, and as `write_piece`.
        """
        self.write_piece(index, self.read_piece(like))

    def read_piece(self, index: int) -> Buffer:
        """The bytes of a held piece, verified once more so that no wrong byte leaves.

        Raises `BadContent` if they were damaged meanwhile; the piece is no longer held then.
        """
        data = self._read_verified(index, 1)
        if data is None:
            self._lose((index,))
            raise DigestMismatch(f"piece {index} of {quoted(self.part_path)} is damaged", (index,))
        return data

    def read_run(self, first: int, count: int) -> Buffer:
        """The bytes of ``count`` held pieces from ``first`` on, verified once more. Raises as
        `read_piece`, for the first that was damaged."""
        data = self._read_verified(first, count)
        return data or b"".join(map(self.read_piece, range(first, first + count)))

    def _read_verified(self, first: int, count: int) -> Buffer | None:
        """The bytes of pieces that must be held; None if they are not all there and right."""
        with self._gate:
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
        return bool(self._held[index])

    @property
    def held_count(self) -> int:
        return self._held_count

    @property
    def is_complete(self) -> bool:
        """Whether every piece is held. The whole is not verified by that."""
        return self._held_count == len(self._held)

    def held_indexes(self) -> list[int]:
        """The pieces that are held, ascending."""
        return [index for index, held in enumerate(self._held) if held]

    @property
    def unsynced_bytes(self) -> int:
        """About how much would have to be fetched again after a crash."""
        return sum(map(len, self._unsynced)) * self.manifest.piece_length

    def checkpoint(self) -> tuple[int, ...]:
        """Sync what was written and record it in the journal; the pieces that this made durable.

        To be called every few seconds or some 64 MiB. Raises `DiskFull`, after which it can be
        called again, `BadContent` for pieces that did not survive such a failure, or `IOFailed`,
        after which nothing can be done with this object.
        """
        with self._gate, self._checkpoint:
            self._require_sound()
            with self._lock:
                batch, self._unsynced = self._unsynced, []
            if not batch:
                return ()
            try:
                pieces = self._make_durable(batch)
            except BaseException as error:
                with self._lock:
                    self._unsynced = batch + self._unsynced
                self._rewrite = True
                if isinstance(error, IOFailed):
                    self._failed = error
                raise
            self._rewrite = False
            return pieces

    def advance_digest(self) -> bool:
        """Take some pieces into the digest of the whole that came out of order; whether more wait.

        For a worker thread with nothing better to do, some 20 ms at a time: what is left of it when
        the last piece has come is waited for in `finalize`.
        """
        with self._gate:
            return self._whole.advance()

    def invalidate(self) -> None:
        """The download is interrupted, and its part lies about where others can write to it: what
        went to the disk is read back before the whole counts as verified."""
        self._whole.invalidate()
        self._verified_at = None

    def _new_digest(self) -> WholeDigest:
        return WholeDigest(self.manifest, self.has, self._files.read_into, self._clock)

    def _make_durable(self, batch: list[range]) -> tuple[int, ...]:
        if self._rewrite:
            self._write_again(batch)
        self._files.sync()
        pieces = dict.fromkeys(index for run in batch for index in run if self.has(index))
        self._journal.append(pieces)
        return tuple(pieces)

    def _write_again(self, batch: list[range]) -> None:
        # The system caches what was written at once in one block, and forgets a block as a whole or
        # not at all.
        for run in batch:
            data = {index: self.read_piece(index) for index in run if self.has(index)}
            self._files.forget_cached(*self.manifest.run_span(run.start, len(run)))
            for index, piece in data.items():
                self._files.write(index * self.manifest.piece_length, piece)

    def _hold(self, pieces: range, unsynced: bool) -> None:
        with self._lock:
            for index in pieces:
                self._held_count += not self._held[index]
                self._held[index] = 1
            if unsynced:
                self._unsynced.append(pieces)

    def _lose(self, pieces: tuple[int, ...]) -> None:
        with self._lock:
            self._pristine = False
            self._verified_at = None
            for index in pieces:
                self._held_count -= self._held[index]
                self._held[index] = 0
        # What was taken in already may have been the damaged bytes.
        self._whole = self._new_digest()

    def _require_sound(self) -> None:
        if self._failed is not None:
            raise IOFailed(self._failed.message, self._failed.hint)

    # -- ending ---------------------------------------------------------------------------------

    def finalize(self, cancelled: Callable[[], bool] = never_cancelled) -> SharedLocation:
        """Verify the whole, put everything on the disk and give it its final name.

        Returns where it lies, ready to be shared; this object can still be read from until it is
        closed. Raises `BadContent` (its pieces are to be fetched again), `AlreadyThere` (what has
        come to stand there is left alone), `DiskFull`; all of them leave the part as it is.

        Of threads that call it at once, one does the work, and the others wait and find it done.
        """
        with self._gate, self._finishing:
            if self._place is None:
                if not self._destination.renamed:
                    self._seal(cancelled)
                self._destination.publish(self._files.fd, self._is_content)
                self._journal.remove()
                self._place = place_of(self.manifest, self.path)
            return self._place

    def _is_content(self, name: str) -> bool:
        """Whether the content stands at ``name`` in the folder, as its digests tell.

        Not by how its files look, which some file systems tell late.
        """
        right = 0

        def in_order(index: int, _: memoryview, digest: bytes | None) -> None:
            nonlocal right
            right += digest == self.manifest.piece_digest(index)

        files = PartFolder if self.manifest.is_folder else PartFile
        try:
            found = files(self.manifest, self._destination, self._destination.open(name))
        except UnsafeDestination:
            return False
        try:
            place_of(self.manifest, os.path.join(self._destination.folder, name))
            pieces = range(self.manifest.piece_count)
            self._hash(pieces, in_order, never_cancelled, None, found.read_into)
        except ContentChanged:
            return False
        finally:
            found.close()
        return right == self.manifest.piece_count

    def _seal(self, cancelled: Callable[[], bool]) -> None:
        if not self.is_complete:
            raise LocalProtocolError("a download cannot be finished before it is complete")
        self._require_sound()
        self.checkpoint()  # first, for a full disk is mostly found here: verifying takes its time
        if self._verified_at is None or self._clock() - self._verified_at > DIGEST_TRUST_S:
            self._verify_whole(cancelled)
            self._verified_at = self._clock()
        try:
            cut_off = self._files.seal()
        except IOFailed as error:
            self._failed = error
            raise
        if cut_off:
            self._lose_damaged(self._pieces_in(cut_off))

    def _pieces_in(self, stretches: list[Range]) -> tuple[int, ...]:
        length = self.manifest.piece_length
        return tuple(
            sorted(
                {
                    index
                    for offset, size in stretches
                    for index in range(offset // length, (offset + size - 1) // length + 1)
                }
            )
        )

    def _lose_damaged(self, pieces: tuple[int, ...]) -> NoReturn:
        self._lose(pieces)
        raise DigestMismatch(f"{quoted(self.part_path)} was damaged on the disk", pieces)

    def _verify_whole(self, cancelled: Callable[[], bool]) -> None:
        if self._whole.finish(cancelled) == self.manifest.digest:
            return
        bad, digest = self._examine(cancelled)
        if bad:
            self._lose_damaged(bad)
        if digest != self.manifest.digest:
            raise DigestMismatch(
                f"the pieces of {quoted(self.path)} do not make up what was promised",
                (),
                "whoever shared it first described it wrongly; ask for it to be shared again",
            )

    def _examine(self, cancelled: Callable[[], bool]) -> tuple[tuple[int, ...], bytes]:
        """Digest everything from the disk: the pieces that are wrong, and the whole's digest."""
        bad: list[int] = []
        whole = self.manifest.algorithm.new()

        def in_order(index: int, view: memoryview, digest: bytes | None) -> None:
            whole.update(view)
            if digest != self.manifest.piece_digest(index):
                bad.append(index)

        self._hash(range(self.manifest.piece_count), in_order, cancelled, None)
        return tuple(bad), whole.digest()

    def _hash(
        self,
        indexes: Sequence[int],
        in_order: InOrder,
        cancelled: Callable[[], bool],
        threads: int | None,
        read_into: Callable[[int, memoryview], bool] | None = None,
    ) -> None:
        hash_pieces(
            indexes,
            self.manifest.piece_span,
            read_into or self._files.read_into,
            self.manifest.algorithm,
            in_order,
            threads=threads,
            cancelled=cancelled,
        )

    def discard(self) -> None:
        """Give the download up: close it and remove the journal and the part, if that is ours."""
        try:
            if not self._ours:
                self.recover()
        except AlreadyExists:
            self.close()
        if self._gate.close():
            try:
                self._destination.remove_part(self._files.fd)
            finally:
                self._release()
        self._journal.remove()

    def close(self) -> None:
        """Wait for the calls that are under way, then close everything. The part stays."""
        if self._gate.close():
            self._release()

    def _release(self) -> None:
        self._files.close()
        self._journal.close()
        self._destination.close()
