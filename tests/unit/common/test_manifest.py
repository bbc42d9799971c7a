"""Manifests: id, rules that hostile ones break (H32, H33), and positions of bytes."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import limits
from common.digests import Algorithm
from common.errors import IntegrityError, LocalProtocolError, RemoteProtocolError
from common.ids import ContentId
from common.manifest import (
    Entry,
    EntryKind,
    Manifest,
    StreamLayout,
    count_pieces,
    decode,
    encode,
    manifest_id,
    piece_length_for,
)

KIB = 1024
PIECE = 16 * KIB


def manifest_of(*entries: Entry, **changes: Any) -> Manifest:
    """A manifest that is consistent but for the changes, of pieces that no device has."""
    size = sum(entry.size for entry in entries)
    fields: dict[str, Any] = {
        "format": 1,
        "algorithm": Algorithm.BLAKE3,
        "piece_length": PIECE,
        "size": size,
        "digest": bytes(32),
        "entries": entries,
    }
    if "pieces" not in changes:
        changes["pieces"] = bytes(32 * count_pieces(size, PIECE))
    return Manifest(**{**fields, **changes})


def decode_raw(manifest: Manifest) -> Manifest:
    """Decode what a liar could have encoded: no rule is applied on the way out."""
    encoded = msgspec.msgpack.encode(manifest)
    return decode(encoded, manifest_id(encoded))


# -- identity -----------------------------------------------------------------------------------


def test_encoding_and_decoding_give_the_same_manifest() -> None:
    manifest = manifest_of(
        Entry("a", 0), Entry("b/c", 40_000, EntryKind.EXECUTABLE), Entry("d", 0, EntryKind.FOLDER)
    )
    encoded = encode(manifest)
    assert decode(encoded, manifest_id(encoded)) == manifest
    assert decode(memoryview(encoded), manifest_id(encoded)) == manifest


def test_golden_bytes() -> None:
    """A change of these changes the protocol, and the id of every content."""
    encoded = encode(manifest_of(Entry("a b", 3), Entry("x", 0, EntryKind.FOLDER)))
    assert encoded.hex() == (
        "9701a6626c616b6533cd400003c420"
        + "00" * 32
        + "c420"
        + "00" * 32
        + "9293a36120620300"
        + "93a1780002"
    )
    assert manifest_id(encoded).hex() == (
        "3adf7d32f21b217d011d18ce9cca78d40c7ef7d083bfd97fab9be24b2e700e2b"
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"digest": b"\x01" * 32},
        {"pieces": b"\x01" * 64},
        {"entries": (Entry("a", 20_000, EntryKind.EXECUTABLE),)},
        {"entries": (Entry("b", 20_000),)},
        {"piece_length": 32 * KIB, "pieces": bytes(32)},
    ],
)
def test_another_content_has_another_id(changes: dict[str, Any]) -> None:
    one, other = manifest_of(Entry("a", 20_000)), manifest_of(Entry("a", 20_000), **changes)
    assert manifest_id(encode(one)) != manifest_id(encode(other))


# -- hostile manifests --------------------------------------------------------------------------


def test_H33_a_manifest_that_is_not_the_expected_one_is_refused() -> None:
    encoded = bytearray(encode(manifest_of(Entry("", 100_000))))
    expected = manifest_id(encoded)
    for place in range(len(encoded)):
        encoded[place] ^= 1
        with pytest.raises(IntegrityError):
            decode(encoded, expected)
        encoded[place] ^= 1
    with pytest.raises(IntegrityError):
        decode(encoded + b"\x00", expected)
    with pytest.raises(IntegrityError):
        decode(encoded[:-1], expected)


BIG = limits.CONTENT_BYTES_MAX - 1


@pytest.mark.parametrize(
    "manifest",
    [
        manifest_of(Entry("", 1), piece_length=0),
        manifest_of(Entry("", 1), piece_length=-PIECE),
        manifest_of(Entry("", 1), piece_length=PIECE + 1),
        manifest_of(Entry("", 1), piece_length=8 * KIB),
        manifest_of(Entry("", 1), piece_length=8 * 1024 * KIB),
        manifest_of(Entry("", 1), pieces=b""),
        manifest_of(Entry("", 1), pieces=bytes(31)),
        manifest_of(Entry("", 1), pieces=bytes(64)),
        manifest_of(Entry("", 0), pieces=bytes(32)),
        manifest_of(Entry("", 1), digest=bytes(20)),
        manifest_of(Entry("", 1), digest=b""),
        manifest_of(Entry("", 1), algorithm=Algorithm.SHA1),
        manifest_of(Entry("", 1), algorithm="md5"),
        manifest_of(Entry("", 1), format=2),
        manifest_of(Entry("", 1), size=2),
        manifest_of(Entry("", -1), size=0, pieces=b""),
        manifest_of(Entry("", 1 << 53), pieces=b""),
        manifest_of(Entry("", (1 << 64) - 1), pieces=b""),
        manifest_of(Entry("a", BIG), Entry("b", BIG), size=2 * BIG, pieces=b""),
        manifest_of(Entry("a", BIG), Entry("b", BIG), size=BIG, pieces=b""),
        manifest_of(Entry("", BIG), pieces=b""),
        manifest_of(Entry("", 0, EntryKind.FOLDER)),
        manifest_of(Entry("a", 1, EntryKind.FOLDER)),
        manifest_of(Entry("a", 1, 3)),
        manifest_of(Entry("", 1), Entry("", 1)),
        manifest_of(Entry("", 1), Entry("a", 1)),
        manifest_of(Entry("a", 1), Entry("a", 1)),
        manifest_of(Entry("b", 1), Entry("a", 1)),
        manifest_of(Entry("a", 1), Entry("a/b", 1)),
        manifest_of(Entry("A", 1), Entry("a", 1)),
        manifest_of(Entry("../a", 1)),
        manifest_of(Entry("/a", 1)),
        manifest_of(Entry("x" * 1025, 1)),
    ],
)
def test_H32_a_manifest_that_breaks_a_rule_is_refused(manifest: Manifest) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_raw(manifest)


def test_a_manifest_of_ours_that_breaks_a_rule_is_a_defect() -> None:
    with pytest.raises(LocalProtocolError):
        encode(manifest_of(Entry("", 1), pieces=b""))


@pytest.mark.parametrize("body", [b"", b"\x93\xa1a\x00\x00" * 10_000_000], ids=["claimed", "sent"])
@pytest.mark.parametrize("header", [b"\xdd\x00\x98\x96\x80", b"\xdd\xff\xff\xff\xff"])
def test_H32_ten_million_entries_are_refused_before_memory_is_taken(
    header: bytes, body: bytes
) -> None:
    whole = encode(manifest_of())
    encoded = whole[:-1] + header + body  # the last byte was the empty list of entries
    identity = manifest_id(encoded)
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError):
            decode(encoded, identity)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_H32_an_encoding_beyond_the_limit_is_refused_unread() -> None:
    with pytest.raises(RemoteProtocolError):
        decode(bytes(limits.MANIFEST_BYTES_MAX + 1), ContentId(bytes(32)))


def test_another_encoding_of_the_same_values_is_refused() -> None:
    encoded = encode(manifest_of())
    assert encoded[1] == 1
    longer = encoded[:1] + b"\xcc\x01" + encoded[2:]  # the number one in two bytes
    with pytest.raises(RemoteProtocolError):
        decode(longer, manifest_id(longer))


@given(st.binary(max_size=200))
def test_noise_is_refused_and_nothing_else_happens(noise: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode(noise, manifest_id(noise))


valid = encode(manifest_of(Entry("a", 5), Entry("b/c", 40_000), Entry("d", 0, EntryKind.FOLDER)))


@settings(max_examples=300)
@given(st.integers(0, len(valid) - 1), st.binary(min_size=1, max_size=6))
def test_an_altered_manifest_is_refused_or_consistent(place: int, patch: bytes) -> None:
    altered = valid[:place] + patch + valid[place + len(patch) :]
    try:
        manifest = decode(altered, manifest_id(altered))
    except RemoteProtocolError:
        return
    assert encode(manifest) == altered
    assert StreamLayout(manifest.entries, manifest.piece_length).size == manifest.size


# -- pieces -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "pieces", "last"),
    [(0, 0, None), (1, 1, 1), (PIECE - 1, 1, PIECE - 1), (PIECE, 1, PIECE), (PIECE + 1, 2, 1)],
)
def test_pieces_of_sizes_around_one(size: int, pieces: int, last: int | None) -> None:
    manifest = manifest_of(Entry("", size))
    assert manifest.piece_count == pieces
    if last is not None:
        assert manifest.piece_span(pieces - 1) == ((pieces - 1) * PIECE, last)
    for index in (-1, pieces, 1 << 63):
        with pytest.raises(LocalProtocolError):
            manifest.piece_span(index)


def test_a_piece_is_verified_by_length_and_digest() -> None:
    data = b"x" * 20_000
    digests = b"".join(Algorithm.SHA1.digest_of(part) for part in (data[:PIECE], data[PIECE:]))
    manifest = manifest_of(
        Entry("", len(data)), algorithm=Algorithm.SHA1, digest=bytes(20), pieces=digests
    )
    assert manifest.verifies(0, data[:PIECE])
    assert manifest.verifies(1, memoryview(data)[PIECE:])
    assert not manifest.verifies(0, data[: PIECE - 1] + b"y")
    assert not manifest.verifies(1, data[:PIECE])
    assert not manifest.verifies(0, b"")


@given(st.integers(0, limits.CONTENT_BYTES_MAX - 1))
def test_a_piece_length_is_found_for_every_size_that_fits(size: int) -> None:
    length = piece_length_for(size)
    assert limits.PIECE_LENGTH_DEFAULT <= length <= limits.PIECE_LENGTH_MAX
    if size <= limits.PIECES_MAX * limits.PIECE_LENGTH_MAX:
        assert count_pieces(size, length) <= limits.PIECES_MAX


@pytest.mark.parametrize(
    ("size", "length"),
    [
        (0, 256 * limits.KIB),
        (256 * limits.MIB - 1, 256 * limits.KIB),
        (256 * limits.MIB, 512 * limits.KIB),
        (512 * limits.MIB - 1, 512 * limits.KIB),
        (512 * limits.MIB, limits.MIB),
        (limits.KIB * limits.MIB, 2 * limits.MIB),
        (4096 * limits.KIB * limits.MIB, 2 * limits.MIB),
        (4096 * limits.KIB * limits.MIB + 1, 4 * limits.MIB),
    ],
)
def test_pieces_grow_while_there_are_some_hundreds_of_them(size: int, length: int) -> None:
    assert piece_length_for(size) == length


# -- layout -------------------------------------------------------------------------------------

# Small, because the test lists every byte; a layout treats large entries alike.
sizes_of_entries = st.lists(st.integers(0, 500), max_size=30)


@given(sizes_of_entries, st.data())
def test_segments_cover_a_stretch_exactly(sizes: list[int], data: st.DataObject) -> None:
    entries = tuple(Entry(f"{number:03}", size) for number, size in enumerate(sizes))
    layout = StreamLayout(entries, PIECE)
    stream = [(number, offset) for number, size in enumerate(sizes) for offset in range(size)]
    assert layout.size == len(stream)
    start = data.draw(st.integers(0, layout.size))
    length = data.draw(st.integers(0, layout.size - start))
    segments = layout.stretch(start, length)
    covered = [(s.entry, s.offset + step) for s in segments for step in range(s.length)]
    assert covered == stream[start : start + length]
    assert all(one.entry < other.entry for one, other in pairwise(segments))


def test_offsets_beyond_32_bits() -> None:
    layout = StreamLayout((Entry("a", 5 << 30), Entry("b", 0), Entry("c", 5 << 30)), PIECE)
    assert layout.stretch((5 << 30) - 3, 6) == [(0, (5 << 30) - 3, 3), (2, 0, 3)]
    assert layout.span((6 << 30) // PIECE) == (6 << 30, PIECE)


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, 11), (10, 1), (0, -1), (11, 0)])
def test_a_stretch_outside_is_refused(offset: int, length: int) -> None:
    with pytest.raises(LocalProtocolError):
        StreamLayout((Entry("", 10),), PIECE).stretch(offset, length)
