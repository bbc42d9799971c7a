"""Files and folders of this device that may hold pieces of a content, open for reading.

Nothing in them is trusted: they may change at any time, and hold links, FIFOs and devices. Only
plain files are read, and no link below a root is followed. The digest of each piece decides. Not
here: which ranges make up which piece (see peer.files.reuse_plan).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import NamedTuple

from common.digests import Buffer
from common.manifest import Manifest
from peer.files import paths
from peer.files.open_files import HandleCache

OPEN_FILES_MAX = 64


class LocalTree(NamedTuple):
    """A file or folder at ``root``, an absolute path without links.

    ``manifest``: the content that it was once, None if unknown. ``by_path``: its files are matched
    with entries by path; otherwise only its pieces, by their digests.
    """

    root: str
    manifest: Manifest | None = None
    by_path: bool = True


class LocalFile(NamedTuple):
    """A file of a tree, by the tree's root; ``path`` is empty if the root is the file itself.

    ``likely``: found by its path, not by its name or size alone.
    """

    root: str
    path: str
    size: int
    likely: bool = True


class FileRange(NamedTuple):
    """A range of a local file, in bytes."""

    file: LocalFile
    offset: int
    length: int


class LocalFiles:
    """Open local files. Thread safety: every method; each blocks."""

    def __init__(self) -> None:
        self._handles = HandleCache(OPEN_FILES_MAX)

    def read(self, ranges: Sequence[FileRange]) -> Buffer | None:
        """The bytes of ``ranges``, end to end; None if a file is gone, too short or unreadable."""
        try:
            with self._opener() as opened:
                if len(ranges) == 1:  # memory that the read fills need not be zeroed before
                    with opened(ranges[0]) as fd:
                        data = os.pread(fd, ranges[0].length, ranges[0].offset)
                    return data if len(data) == ranges[0].length else None
                whole = bytearray(sum(one.length for one in ranges))
                view, done = memoryview(whole), 0
                for one in ranges:
                    with opened(one) as fd:
                        part = view[done : done + one.length]
                        if os.preadv(fd, [part], one.offset) != one.length:
                            return None
                    done += one.length
        except OSError:
            return None
        return whole

    @contextmanager
    def opened(self, ranges: Sequence[FileRange]) -> Iterator[list[int]]:
        """The open files of ``ranges``. Raises `OSError` for anything but a plain file."""
        with self._opener() as opened, ExitStack() as stack:
            yield [stack.enter_context(opened(one)) for one in ranges]

    @contextmanager
    def _opener(self) -> Iterator[Callable[[FileRange], AbstractContextManager[int]]]:
        """A way to open files, which keeps the last folder: neighbours share it."""
        with ExitStack() as stack:
            folders: dict[str, paths.LastFolder] = {}

            def open_file(root: str, path: str) -> int:
                above, name = (root, path) if path else os.path.split(root)
                if above not in folders:
                    using = self._handles.using(
                        ((above,), 0), lambda: paths.open_real_folder(above, path_only=True)
                    )
                    root_fd = stack.enter_context(using)
                    folders[above] = paths.LastFolder(root_fd, path_only=True)
                    stack.enter_context(folders[above])
                *parents, last = name.split("/")
                return paths.open_to_read(folders[above].at(parents), last)

            @contextmanager
            def opened(one: FileRange) -> Iterator[int]:
                root, path = one.file.root, one.file.path
                opener = partial(open_file, root, path)
                if one.file.size > one.length:  # the next piece may need it too
                    with self._handles.using(((root, path), 0), opener) as fd:
                        yield fd
                    return
                fd = self._handles.open_evicting(opener)
                try:
                    yield fd
                finally:
                    os.close(fd)

            yield opened

    def close(self) -> None:
        """Close all files."""
        self._handles.close()
