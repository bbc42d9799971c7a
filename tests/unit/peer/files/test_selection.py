"""Selection of files by patterns, and its pieces."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from common.digests import Algorithm
from common.errors import ConfigError
from common.manifest import Entry, EntryKind, Manifest
from peer.files import selection
from peer.files.selection import PATTERNS_MAX, select

PATHS = (
    "README.md",
    "a[1].txt",
    "docs/guide.md",
    "docs/img/logo.png",
    "docs/img/old/logo.png",
    "img",
    "src/docs/notes.md",
    "src/main.c",
)


def manifest_of(paths: tuple[str, ...], sizes: tuple[int, ...] = (), length: int = 10) -> Manifest:
    sizes = sizes or (5,) * len(paths)
    entries = tuple(Entry(path, size) for path, size in zip(paths, sizes, strict=True))
    size = sum(sizes)
    count = -(-size // length)
    return Manifest(1, Algorithm.BLAKE3, length, size, bytes(32), bytes(32 * count), entries)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.md", ["README.md", "docs/guide.md", "src/docs/notes.md"]),
        ("/*.md", ["README.md"]),
        ("README.md", ["README.md"]),
        (
            "docs",
            ["docs/guide.md", "docs/img/logo.png", "docs/img/old/logo.png", "src/docs/notes.md"],
        ),
        ("/docs/", ["docs/guide.md", "docs/img/logo.png", "docs/img/old/logo.png"]),
        ("docs/*", ["docs/guide.md", "docs/img/logo.png", "docs/img/old/logo.png"]),
        ("docs/*.md", ["docs/guide.md"]),
        ("docs/**/logo.png", ["docs/img/logo.png", "docs/img/old/logo.png"]),
        ("**/img/logo.png", ["docs/img/logo.png"]),
        ("docs/**", ["docs/guide.md", "docs/img/logo.png", "docs/img/old/logo.png"]),
        ("img", ["docs/img/logo.png", "docs/img/old/logo.png", "img"]),
        ("img/", ["docs/img/logo.png", "docs/img/old/logo.png"]),
        ("**", list(PATHS)),
        ("*", list(PATHS)),
        ("src/main.?", ["src/main.c"]),
        ("src/[!m]*", ["src/docs/notes.md"]),
        ("a[[]1].txt", ["a[1].txt"]),
        ("readme.md", []),
        ("nothing/**", []),
    ],
)
def test_patterns_match_as_in_gitignore(pattern: str, found: list[str]) -> None:
    manifest = manifest_of(PATHS)
    selection = select(manifest, [pattern])
    assert [manifest.entries[n].path for n in sorted(selection.entries)] == found
    assert selection.is_whole == (found == list(PATHS))


def test_empty_folders_are_selected_as_files_are() -> None:
    entries = (Entry("a", 0, EntryKind.FOLDER), Entry("b/a", 3))
    manifest = Manifest(1, Algorithm.BLAKE3, 10, 3, bytes(32), bytes(32), entries)
    assert select(manifest, ["a/"]).entries == {0}
    assert select(manifest, ["a"]).entries == {0, 1}


@pytest.mark.parametrize("patterns", [[""], ["/"], ["x" * 2000], ["x"] * (PATTERNS_MAX + 1)])
def test_a_text_that_is_no_pattern_is_refused(patterns: list[str]) -> None:
    with pytest.raises(ConfigError):
        select(manifest_of(PATHS), patterns)


def test_h125_slow_patterns_and_names_end_soon() -> None:
    paths = tuple(f"{n:05}" + "/".join(["a" * 30] * 30) for n in range(200))
    slow = ["*a" * 500 + "b", "/".join(["**", "*a*a*"] * 60) + "/b", "**/" * 100 + "b"]
    with pytest.raises(ConfigError):
        select(manifest_of(paths), ["a/" * 400 + "b"])
    assert len(select(manifest_of(paths), slow)) == 0


def test_h125_a_name_is_matched_with_each_glob_only_if_it_matches_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried = Counter[str]()

    class Counting(dict[str, Any]):
        def __getitem__(self, glob: str) -> Any:
            tried[glob] += 1
            return super().__getitem__(glob)

    class Globs(selection._Globs):
        def __init__(self, patterns: Any) -> None:
            super().__init__(patterns)
            self.matches = Counting(self.matches)

    monkeypatch.setattr(selection, "_Globs", Globs)
    found = select(
        manifest_of(tuple(f"folder-{n}/file-{n}" for n in range(100))),
        [*(f"*-{n}.txt" for n in range(64)), "*r-7/*-7"],
    )
    assert len(found) == 1
    assert set(tried.values()) == {1, 2}  # in the one folder that a glob matches
    assert tried.total() <= 130


def test_the_pieces_of_a_selection_are_those_of_its_bytes() -> None:
    """Against the bytes of each piece, one by one."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(200):
        sizes = tuple(rng.choice((0, 1, 3, 10, 25)) for _ in range(rng.randrange(1, 9)))
        paths = tuple(f"{n}" for n in range(len(sizes)))
        manifest = manifest_of(paths, sizes)
        chosen = [path for path in paths if rng.random() < 0.5] or [paths[0]]
        selection = select(manifest, chosen)
        owners = [n for n, size in enumerate(sizes) for _ in range(size)]
        cut = [set(owners[at : at + 10]) for at in range(0, len(owners), 10)]
        ours = set(map(int, chosen))
        assert selection.pieces() == [i for i, found in enumerate(cut) if found & ours]
        shared = [i for i, found in enumerate(cut) if found & ours and found - ours]
        assert selection.shared_pieces() == shared
        assert selection.size == sum(sizes[n] for n in ours)
