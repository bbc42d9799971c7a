"""The manifest of a content: its files and folders, their times, and the digests of its pieces.

Owns: its encoding, its id, its consistency rules, and the position of each piece. The
entries' bytes laid end to end, in the manifest's order, are one stream; pieces are cuts of that
stream. Not here: files (see ``peer.files.sharing``, which makes manifests, and
``peer.files.partial_content``).

A content's id is the BLAKE3 of its encoded manifest. It holds neither the name of the share nor its
owner. A member who shares bytes that a group has already joins under that manifest, whatever times,
pieces or algorithm their own would have (``peer.shares.joining``).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from itertools import accumulate, islice
from typing import Annotated, NamedTuple

import msgspec
from blake3 import blake3
from msgspec import Meta

from common import limits
from common.digests import DIGEST_BYTES_MAX, Algorithm, Buffer
from common.errors import IntegrityError, LocalProtocolError, RemoteProtocolError
from common.ids import ContentId
from common.names import PATH_BYTES_MAX, BadName, PathOrder

MANIFEST_FORMAT = 1  # without times: what is shared so, and all that came before format 2
TIMED_FORMAT = 2  # with the time of each entry and folder
TIME_MAX = (1 << 63) - 1  # nanoseconds: to the year 2262, in 64 bits with a sign


class EntryKind(IntEnum):
    """Kind of an entry. The executable bit is the only permission that is transferred."""

    FILE = 0
    EXECUTABLE = 1
    FOLDER = 2


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False, forbid_unknown_fields=True):
    """A file, or a folder that is empty; other folders are known from the paths.

    ``path`` is relative to the share and separated by ``/``; it is empty for the one entry of a
    share that is a single file. ``size`` is in bytes.
    """

    path: Annotated[str, Meta(max_length=PATH_BYTES_MAX)]
    size: Annotated[int, Meta(ge=0, lt=limits.CONTENT_BYTES_MAX)]
    kind: EntryKind = EntryKind.FILE


class Manifest(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A content. ``pieces`` holds the digests of the pieces, end to end; ``digest`` is that of the
    whole stream; ``size`` is the stream's length in bytes.

    ``times``, in format 2 alone, are those of the last modification, in nanoseconds since 1970: of
    each entry in order, then of each folder that the paths name (`folders_of`).
    """

    format: Annotated[int, Meta(ge=MANIFEST_FORMAT, le=TIMED_FORMAT)]
    algorithm: Algorithm
    piece_length: Annotated[int, Meta(ge=limits.PIECE_LENGTH_MIN, le=limits.PIECE_LENGTH_MAX)]
    size: Annotated[int, Meta(ge=0, lt=limits.CONTENT_BYTES_MAX)]
    digest: Annotated[bytes, Meta(max_length=DIGEST_BYTES_MAX)]
    pieces: Annotated[bytes, Meta(max_length=limits.PIECES_MAX * DIGEST_BYTES_MAX)]
    entries: Annotated[tuple[Entry, ...], Meta(max_length=limits.ENTRIES_MAX)]
    times: Annotated[
        tuple[Annotated[int, Meta(ge=0, le=TIME_MAX)], ...], Meta(max_length=limits.TIMES_MAX)
    ] = ()

    @property
    def is_folder(self) -> bool:
        return len(self.entries) != 1 or self.entries[0].path != ""

    @property
    def piece_count(self) -> int:
        return count_pieces(self.size, self.piece_length)

    @property
    def file_count(self) -> int:
        return sum(entry.kind is not EntryKind.FOLDER for entry in self.entries)

    def piece_span(self, index: int) -> tuple[int, int]:
        """Return offset and length in bytes of piece ``index`` in the stream."""
        return self.run_span(index, 1)

    def run_span(self, first: int, count: int) -> tuple[int, int]:
        """Return offset and length in bytes of ``count`` pieces from ``first`` on."""
        offset, last = first * self.piece_length, first + count - 1
        if first < 0 or last < first or last * self.piece_length >= self.size:
            raise LocalProtocolError(f"there are no pieces {first} to {last} in this content")
        return offset, min(count * self.piece_length, self.size - offset)

    def cut(self, data: Buffer, count: int) -> list[memoryview]:
        """Cut ``data`` into ``count`` adjacent pieces.

        Surplus bytes go to the last piece, which then fails its check.
        """
        length, view = self.piece_length, memoryview(data)
        begins = [n * length for n in range(count)]
        ends = [*begins[1:], len(view)]
        return [view[begin:end] for begin, end in zip(begins, ends, strict=True)]

    def piece_digest(self, index: int) -> bytes:
        size = self.algorithm.digest_size
        return self.pieces[index * size : (index + 1) * size]

    def verifies(self, index: int, data: Buffer) -> bool:
        """Whether ``data`` is piece ``index``, by its length and its digest."""
        if len(data) != self.piece_span(index)[1]:
            return False
        return self.algorithm.digest_of(data) == self.piece_digest(index)


