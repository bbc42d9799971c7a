"""Selection of files of a folder by patterns, and the pieces that hold them.

Owns: the patterns of ``download-file --files`` and their match with the entries of a manifest. Not
here: fetching only those pieces (see peer.swarm.pieces) and writing only those files (see
peer.files.partfolder).

Patterns are those of gitignore files. ``*`` and ``?`` stop at ``/``, and ``**`` does not. A pattern
without ``/`` matches at any depth, another one from the top of the folder. A folder that matches is
selected with everything in it; one with ``/`` at its end matches folders only.

Limits: each name in the tree is looked up among the names of all patterns, and matched with their
globs together. Only if one of them matches, each is tried. There is no backtracking over stars. The
names are those of others.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import TypeAlias

from common.errors import ConfigError
from common.manifest import EntryKind, Manifest
from common.names import PATH_DEPTH_MAX, quoted

PATTERNS_MAX = 1024  # of one folder, over all commands that added files to it
PATTERN_CHARACTERS_MAX = 1024

_GLOB = re.compile(r"[*?\[]")


class _Pattern:
    """Compiled glob. ``parts``: name or glob of each part of the path; None stands for ``**``."""

    def __init__(self, text: str) -> None:
        body = text.strip("/")
        if not body or len(text) > PATTERN_CHARACTERS_MAX or body.count("/") > 2 * PATH_DEPTH_MAX:
            raise ConfigError(
                f"{quoted(text)} is no pattern of files",
                "use * and ?, and ** for folders at any depth, as in 'docs/**/*.txt'",
            )
        self.folders_only = text.endswith("/")
        names = re.sub(r"(^|/)\*\*(/\*\*)+(?=/|$)", r"\1**", body).split("/")
        if names == ["**"]:
            names.append("*")
        if len(names) == 1 and not text.startswith("/"):
            names.insert(0, "**")
        self.parts = [None if name == "**" else name for name in names]

    def behind(self, position: int) -> int:
        """Return ``position``, or that behind a ``**`` there. Two never stand beside each other."""
        return position + 1 if self.parts[position : position + 1] == [None] else position

    def ends(self, position: int) -> bool:
        """Whether the whole pattern has matched."""
        return self.behind(position) == len(self.parts)


_Position: TypeAlias = tuple[_Pattern, int]


class _Folder:
    """The positions in the patterns at one folder: those that its names may go on from."""

    def __init__(self, positions: Iterable[_Position]) -> None:
        self.stay: list[_Position] = []
        """At a ``**``, which takes any name."""
        self._names: dict[str, list[_Position]] = {}
        self._globs: list[tuple[str, _Position]] = []
        for pattern, position in set(positions):
            if pattern.parts[position] is None:
                self.stay.append((pattern, position))
            name = pattern.parts[pattern.behind(position)]
            assert name is not None
            found = pattern, pattern.behind(position) + 1
            if _GLOB.search(name):
                self._globs.append((name, found))
            else:
                self._names.setdefault(name, []).append(found)

    def moved(self, name: str, globs: _Globs) -> list[_Position]:
        """The positions after ``name``, beside those that stay."""
        found = [*self._names.get(name, ())]
        if self._globs and globs.any_matches(name):
            found += [position for glob, position in self._globs if globs.matches[glob](name)]
        return found


class _Globs:
    """The globs of all patterns. Most names match none of them, which one expression finds out."""

    def __init__(self, patterns: Sequence[_Pattern]) -> None:
        parts = {part for pattern in patterns for part in pattern.parts if part is not None}
        texts = {glob: fnmatch.translate(glob) for glob in parts if _GLOB.search(glob)}
        self.matches = {glob: re.compile(text).match for glob, text in texts.items()}
        self.any_matches = re.compile("|".join(texts.values())).match


class Selection:
    """Entries of one manifest, by their numbers, and their pieces."""

    def __init__(self, manifest: Manifest, entries: Iterable[int]) -> None:
        self._manifest = manifest
        self.entries = frozenset(entries)

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def is_whole(self) -> bool:
        """Whether it has every entry."""
        return len(self.entries) == len(self._manifest.entries)

    def __sub__(self, other: Selection) -> Selection:
        return Selection(self._manifest, self.entries - other.entries)

    def __or__(self, other: Selection) -> Selection:
        return Selection(self._manifest, self.entries | other.entries)

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(self._manifest.entries[number].size for number in self.entries)

    def pieces(self) -> list[int]:
        """The pieces that hold bytes of its files, ascending."""
        wanted = bytearray(self._manifest.piece_count)
        length = self._manifest.piece_length
        for number, start, size in self._spans():
            if number in self.entries:
                first, last = start // length, (start + size - 1) // length
                wanted[first : last + 1] = b"\1" * (last + 1 - first)
        return [index for index, is_wanted in enumerate(wanted) if is_wanted]

    def shared_pieces(self) -> list[int]:
        """Pieces of it that hold bytes of other files too, ascending."""
        length = self._manifest.piece_length
        others: set[int] = set()
        for number, start, size in self._spans():
            if number not in self.entries:
                others.update((start // length, (start + size - 1) // length))
        return [piece for piece in self.pieces() if piece in others]

    def _spans(self) -> Iterable[tuple[int, int, int]]:
        """Number, offset in the stream and size of each entry with bytes."""
        entries = self._manifest.entries
        ends = accumulate(entry.size for entry in entries)
        for number, (entry, end) in enumerate(zip(entries, ends, strict=True)):
            if entry.size:
                yield number, end - entry.size, entry.size


def select(manifest: Manifest, patterns: Sequence[str]) -> Selection:
    """The entries that match at least one of ``patterns``; all without a pattern.

    Raises `ConfigError` for a pattern that is none, or too many.
    """
    if not patterns:
        return Selection(manifest, range(len(manifest.entries)))
    if len(patterns) > PATTERNS_MAX:
        raise ConfigError(f"more than {PATTERNS_MAX} patterns of files")
    return Selection(manifest, _matches(manifest, [_Pattern(text) for text in patterns]))


def _matches(manifest: Manifest, patterns: list[_Pattern]) -> Iterable[int]:
    """Entries come in order, so each folder is matched once.

    ``levels`` has each folder on the way to the last entry; None is one that is selected with
    everything in it.
    """
    globs = _Globs(patterns)
    levels: list[_Folder | None] = [_Folder((pattern, 0) for pattern in patterns)]
    last: list[str] = []
    for number, entry in enumerate(manifest.entries):
        parts = entry.path.split("/")
        level = 0
        while level < min(len(parts), len(last)) - 1 and parts[level] == last[level]:
            level += 1
        del levels[level + 1 :]
        for depth in range(level, len(parts)):
            above = levels[depth]
            if above is None:
                levels.append(None)
                continue
            moved = above.moved(parts[depth], globs)
            is_folder = depth + 1 < len(parts) or entry.kind is EntryKind.FOLDER
            ended = (
                pattern.ends(position) and (is_folder or not pattern.folders_only)
                for pattern, position in moved
            )
            if any(ended):
                levels.append(None)
            else:
                levels.append(_Folder([*above.stay, *moved]) if is_folder else _NOTHING)
        if levels[-1] is None:
            yield number
        last = parts


_NOTHING = _Folder(())


def nothing(manifest: Manifest) -> Selection:
    """The selection without an entry."""
    return Selection(manifest, ())


def examples(manifest: Manifest, count: int) -> str:
    """Some names at the top of a folder, for an error; folders come first, with ``/``."""
    tops: dict[str, None] = {}
    for entry in manifest.entries:
        name, slash, _ = entry.path.partition("/")
        tops[name + ("/" if slash or entry.kind is EntryKind.FOLDER else "")] = None
    names = sorted(tops, key=lambda name: not name.endswith("/"))
    named = ", ".join(map(quoted, names[:count]))
    return named + (f" and {len(names) - count:,} more" if len(names) > count else "")
