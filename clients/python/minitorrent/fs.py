"""File system of fsspec: ``minitorrent://GROUP/NAME`` and ``minitorrent://GROUP/NAME/ENTRY``.

It reads files through the peer of this machine: bytes that the device holds come from its disk,
others are fetched meanwhile, those at the place of the reader first. It needs the extra ``fs``
(fsspec), which finds it by the name ``minitorrent`` once this distribution is installed.

Limits: it writes nothing. A name in a group means its current version; ``NAME@K`` pins one. An
open file reads one version: if another one takes its place, the next read fails.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

try:
    from fsspec.spec import AbstractBufferedFile, AbstractFileSystem
except ImportError as error:  # pragma: no cover - said by a test in a process of its own
    raise ImportError("minitorrent.fs needs fsspec: pip install 'minitorrent[fs]'") from error

from minitorrent.client import Peer
from minitorrent.errors import Error, NotRunning
from minitorrent.ranges import read, stat
from minitorrent.transport import Transport, default_socket, path_of
from minitorrent.types import File

THREADS = 8  # of one call; the peer has 32 readers for all programs
TIMEOUT_S = 300.0
ENTRIES = 10_000  # of a folder in one answer
LISTING_S = 10.0  # for which the listing of a folder is used again
LISTINGS_MAX = 16

_MISSING = ("unknown-share", "unknown-group", "withdrawn", "not-found")
_DENIED = ("not-logged-in", "denied", "no-session")


class MiniTorrentFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """Files of the groups of the user who is logged in at a peer of this machine.

    ``home``: the home of the peer; ``socket``: its ``api.sock`` instead. ``timeout_s``: seconds
    without a byte after which a read raises `TimeoutError`. It is picklable, and threads may share
    it. Missing files raise `FileNotFoundError`, and nothing else does: an error of the peer or the
    network is never taken for a file that is not there.
    """

    protocol = "minitorrent"
    root_marker = ""

    def __init__(
        self,
        home: str | os.PathLike[str] | None = None,
        socket: str | os.PathLike[str] | None = None,
        timeout_s: float = TIMEOUT_S,
        **options: Any,
    ) -> None:
        super().__init__(home=home, socket=socket, timeout_s=timeout_s, **options)
        path = Path(socket) if socket is not None else default_socket(home)
        self._transport = Transport(path, timeout_s)
        self._peer = Peer(self._transport)
        self._timeout_s = timeout_s
        self._listings: dict[tuple[str, str], tuple[float, str, list[dict[str, Any]]]] = {}
        self._lock = threading.Lock()

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        found = super()._strip_protocol(path)
        return found.lstrip("/") if isinstance(found, str) else found

    # -- looking --------------------------------------------------------------------------------

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Return the name, size in bytes and type; of a file its ``etag`` too, of a folder its
        ``content``. Raises `FileNotFoundError`."""
        path = self._strip_protocol(path)
        parts = _parts(path)
        try:
            if len(parts) < 2:
                if parts and not any(row.group == parts[0].lower() for row in self._peer.groups()):
                    _raise_missing(path)
                return _folder(path)
            try:
                found = stat(self._transport, parts)
            except Error as error:
                if error.code != "usage":
                    raise
                return self._folder_info(path, parts)
            return {"name": path, "size": found.size, "type": "file", "etag": found.tag}
        except Error as error:
            _raise(error, path)

    def _folder_info(self, path: str, parts: tuple[str, ...]) -> dict[str, Any]:
        content, rows = self._entries(parts[0], parts[1])
        below = "".join(f"{part}/" for part in parts[2:])
        if below and not any(f"{row['path']}/".startswith(below) for row in rows):
            _raise_missing(path)
        return {**_folder(path), "content": content}

    def ls(self, path: str, detail: bool = True, **options: Any) -> list[Any]:
        """List a group, a folder, or one file. Raises `FileNotFoundError`.

        The kinds in a group are those that the tracker names. A wrong one leads to the error of
        the operating system as soon as the share is read.
        """
        path = self._strip_protocol(path)
        if options.get("refresh"):
            self.invalidate_cache(path)
        parts = _parts(path)
        try:
            if not parts:
                roles = ("owner", "member")
                rows = [_folder(row.group) for row in self._peer.groups() if row.role in roles]
            elif len(parts) == 1:
                rows = self._shares(parts[0])
            else:
                found = self.info(path)
                rows = [found] if found["type"] == "file" else self._below(path, parts)
        except Error as error:
            _raise(error, path)
        rows.sort(key=lambda row: str(row["name"]))
        return rows if detail else [row["name"] for row in rows]

    def _shares(self, group: str) -> list[dict[str, Any]]:
        def row_of(row: File) -> dict[str, Any] | None:
            path = f"{group}/{row.name}"
            if row.files != 1 or row.folder:
                return _folder(path)
            if row.folder is not None:
                return {"name": path, "size": row.size_bytes, "type": "file", "etag": row.digest}
            try:  # it was shared before the tracker kept the kind
                return self.info(path)
            except FileNotFoundError:
                return None  # it was withdrawn just now

        with ThreadPoolExecutor(THREADS) as pool:
            rows = pool.map(row_of, self._peer.files(group))
            return [row for row in rows if row is not None]

    def _below(self, path: str, parts: tuple[str, ...]) -> list[dict[str, Any]]:
        """The files and folders in a folder, one level of them."""
        _, entries = self._entries(parts[0], parts[1])
        above = "".join(f"{part}/" for part in parts[2:])
        rows: dict[str, dict[str, Any]] = {}
        for entry in entries:
            if not entry["path"].startswith(above):
                continue
            first, deeper, _ = entry["path"][len(above) :].partition("/")
            name = f"{path}/{first}"
            if deeper or entry["kind"] == "folder":
                rows[name] = _folder(name)
            else:
                rows[name] = {"name": name, "size": entry["size_bytes"], "type": "file"}
        return list(rows.values())

    def _entries(self, group: str, name: str) -> tuple[str, list[dict[str, Any]]]:
        """The content id and all entries of a folder."""
        key = group, name
        with self._lock:
            kept = self._listings.get(key)
            if kept is not None and time.monotonic() - kept[0] < LISTING_S:
                return kept[1], kept[2]
        where, more, content = path_of("groups", group, "files", name), True, ""
        rows: list[dict[str, Any]] = []
        while more:
            found = self._peer.command("GET", f"{where}?first={len(rows)}&entries={ENTRIES}")
            if content not in ("", found["content"]):
                rows, content = [], ""  # another version came meanwhile
                continue
            content, more = found["content"], found["more"]
            rows += found["entries"]
        with self._lock:
            while len(self._listings) >= LISTINGS_MAX:
                del self._listings[next(iter(self._listings))]
            self._listings[key] = time.monotonic(), content, rows
        return content, rows

    def exists(self, path: str, **_: Any) -> bool:
        """Whether there is such a file or folder. An error of the peer is raised, and is no no."""
        try:
            self.info(path)
        except FileNotFoundError:
            return False
        return True

    def invalidate_cache(self, path: str | None = None) -> None:
        """Forget the listings of folders."""
        with self._lock:
            self._listings.clear()
        super().invalidate_cache(path)

    def ukey(self, path: str) -> str:
        """Return the digest of what stands at ``path``: it differs for each other content."""
        found = self.info(path)
        key = found.get("etag") or found.get("content")
        if key is None:
            raise IsADirectoryError(errno.EISDIR, "a group has no digest", path)
        return str(key)

    checksum = ukey

    # -- reading --------------------------------------------------------------------------------

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **options: Any
    ) -> bytes:
        """Return the bytes from ``start`` to ``end``, as of a slice. Raises `FileNotFoundError`."""
        path = self._strip_protocol(path)
        parts = _parts(path)
        if len(parts) < 2:
            self.info(path)
            raise IsADirectoryError(errno.EISDIR, "it is a folder", path)
        begin = start or 0
        try:
            if end is not None and (begin < 0 or end < 0):
                begin, end, _ = slice(begin, end).indices(stat(self._transport, parts).size)
            if end is not None and end <= begin:
                return b""
            tag = str(options.get("etag") or "")
            patience_s = self._timeout_s
            return read(self._transport, parts, begin, end, tag=tag, patience_s=patience_s)
        except Error as error:
            if error.code == "usage" and self.info(path)["type"] == "directory":
                raise IsADirectoryError(errno.EISDIR, "it is a folder", path) from error
            _raise(error, path)

    def cat_ranges(
        self,
        paths: Sequence[str],
        starts: Any,
        ends: Any,
        max_gap: int | None = None,
        on_error: str = "return",
        **options: Any,
    ) -> list[Any]:
        """Return the bytes of many ranges, several of which are read at a time.

        ``max_gap`` changes nothing: a request to the peer of this machine costs less than a gap.
        """
        count = len(paths)
        starts = starts if isinstance(starts, Sequence) else [starts] * count
        ends = ends if isinstance(ends, Sequence) else [ends] * count
        if len(starts) != count or len(ends) != count:
            raise ValueError("paths, starts and ends have different lengths")

        def one(path: str, start: int | None, end: int | None) -> Any:
            try:
                return self.cat_file(path, start, end, **options)
            except Exception as error:
                if on_error == "return":
                    return error
                raise

        with ThreadPoolExecutor(THREADS) as pool:
            return list(pool.map(one, paths, starts, ends))

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | str | None = None,
        autocommit: bool = True,
        cache_options: dict[str, Any] | None = None,
        **options: Any,
    ) -> MiniTorrentFile:
        if mode != "rb":
            raise OSError(errno.EROFS, "minitorrent:// is read-only", path)
        return MiniTorrentFile(
            self,
            path,
            mode,
            block_size=block_size or "default",
            autocommit=autocommit,
            cache_options=cache_options,
            **options,
        )