def folders_of(entries: Iterable[Entry]) -> Iterator[str]:
    """The folders that the paths of a folder's entries name, in the order in which they come first:
    ``""`` for the one at the top, then those that hold something. Empty ones are entries."""
    yield ""
    last: list[str] = []
    above = ""
    for entry in entries:
        folder = entry.path.rpartition("/")[0]
        if folder == above:  # as that of the entry before: of most, where there are many
            continue
        above = folder
        parents = folder.split("/") if folder else []
        level = 0
        while level < len(parents) and level < len(last) and parents[level] == last[level]:
            level += 1
        for depth in range(level + 1, len(parents) + 1):
            yield "/".join(parents[:depth])
        last = parents


def inner_folders(entries: Sequence[Entry]) -> set[str]:
    """All folders within a folder with these entries: those that hold something, and empty ones."""
    empty = {entry.path for entry in entries if entry.kind is EntryKind.FOLDER}
    return empty.union(folders_of(entries)) - {""}


def kept_time(time_ns: int) -> int:
    """The time of a file as a manifest can hold it: from 1970 to 2262."""
    return min(max(0, time_ns), TIME_MAX)


def count_pieces(size: int, piece_length: int) -> int:
    """Return the number of pieces of a stream of ``size`` bytes; the last may be short."""
    return -(-size // piece_length)


def piece_length_for(size: int) -> int:
    """Return the default piece length in bytes for a content of ``size`` bytes.

    Invariant: it depends on the size alone, so all members who share a content have equal pieces.
    """
    length = limits.PIECE_LENGTH_DEFAULT
    while length < limits.PIECE_LENGTH_GROWN and size >= limits.PIECES_WANTED * 2 * length:
        length *= 2
    while length < limits.PIECE_LENGTH_MAX and count_pieces(size, length) > limits.PIECES_MAX:
        length *= 2
    return length


# -- encoding -----------------------------------------------------------------------------------

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Manifest)


def manifest_id(encoded: Buffer) -> ContentId:
    """The id of the content that an encoded manifest describes."""
    return ContentId(blake3(encoded).digest())


def encode(manifest: Manifest) -> bytes:
    """The one encoding of a manifest.

    Raises `LocalProtocolError` if it is not consistent, `BadName` for names that are not allowed.
    """
    fault = _fault_of(manifest)
    if fault is not None:
        raise LocalProtocolError(f"a manifest that is not consistent: {fault}")
    _check_entries(manifest)
    encoded = _encoded(manifest)
    if len(encoded) > limits.MANIFEST_BYTES_MAX:
        raise LocalProtocolError("a manifest that is too large")
    return encoded


def decode(encoded: Buffer, expected_id: ContentId) -> Manifest:
    """The manifest that these bytes encode, after it passed every rule.

    Raises `IntegrityError` when the bytes are not those of ``expected_id``, and
    `RemoteProtocolError` for a manifest that breaks a bound or contradicts itself. Bounds are
    checked before memory is taken for what they bound.
    """
    if len(encoded) > limits.MANIFEST_BYTES_MAX:
        raise RemoteProtocolError(
            f"a manifest of {len(encoded)} bytes; at most {limits.MANIFEST_BYTES_MAX} are allowed"
        )
    if manifest_id(encoded) != expected_id:
        raise IntegrityError("the manifest does not match its digest")
    try:
        manifest = _decoder.decode(encoded)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        raise RemoteProtocolError(f"a malformed manifest: {error}") from error
    fault = _fault_of(manifest)
    if fault is not None:
        raise RemoteProtocolError(f"a manifest that is not consistent: {fault}")
    try:
        _check_entries(manifest)
    except BadName as error:
        raise RemoteProtocolError(f"a manifest with a bad name: {error.message}") from error
    # One content, one id: other encodings of the same values are not let through.
    if _encoded(manifest) != encoded:
        raise RemoteProtocolError("a manifest that is not in its one encoding")
    return manifest


