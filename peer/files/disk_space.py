"""Disk space that a content needs, and ranges of zeros that need none.

Owns: the arithmetic. Pieces of zeros are known by their digest before they are fetched, and stay
holes. Not here: free space of the disk (see peer.files.destination).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from operator import itemgetter

from common import limits
from common.manifest import Manifest
from peer.files.partfile import Range
from peer.files.selection import Selection
from peer.swarm.fetching.local_pieces import Alike


def zero_digest(manifest: Manifest) -> bytes:
    """The digest of a piece of zeros, which needs no space and no write."""
    return manifest.algorithm.digest_of(bytes(manifest.piece_length))


def zeros_told(manifest: Manifest) -> Callable[[int], bool]:
    """A test for pieces of zeros, by their digests; the last piece has a length of its own."""
    last = manifest.piece_count - 1
    zero = zero_digest(manifest)
    rest = manifest.size - last * manifest.piece_length
    last_zero = manifest.algorithm.digest_of(bytes(rest)) if manifest.size else b""

    def is_zeros(index: int) -> bool:
        return manifest.piece_digest(index) == (last_zero if index == last else zero)

    return is_zeros


def alike(manifest: Manifest) -> Alike:
    """The pieces that need not be fetched, by their digests: zeros and copies. O(pieces).

    Contents with more than `limits.ALIKE_PIECES_MAX` pieces are searched for zeros only.
    """
    zeros: list[int] = []
    first: dict[bytes, int] = {}
    groups: dict[bytes, list[int]] = {}
    is_zeros = zeros_told(manifest)
    full = manifest.size // manifest.piece_length  # a shorter last piece equals no other
    if manifest.piece_count > limits.ALIKE_PIECES_MAX:
        full = 0
    for index in range(manifest.piece_count):
        if is_zeros(index):
            zeros.append(index)
        elif index < full:
            digest = manifest.piece_digest(index)
            before = first.setdefault(digest, index)
            if before != index:
                groups.setdefault(digest, [before]).append(index)
    return Alike(tuple(zeros), tuple(map(tuple, groups.values())))


def solid_ranges(manifest: Manifest, wanted: Iterable[int] | None = None) -> Iterator[Range]:
    """The ranges of the stream that are not known to be zeros, in whole pieces.

    ``wanted``: the pieces of a selection; None for all.
    """
    is_zeros = zeros_told(manifest)
    pieces = range(manifest.piece_count)
    chosen = pieces if wanted is None else set(wanted)
    solid = (index in chosen and not is_zeros(index) for index in pieces)
    for is_solid, run in groupby(enumerate(solid), key=itemgetter(1)):
        if is_solid:
            indexes = [index for index, _ in run]
            start = manifest.piece_span(indexes[0])[0]
            yield start, sum(manifest.piece_span(indexes[-1])) - start


def needed_bytes(manifest: Manifest, block_size: int, selection: Selection | None = None) -> int:
    """The disk space of the content in bytes; files begin at whole blocks."""
    entries = range(len(manifest.entries)) if selection is None else selection.entries
    blocks_unfilled = sum(-manifest.entries[number].size % block_size for number in entries)
    wanted = None if selection is None else selection.pieces()
    return sum(length for _, length in solid_ranges(manifest, wanted)) + blocks_unfilled
