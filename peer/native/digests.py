"""BLAKE3 digests of pieces, alone and at their place in the whole, by the compiled data path.

The digest of the whole follows from the places of all pieces, in whatever order they were digested.
So all cores take part, and no piece has to wait for an earlier one.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import NamedTuple

from common.digests import Algorithm, Buffer
from common.manifest import Manifest
from peer.native.library import Library, address_of, library

PLACE_BYTES = 32


class PieceDigest(NamedTuple):
    """Digests of one piece: ``digest`` of it alone, and its chaining value at its place in the
    whole."""

    digest: bytes
    place: bytes


def placing(algorithm: Algorithm) -> Library | None:
    """The library, if it is used and has this algorithm."""
    return library() if algorithm is Algorithm.BLAKE3 else None


def digest_at(data: Buffer, offset: int) -> PieceDigest:
    """Digest a piece that begins at ``offset`` of the whole. Needs the library."""
    digest, place = _outputs()
    with address_of(data) as address:
        _call().mt_digest(address, memoryview(data).nbytes, offset, digest, place)
    return PieceDigest(digest.raw, place.raw)


def place_at(data: Buffer, offset: int) -> bytes:
    """The value at its place of a piece that begins at ``offset``. Needs the library."""
    place = ctypes.create_string_buffer(PLACE_BYTES)
    with address_of(data) as address:
        _call().mt_digest(address, memoryview(data).nbytes, offset, None, place)
    return place.raw


def digest_of_file(fd: int, at: int, length: int, offset: int) -> PieceDigest | None:
    """Digest ``length`` bytes of a file from ``at``, a piece at ``offset`` of the whole.

    Return None if the file ends before. Raises `OSError`. Needs the library.
    """
    digest, place = _outputs()
    error = _call().mt_digest_file(fd, at, length, offset, digest, place)
    if error == errno.ENODATA:
        return None
    if error:
        raise OSError(error, os.strerror(error))
    return PieceDigest(digest.raw, place.raw)


def whole_of(places: Buffer, only: bytes) -> bytes:
    """The digest of the whole. ``only``: the digest of the piece, if there is one alone."""
    count = memoryview(places).nbytes // PLACE_BYTES
    if count < 2:
        return only if count else Algorithm.BLAKE3.digest_of(b"")
    whole = ctypes.create_string_buffer(PLACE_BYTES)
    with address_of(places) as address:
        _call().mt_whole(address, count, whole)
    return whole.raw


def whole_of_manifest(manifest: Manifest, places: Buffer) -> bytes:
    """The digest of the whole content of ``manifest``, from the places of all its pieces."""
    return whole_of(places, manifest.piece_digest(0) if manifest.piece_count else b"")


def _outputs() -> tuple[ctypes.Array[ctypes.c_char], ctypes.Array[ctypes.c_char]]:
    return ctypes.create_string_buffer(PLACE_BYTES), ctypes.create_string_buffer(PLACE_BYTES)


def _call() -> ctypes.CDLL:
    found = library()
    assert found is not None, "the caller has asked whether there is one"
    return found.call
