"""Digests of complete content that is read in place: each piece, and the whole.

Owns: the choice between the compiled data path and Python, with the same results. Not here: what a
digest is compared with (see peer.files.sharing).
"""

from __future__ import annotations

from collections.abc import Callable

from common.digests import Algorithm
from peer.files.byte_count import DIGESTED
from peer.files.hashing import Span, hash_pieces, map_in_order, never_cancelled
from peer.files.source_files import SourceFiles
from peer.native.digests import PieceDigest, placing, whole_of

Progress = Callable[[int], None]
"""Called with the bytes done so far, from a worker thread, once per piece."""
OnPiece = Callable[[int, bytes], None]
"""Called with each piece and its digest, in order, by one thread at a time."""


def no_progress(_: int) -> None:
    """The progress of work without an observer."""


def digest_all(
    pieces: range,
    span: Span,
    files: SourceFiles,
    algorithm: Algorithm,
    on_piece: OnPiece,
    *,
    whole: bool = True,
    on_progress: Progress = no_progress,
    threads: int | None = None,
    cancelled: Callable[[], bool] = never_cancelled,
) -> bytes:
    """Digest all pieces on all cores; return the digest of the whole, or nothing without ``whole``.

    Raises the errors of `SourceFiles.read`, those of ``on_piece``, and `Cancelled`.
    """
    done = 0
    if placing(algorithm) is not None:
        places = bytearray()
        only = b""

        def on_placed(index: int, found: PieceDigest) -> None:
            nonlocal done, only
            on_piece(index, found.digest)
            only = found.digest
            places.extend(found.place)
            done += span(index)[1]
            on_progress(done)

        def digest(index: int) -> PieceDigest:
            offset, length = span(index)
            found = files.digest(offset, length)
            DIGESTED.add(length)
            return found

        map_in_order(pieces, digest, on_placed, threads=threads, cancelled=cancelled)
        return whole_of(places, only) if whole else b""

    stream = algorithm.new()

    def in_order(index: int, view: memoryview, found: bytes | None) -> None:
        nonlocal done
        on_piece(index, found or b"")
        if whole:
            stream.update(view)
        done += len(view)
        on_progress(done)

    hash_pieces(
        pieces, span, files.read_into, algorithm, in_order, threads=threads, cancelled=cancelled
    )
    return stream.digest() if whole else b""
