"""Plan of reuse: for each piece of a content, ranges of local files that may be its bytes.

A piece of the stream is put together from ranges of several files at any offset, so files that did
not change are found wherever the stream moved them. Two ways lead to candidates:

- by digest: a piece of an earlier content of this device has the same digest and length;
- by file: an entry may be what a local file is, first one with its path, then one with its name
  and size, then one with its size.

Owns: the choice and its bounds. Not here: reading and verifying (see peer.files.piece_reuse).
"""

from __future__ import annotations

import os
import stat
from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple, TypeAlias

from common.limits import KIB
from common.manifest import Entry, Manifest, Segment, StreamLayout
from peer.files import paths
from peer.files.errors import Cancelled
from peer.files.hashing import never_cancelled
from peer.files.local_trees import FileRange, LocalFile, LocalTree

CANDIDATES_MAX = 4  # local files for one entry: each costs a read of the whole entry at most
WALKED_MAX = 200_000  # files and folders looked at for names and sizes, of all trees: about 1 s
DEPTH_MAX = 64  # folders below a root
BY_SIZE_FROM_BYTES = 64 * KIB  # smaller files of one size are too many to try without a name
DIGESTS_MAX = 1 << 21  # pieces of earlier contents that are compared by digest

_Key: TypeAlias = tuple[str | int, ...]
_INDEX_BITS = 32
_INDEX_MASK = (1 << _INDEX_BITS) - 1


class _Known(NamedTuple):
    """An earlier content of this device, whose pieces were compared by digest."""

    root: str
    manifest: Manifest
    layout: StreamLayout
    starts: dict[str, int]
    """Offset in the stream by path."""

    def ranges_of(self, index: int) -> tuple[FileRange, ...]:
        """The ranges of files that were its piece ``index``."""
        entries = self.manifest.entries
        return tuple(
            FileRange(LocalFile(self.root, entries[number].path, entries[number].size), begin, size)
            for number, begin, size in self.layout.stretch(*self.layout.span(index))
        )


class ReusePlan:
    """Candidates of every piece. Made by `find`; it never changes. Thread safety: every method."""

    def __init__(
        self,
        manifest: Manifest,
        known: list[_Known],
        by_digest: array[int],
        by_entry: dict[int, list[LocalFile]],
    ) -> None:
        self._manifest = manifest
        self._layout = StreamLayout(manifest.entries, manifest.piece_length)
        self._known = known
        self._by_root = {one.root: one for one in known}
        self._by_digest = by_digest
        self._by_entry = by_entry

    def pieces(self) -> list[int]:
        """The pieces that have a candidate, ascending."""
        if not self._by_digest and not self._by_entry:
            return []
        return [index for index in range(self._manifest.piece_count) if self._has_any(index)]

    def _has_any(self, index: int) -> bool:
        return next(self.candidates(index), None) is not None

    def candidates(self, index: int) -> Iterator[tuple[FileRange, ...]]:
        """The ranges that may be a piece, most likely first; at most `CANDIDATES_MAX` and one."""
        if self._by_digest and (same := self._by_digest[index]) >= 0:
            yield self._known[same >> _INDEX_BITS].ranges_of(same & _INDEX_MASK)
        segments = self._layout.stretch(*self._layout.span(index))
        found = [self._files_for(segment) for segment in segments]
        if not all(found):
            return
        for rank in range(max(map(len, found))):
            ranges = tuple(
                FileRange(files[min(rank, len(files) - 1)], segment.offset, segment.length)
                for files, segment in zip(found, segments, strict=True)
            )
            if not self._surely_differs(ranges):
                yield ranges

    def _files_for(self, segment: Segment) -> list[LocalFile]:
        """The files that have the range of a segment; for a whole entry those of its size."""
        files = self._by_entry.get(segment.entry, [])
        size = self._manifest.entries[segment.entry].size
        if segment.length == size:
            return [file for file in files if file.size == size]
        return [file for file in files if file.size >= segment.offset + segment.length]

    def _surely_differs(self, ranges: Sequence[FileRange]) -> bool:
        """Whether the ranges are one piece of an earlier content, with another digest."""
        known = self._by_root.get(ranges[0].file.root)
        if known is None or known.manifest.piece_length != self._manifest.piece_length:
            return False
        if known.manifest.algorithm != self._manifest.algorithm:
            return False
        start = end = known.starts.get(ranges[0].file.path, 0) + ranges[0].offset
        for one in ranges:
            begins = known.starts.get(one.file.path, -1) + one.offset
            if one.file.root != ranges[0].file.root or begins != end:
                return False
            end += one.length
        if start % known.manifest.piece_length:
            return False
        index = start // known.manifest.piece_length
        # An equal one would have been found by its digest already.
        return index < known.manifest.piece_count and (
            known.manifest.piece_span(index) == (start, end - start)
        )


