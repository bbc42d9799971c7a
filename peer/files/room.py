"""How much room on the disk a content needs, and which stretches of it need none.

Owns the arithmetic alone: pieces of zeros are known by their digest before they are fetched, and
are left as holes. Asking the disk is the business of ``peer.files.destination``.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter

from common.manifest import Manifest
from peer.files.partfile import Range


def zero_digest(manifest: Manifest) -> bytes:
    """The digest of a piece of zeros, which needs no room and no write."""
    return manifest.algorithm.digest_of(bytes(manifest.piece_length))


def solid_ranges(manifest: Manifest) -> Iterator[Range]:
    """The stretches of the stream that are not known to be zeros, in whole pieces."""
    zero = zero_digest(manifest)
    solid = (manifest.piece_digest(index) != zero for index in range(manifest.piece_count))
    for is_solid, run in groupby(enumerate(solid), key=itemgetter(1)):
        if is_solid:
            indexes = [index for index, _ in run]
            start = manifest.piece_span(indexes[0])[0]
            yield start, sum(manifest.piece_span(indexes[-1])) - start


def needed_bytes(manifest: Manifest, block_size: int) -> int:
    """Room that the content takes on the disk; files begin at whole blocks."""
    blocks_unfilled = sum(-entry.size % block_size for entry in manifest.entries)
    return sum(length for _, length in solid_ranges(manifest)) + blocks_unfilled
