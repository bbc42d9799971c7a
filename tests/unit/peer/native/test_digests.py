"""Digests of both data paths are equal: pieces, the whole, and what a changed file gets."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.digests import Buffer
from peer.files import sharing
from peer.files.errors import Cancelled, ContentChanged
from peer.files.placed_digest import PlacedDigest
from peer.files.whole_digest import DIGEST_TRUST_S
from peer.native import digests, library
from peer.native.fetcher import new_places
from tests.support.data_paths import COMPILED, PYTHON, both_paths, needs_library
from tests.support.serving_harness import MANIFEST, piece

PIECE = 16 * 1024
ODD = (-1025, -1024, -1, 0, 1, 1023, 1024)


@needs_library
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    pieces=st.integers(1, 20),
    odd=st.sampled_from(ODD),
    length=st.sampled_from([PIECE, 64 * 1024, 256 * 1024]),
    seed=st.integers(0, 1 << 32),
)
def test_the_places_of_all_pieces_make_the_digest_of_the_whole(
    pieces: int, odd: int, length: int, seed: int
) -> None:
    data = random.Random(seed).randbytes(max(1, min(pieces, 2 << 20 // length) * length + odd))
    found = [digests.digest_at(data[at : at + length], at) for at in range(0, len(data), length)]
    assert [one.digest for one in found] == [
        blake3(data[at : at + length]).digest() for at in range(0, len(data), length)
    ]
    places = b"".join(one.place for one in found)
    assert digests.whole_of(places, found[-1].digest) == blake3(data).digest()


def _manifests(path: Path, length: int) -> list[object]:
    found = []
    for wanted in (False, True):
        library.use(wanted)
        found.append(sharing.digest(str(path), piece_length=length).manifest)
    return found


@needs_library
@pytest.mark.parametrize("size", [0, 1, PIECE, PIECE + 1, 7 * PIECE + 333])
def test_a_file_gets_the_same_manifest_on_both_paths(tmp_path: Path, size: int) -> None:
    (tmp_path / "one").write_bytes(random.Random(size).randbytes(size))
    python, compiled = _manifests(tmp_path / "one", PIECE)
    assert python == compiled


@needs_library
def test_a_folder_gets_the_same_manifest_on_both_paths(tmp_path: Path) -> None:
    rng = random.Random(1)
    for number in range(40):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{number}").write_bytes(rng.randbytes(rng.randrange(3 * PIECE)))
    (tmp_path / "in" / "large").write_bytes(rng.randbytes(5 * PIECE))
    python, compiled = _manifests(tmp_path, PIECE)
    assert python == compiled


@both_paths
def test_each_path_verifies_the_manifest_of_the_other(data_path: str, tmp_path: Path) -> None:
    path = tmp_path / "one"
    path.write_bytes(random.Random(2).randbytes(9 * PIECE + 5))
    made = sharing.digest(str(path), piece_length=PIECE)
    library.use(data_path == PYTHON)
    sharing.verify(made.manifest, made.place, whole=True)


@both_paths
def test_a_file_that_was_changed_is_found_on_both_paths(data_path: str, tmp_path: Path) -> None:
    path = tmp_path / "one"
    path.write_bytes(random.Random(3).randbytes(9 * PIECE))
    made = sharing.digest(str(path), piece_length=PIECE)
    path.write_bytes(b"other" + path.read_bytes()[5:])
    with pytest.raises(ContentChanged):
        sharing.recheck(made.manifest, str(path))


@both_paths
def test_progress_is_reported_in_order_and_the_work_can_be_cancelled(
    data_path: str, tmp_path: Path
) -> None:
    path = tmp_path / "one"
    path.write_bytes(bytes(9 * PIECE + 1))
    seen: list[int] = []
    sharing.digest(str(path), piece_length=PIECE, on_progress=seen.append)
    assert seen == [*range(PIECE, 9 * PIECE + 1, PIECE), 9 * PIECE + 1]
    with pytest.raises(Cancelled):
        sharing.digest(str(path), piece_length=PIECE, cancelled=lambda: True)
    assert data_path in (PYTHON, COMPILED)


@needs_library
def test_a_digest_that_is_not_trusted_takes_in_nothing_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    placed: list[int] = []

    def place_at(_: Buffer, offset: int) -> bytes:
        placed.append(offset)
        return bytes(digests.PLACE_BYTES)

    monkeypatch.setattr("peer.files.placed_digest.place_at", place_at)
    now = [0.0]
    digest = PlacedDigest(
        MANIFEST, lambda _: True, lambda *_: True, new_places(MANIFEST), lambda: now[0]
    )
    digest.feed(0, piece(0))
    now[0] += DIGEST_TRUST_S + 1
    digest.feed(1, piece(1))
    assert placed == [0]
    assert digest.finish() is None
