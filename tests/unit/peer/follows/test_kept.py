"""Second names of earlier versions, and what stands in their way."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from common.errors import MiniTorrentError
from common.manifest import encode
from peer.follows import kept
from peer.records import Manifests
from tests.support.partial_downloads import Sample, snapshot


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    place = tmp_path / "thing"
    (place / "sub" / "sub").mkdir(parents=True)
    (place / "void").mkdir()
    for name in ("a", "sub/b", "sub/sub/c"):
        (place / name).write_bytes(os.urandom(2_000))
    return Sample(place)


@pytest.fixture
def known(sample: Sample, tmp_path: Path) -> Manifests:
    found = Manifests(tmp_path / "manifests")
    found.put(sample.id, encode(sample.manifest))
    return found


def test_a_second_name_that_a_process_left_unfinished_is_made_whole(
    sample: Sample, known: Manifests, tmp_path: Path
) -> None:
    part = tmp_path / "thing@3.part"
    (part / "sub" / "sub").mkdir(parents=True)
    os.link(sample.source / "a", part / "a")
    os.link(sample.source / "sub" / "sub" / "c", part / "sub" / "sub" / "c")
    kept.keep(known, sample.id, str(sample.source), 3)
    assert snapshot(tmp_path / "thing@3") == snapshot(sample.source)
    assert not part.exists()


def test_h144_a_folder_of_others_with_that_name_is_not_removed(
    sample: Sample, known: Manifests, tmp_path: Path
) -> None:
    """A share may be named so, and a download to such a name has its part there."""
    part = tmp_path / "thing@3.part"
    (part / "sub").mkdir(parents=True)
    os.link(sample.source / "a", part / "a")
    (part / "sub" / "b").write_bytes(b"of the user")
    (part / "sub" / "more").write_bytes(b"of the user")
    with pytest.raises(MiniTorrentError, match="thing@3"):
        kept.keep(known, sample.id, str(sample.source), 3)
    assert set(os.listdir(part / "sub")) == {"b", "more"}
    assert (part / "sub" / "b").read_bytes() == b"of the user"
    assert not (tmp_path / "thing@3").exists()


@pytest.mark.parametrize("other", ["file", "link"])
def test_h144_no_file_and_no_link_with_that_name_is_removed(
    other: str, sample: Sample, known: Manifests, tmp_path: Path
) -> None:
    part, elsewhere = tmp_path / "thing@3.part", tmp_path / "elsewhere"
    elsewhere.mkdir()
    os.link(sample.source / "a", elsewhere / "a")
    if other == "link":
        part.symlink_to(elsewhere)
    else:
        part.write_bytes(b"of the user")
    with pytest.raises(MiniTorrentError):
        kept.keep(known, sample.id, str(sample.source), 3)
    assert part.is_symlink() or part.read_bytes() == b"of the user"
    assert os.listdir(elsewhere) == ["a"]


def test_h144_only_the_kept_bytes_are_removed(
    sample: Sample, known: Manifests, tmp_path: Path
) -> None:
    """A user may put another file of the same size in the place of a kept version."""
    kept.keep(known, sample.id, str(sample.source), 3)
    place = tmp_path / "thing@3"
    (place / "a").unlink()
    (place / "a").write_bytes(b"o" * 2_000)
    with pytest.raises(MiniTorrentError, match="other bytes"):
        kept.discard(known, sample.id, str(sample.source), 3)
    assert (place / "a").read_bytes() == b"o" * 2_000
    (place / "a").unlink()
    os.link(sample.source / "a", place / "a")
    kept.discard(known, sample.id, str(sample.source), 3)
    assert not place.exists()
    assert (sample.source / "a").exists()