def _encoded(manifest: Manifest) -> bytes:
    if manifest.format == TIMED_FORMAT:
        return _encoder.encode(manifest)
    fields = manifest.__struct_fields__[:-1]
    return _encoder.encode([getattr(manifest, field) for field in fields])


def _fault_of(manifest: Manifest) -> str | None:
    digest_size = manifest.algorithm.digest_size
    if not limits.PIECE_LENGTH_MIN <= manifest.piece_length <= limits.PIECE_LENGTH_MAX:
        return "its piece length is out of range"
    if manifest.piece_length & (manifest.piece_length - 1):
        return "its piece length is not a power of two"
    if len(manifest.entries) > limits.ENTRIES_MAX:
        return "it has too many entries"
    if manifest.size != sum(entry.size for entry in manifest.entries):
        return "its entries do not add up to its size"
    if manifest.size >= limits.CONTENT_BYTES_MAX:
        return "its size is out of range"
    if manifest.piece_count > limits.PIECES_MAX:
        return "it has too many pieces"
    if len(manifest.digest) != digest_size:
        return "its digest has the wrong length"
    if len(manifest.pieces) != manifest.piece_count * digest_size:
        return "it has the wrong number of piece digests"
    if any(entry.size for entry in manifest.entries if entry.kind is EntryKind.FOLDER):
        return "a folder has a size"
    if not manifest.is_folder and manifest.entries[0].kind is EntryKind.FOLDER:
        return "a folder has no path"
    return _fault_of_times(manifest)


def _fault_of_times(manifest: Manifest) -> str | None:
    expected = 0
    if manifest.format == TIMED_FORMAT:
        expected = len(manifest.entries)
        if manifest.is_folder:
            # No more of them are counted than there can be: hostile paths name very many.
            wanted = len(manifest.times) + 1
            expected += sum(1 for _ in islice(folders_of(manifest.entries), wanted))
    return None if len(manifest.times) == expected else "it has the wrong number of times"


def _check_entries(manifest: Manifest) -> None:
    if not manifest.is_folder:
        return
    order = PathOrder()
    for entry in manifest.entries:
        order.add(entry.path)


# -- position of each byte -----------------------------------------------------------------------


class Segment(NamedTuple):
    """Range of one file: number of the entry, offset and length in bytes."""

    entry: int
    offset: int
    length: int


class StreamLayout:
    """Map from ranges of the stream to ranges of files, by bisection."""

    __slots__ = ("_ends", "_entries", "_filled", "_piece_length", "size")

    def __init__(self, entries: tuple[Entry, ...], piece_length: int) -> None:
        # Entries without bytes are no part of the stream; bisection must not stop at them.
        self._filled = [number for number, entry in enumerate(entries) if entry.size]
        self._ends = list(accumulate(entries[number].size for number in self._filled))
        self._entries = entries
        self._piece_length = piece_length
        self.size = self._ends[-1] if self._ends else 0

    def span(self, index: int) -> tuple[int, int]:
        """Return offset and length in bytes of piece ``index`` in the stream."""
        offset = index * self._piece_length
        if index < 0 or offset >= self.size:
            raise LocalProtocolError(f"there is no piece {index} in this content")
        return offset, min(self._piece_length, self.size - offset)

    def stretch(self, offset: int, length: int) -> list[Segment]:
        """Return the ranges of files that hold ``length`` bytes of the stream from ``offset``."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise LocalProtocolError(f"no {length} bytes from {offset} in a stream of {self.size}")
        return list(self._walk(offset, length))

    def entries_in(self, offset: int, length: int) -> list[int]:
        """Return the numbers of the entries with a byte in a range, which is not empty."""
        first = bisect_right(self._ends, offset)
        return self._filled[first : bisect_right(self._ends, offset + length - 1) + 1]

    def _walk(self, offset: int, length: int) -> Iterator[Segment]:
        place = bisect_right(self._ends, offset)
        while length > 0:
            number = self._filled[place]
            entry_size = self._entries[number].size
            start = offset - (self._ends[place] - entry_size)
            taken = min(length, entry_size - start)
            yield Segment(number, start, taken)
            offset += taken
            length -= taken
            place += 1