class MiniTorrentFile(AbstractBufferedFile):  # type: ignore[misc]
    """An open file. It reads one version, also after it was pickled.

    Blocks are small. Why: the peer itself fetches 32 MiB ahead of each place that is read.
    """

    DEFAULT_BLOCK_SIZE = 2 << 20

    def __init__(self, fs: Any, path: str, mode: str = "rb", **options: Any) -> None:
        if "etag" not in options or options.get("size") is None:
            found = fs.info(path)
            if found["type"] != "file":
                raise IsADirectoryError(errno.EISDIR, "it is a folder", path)
            options["size"], options["etag"] = found["size"], found["etag"]
        super().__init__(fs, path, mode, **options)

    def _fetch_range(self, start: int, end: int) -> bytes:
        found = self.fs.cat_file(self.path, start, end, etag=self.kwargs["etag"])
        return bytes(found)


def _parts(path: str) -> tuple[str, ...]:
    """Group, name and path of the entry, as many of them as there are."""
    return tuple(part for part in path.split("/", 2) if part)


def _folder(path: str) -> dict[str, Any]:
    return {"name": path, "size": 0, "type": "directory"}


def _raise_missing(path: str) -> NoReturn:
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


def _raise(error: Error, path: str) -> NoReturn:
    """Raise the error of the operating system that programs expect."""
    if error.code in _MISSING or error.code == "usage":  # of a name that nothing can have
        raise FileNotFoundError(errno.ENOENT, error.message, path) from error
    if error.code in _DENIED:
        raise PermissionError(errno.EACCES, str(error), path) from error
    if error.code == "timed-out":
        raise TimeoutError(errno.ETIMEDOUT, error.message, path) from error
    if error.code == "changed":
        raise OSError(errno.ESTALE, str(error), path) from error
    if isinstance(error, NotRunning) or error.code == "unreachable":
        raise ConnectionError(errno.ECONNREFUSED, str(error), path) from error
    raise OSError(errno.EIO, str(error), path) from error
