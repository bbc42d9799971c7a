"""Journals of downloads: cut, damaged, or links."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.ids import ContentId
from peer.files.errors import (
    UnsafeDestination,
)
from peer.files.journal import Journal

CONTENT = ContentId(bytes(range(32)))
pieces_lists = st.lists(st.integers(0, 99), max_size=20)
function_scoped = [HealthCheck.function_scoped_fixture]


@settings(suppress_health_check=function_scoped, max_examples=40)
@given(batches=st.lists(pieces_lists, max_size=4), cut=st.integers(0, 60))
def test_a_journal_cut_anywhere_gives_a_prefix(
    batches: list[list[int]], cut: int, tmp_path: Path
) -> None:
    path = tmp_path / "journal"
    journal = Journal.create(str(path), CONTENT)
    written = [piece for batch in batches for piece in batch]
    for batch in batches:
        journal.append(batch)
    journal.close()
    os.truncate(path, max(0, path.stat().st_size - cut))
    journal, found = Journal.resume(str(path), CONTENT, 100)
    kept = len(written) - -(-cut // 8)
    assert found.intact == (kept >= 0)
    assert found.pieces == tuple(dict.fromkeys(written[: max(0, kept)]))
    if not found.intact:
        journal.begin()
    journal.append([7])
    journal.close()
    journal, found = Journal.resume(str(path), CONTENT, 100)
    assert 7 in found.pieces
    assert found.intact
    journal.remove()


@settings(suppress_health_check=function_scoped, max_examples=40)
@given(pieces=st.lists(st.integers(0, 99), min_size=1, max_size=9), data=st.data())
def test_a_journal_with_a_flipped_bit_is_not_trusted(
    pieces: list[int], data: st.DataObject, tmp_path: Path
) -> None:
    path = tmp_path / "journal"
    journal = Journal.create(str(path), CONTENT)
    journal.append(pieces)
    journal.close()
    content = bytearray(path.read_bytes())
    bit = data.draw(st.integers(0, len(content) * 8 - 1))
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    journal, found = Journal.resume(str(path), CONTENT, 100)
    assert (found.pieces, found.intact) == ((), False)
    journal.close()


@settings(suppress_health_check=function_scoped, max_examples=40)
@given(noise=st.binary(max_size=300))
def test_a_journal_of_noise_is_not_trusted(noise: bytes, tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(noise)
    journal, found = Journal.resume(str(path), CONTENT, 100)
    assert (found.pieces, found.intact) == ((), False)
    journal.close()


def test_a_journal_never_follows_a_link(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "journal").symlink_to(tmp_path / "victim")
    for open_it in (
        lambda: Journal.create(str(tmp_path / "journal"), CONTENT),
        lambda: Journal.resume(str(tmp_path / "journal"), CONTENT, 1),
    ):
        with pytest.raises(UnsafeDestination):
            open_it()
    assert (tmp_path / "victim").read_bytes() == b"precious"