def find(
    manifest: Manifest,
    trees: Sequence[LocalTree],
    name: str,
    cancelled: Callable[[], bool] = never_cancelled,
) -> ReusePlan:
    """The candidates of the pieces of ``manifest``, a share of that ``name``, in ``trees``.

    Trees and files that cannot be read give no candidates. Blocks; raises `Cancelled`.
    """
    finder = _Finder(manifest, name, cancelled)
    for tree in trees:
        finder.compare_digests(tree)
        if tree.by_path:
            finder.match_paths(tree)
    finder.walk([tree for tree in trees if tree.by_path])
    return finder.plan()


class _Finder:
    """Collects candidates."""

    def __init__(self, manifest: Manifest, name: str, cancelled: Callable[[], bool]) -> None:
        self._manifest = manifest
        self._name = name
        self._cancelled = cancelled
        self._files = [entry for entry in enumerate(manifest.entries) if entry[1].size]
        self._known: list[_Known] = []
        self._by_digest = array("q")  # by piece: the number of an earlier content and its piece
        self._by_entry: dict[int, list[LocalFile]] = {}
        self._settled: set[int] = set()  # entries with a file of their path and size
        self._wanted: dict[tuple[bytes, int], list[int]] | None = None
        self._digests_left = DIGESTS_MAX
        self._walked_left = WALKED_MAX

    def plan(self) -> ReusePlan:
        return ReusePlan(self._manifest, self._known, self._by_digest, self._by_entry)

    # -- by digest ------------------------------------------------------------------------------

    def compare_digests(self, tree: LocalTree) -> None:
        """Find the pieces of the tree's earlier content that are pieces of this one."""
        old = tree.manifest
        if old is None or old.algorithm != self._manifest.algorithm:
            return
        if old.piece_count > self._digests_left:
            return
        self._digests_left -= old.piece_count
        sizes = accumulate((entry.size for entry in old.entries), initial=0)
        starts = dict(zip((entry.path for entry in old.entries), sizes, strict=False))
        layout = StreamLayout(old.entries, old.piece_length)
        number = len(self._known)
        self._known.append(_Known(tree.root, old, layout, starts))
        wanted = self._wanted_digests()
        for index in range(old.piece_count):
            # Each piece is found once: a content may consist of equal ones.
            found = wanted.pop((old.piece_digest(index), layout.span(index)[1]), ())
            for piece in found:
                self._by_digest[piece] = number << _INDEX_BITS | index

    def _wanted_digests(self) -> dict[tuple[bytes, int], list[int]]:
        if self._wanted is None:
            manifest, self._wanted = self._manifest, {}
            self._by_digest.extend([-1] * manifest.piece_count)
            for index in range(manifest.piece_count):
                key = manifest.piece_digest(index), manifest.piece_span(index)[1]
                self._wanted.setdefault(key, []).append(index)
        return self._wanted

    # -- by path --------------------------------------------------------------------------------

    def match_paths(self, tree: LocalTree) -> None:
        """Find the files of the tree with the paths of entries."""
        if tree.manifest is not None:
            sizes = {entry.path: entry.size for entry in tree.manifest.entries if entry.size}
            for number, entry in self._files:
                if entry.path in sizes:
                    self._add(number, LocalFile(tree.root, entry.path, sizes[entry.path]))
            return
        try:
            status = os.lstat(tree.root)
        except OSError:
            return
        if stat.S_ISREG(status.st_mode):
            if not self._manifest.is_folder and self._files:
                self._add(0, LocalFile(tree.root, "", status.st_size))
        elif stat.S_ISDIR(status.st_mode):
            self._match_beneath(tree.root)
            if self._manifest.is_folder:
                self._match_beneath(os.path.join(tree.root, self._name))

    def _match_beneath(self, root: str) -> None:
        try:
            root_fd = paths.open_real_folder(root, path_only=True)
        except OSError:
            return
        try:
            with paths.LastFolder(root_fd, path_only=True) as folders:
                for number, entry in self._files:
                    self._require_wanted()
                    path = entry.path or self._name
                    size = _size_at(folders, path)
                    if size is not None:
                        self._add(number, LocalFile(root, path, size))
        finally:
            os.close(root_fd)

    def _add(self, number: int, file: LocalFile) -> None:
        files = self._by_entry.setdefault(number, [])
        if len(files) < CANDIDATES_MAX and file not in files:
            files.append(file)
            if file.likely and file.size == self._manifest.entries[number].size:
                self._settled.add(number)

    def _require_wanted(self) -> None:
        if self._cancelled():
            raise Cancelled("stopped before local files were found")

    # -- by name and size -----------------------------------------------------------------------

    def walk(self, trees: Sequence[LocalTree]) -> None:
        """Look through folders for files with the names and sizes of entries that no path gave."""
        left = [(number, entry) for number, entry in self._files if number not in self._settled]
        if not left or not trees:
            return
        keys = {number: self._keys_of(number, entry) for number, entry in left}
        found: dict[_Key, list[LocalFile]] = {key: [] for own in keys.values() for key in own}
        for file, time_ns in self._walked(trees):
            path = file.path or file.root
            for key in _keys(path, file.size, time_ns):
                files = found.get(key)
                if files is not None and len(files) < CANDIDATES_MAX:
                    files.append(file)
        for number, own in keys.items():
            for key in own:
                for file in found[key]:
                    self._add(number, file)

    def _keys_of(self, number: int, entry: Entry) -> list[_Key]:
        time_ns = self._manifest.times[number] if self._manifest.times else -1
        return _keys(entry.path or self._name, entry.size, time_ns)

    def _walked(self, trees: Sequence[LocalTree]) -> Iterator[tuple[LocalFile, int]]:
        """The plain files of ``trees``, with the time of their last modification."""
        for tree in trees:
            if tree.manifest is not None:
                yield from _files_of(tree.root, tree.manifest)
                continue
            folders = [("", 0)]
            while folders:
                above, depth = folders.pop()
                for name, status in self._listed(tree.root, above):
                    path = f"{above}/{name}" if above else name
                    if stat.S_ISDIR(status.st_mode) and depth < DEPTH_MAX:
                        folders.append((path, depth + 1))
                    elif stat.S_ISREG(status.st_mode) and status.st_size:
                        yield (
                            LocalFile(tree.root, path, status.st_size, likely=False),
                            status.st_mtime_ns,
                        )

    def _listed(self, root: str, path: str) -> Iterator[tuple[str, os.stat_result]]:
        """The entries of a folder, or the root itself if it is a file, as far as allowed."""
        full = os.path.join(root, path) if path else root
        try:
            if not path and stat.S_ISREG(os.lstat(root).st_mode):
                yield "", os.lstat(root)
                return
            fd = paths.open_real_folder(full)
        except OSError:
            return
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    self._require_wanted()
                    if self._walked_left <= 0:
                        return
                    self._walked_left -= 1
                    try:
                        yield entry.name, entry.stat(follow_symlinks=False)
                    except OSError:
                        continue
        except OSError:
            return
        finally:
            os.close(fd)


def _files_of(root: str, manifest: Manifest) -> Iterator[tuple[LocalFile, int]]:
    for number, entry in enumerate(manifest.entries):
        if entry.size:
            time_ns = manifest.times[number] if manifest.times else -1
            yield LocalFile(root, entry.path, entry.size, likely=False), time_ns


def _keys(path: str, size: int, time_ns: int) -> list[_Key]:
    """The keys by which an entry finds a local file, most likely first."""
    *_, name = parts = path.split("/")
    keys: list[_Key] = [("/".join(parts[-2:]), size), (name, size), (time_ns, size)]
    if size >= BY_SIZE_FROM_BYTES:
        keys += [(size,), (name,)]
    return keys


def _size_at(folders: paths.LastFolder, path: str) -> int | None:
    *parents, name = path.split("/")
    try:
        status = os.stat(name, dir_fd=folders.at(parents), follow_symlinks=False)
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) and status.st_size else None
