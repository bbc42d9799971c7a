"""Walk over files to share: entries, times, and everything that prevents sharing.

Owns: the rule of what may be shared: plain files and folders, no target of a link, no home of a
peer or tracker, no part of a download. All problems are found before the first is reported. Not
here: reading the bytes (see peer.files.sharing).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

from common import limits
from common.crypto.keys import PAIR_BYTES
from common.errors import ConfigError, MiniTorrentError
from common.hints import hint, shell_hint
from common.manifest import Entry, EntryKind, folders_of, kept_time
from common.names import PATH_DEPTH_MAX, BadName, PathOrder, quoted, share_name
from peer.files import homes, paths
from peer.files.errors import Unreadable, translated
from peer.files.fingerprint import Fingerprint, SharedLocation
from peer.files.folder_identity import identity_of
from peer.files.homes import Identity, KnownHomes, identity
from peer.files.private_files import Delicate, Delicates, Reason, is_private, reason_of

PROBLEMS_NAMED_MAX = 10  # in one answer; the rest is counted
_HOME_HINT = "share what is meant for others from a folder of its own"
_PART_HINT = hint("it can be shared when it is complete; see how far it is", "show-downloads")


class Scan(NamedTuple):
    """Result of a walk: the entries in the manifest's order, and their fingerprints.

    ``times`` as in a manifest, empty if there are too many; ``left_out``: parts of our own
    downloads, by their paths within the share.
    """

    entries: tuple[Entry, ...]
    place: SharedLocation
    times: tuple[int, ...] = ()
    delicate: Delicate = Delicate()
    left_out: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.entries)


class DevicePaths(NamedTuple):
    """Paths of this device that a walk treats apart: parts of active downloads, and homes."""

    parts: tuple[str, ...] = ()
    homes: tuple[str, ...] = ()


def scan(path: str, paths_here: DevicePaths = DevicePaths()) -> Scan:  # noqa: B008 - a constant
    """List the entries to share from ``path``, without reading them.

    A link that the user names is followed. A link inside a folder is refused, like everything else
    that is no plain file or folder. Raises `Unreadable`, `BadName` or `ConfigError`, which name all
    problems.
    """
    real = os.path.realpath(path)
    try:
        status = os.lstat(real)
    except OSError as error:
        raise Unreadable(f"cannot share {quoted(path)}: {os.strerror(error.errno or 0)}") from error
    above = homes.home_above(real)
    if above is not None:
        raise _is_home(quoted(real), above[1], f"it lies in {quoted(above[0])}, ")
    walk = _Walk(real, paths_here)
    if walk.is_part(status) or any(real.startswith(f"{part}/") for part in paths_here.parts):
        raise Unreadable(f"cannot share {quoted(real)}: a download fills it", _PART_HINT)
    if stat.S_ISDIR(status.st_mode):
        with translated(real, "share"):
            fd = os.open(real, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                walk.enter_root(fd, status)
            finally:
                os.close(fd)
    else:
        walk.take_file(real, status)
    return walk.found()


def _is_home(shown: str, kind: str, where: str = "it is ") -> Unreadable:
    return Unreadable(
        f"cannot share {shown}: {where}the home of {kind}, with its secret keys", _HOME_HINT
    )


class _Walk:
    """Collects the entries of a folder in order, from the handle of each folder above."""

    def __init__(self, root: str, paths_here: DevicePaths) -> None:
        self._root = root
        self._order = PathOrder()
        self._homes = KnownHomes(paths_here.homes)
        self._parts = frozenset(_identities(paths_here.parts))
        self._problems: list[MiniTorrentError] = []
        self._problem_count = 0
        self._entries: list[Entry] = []
        self._fingerprints: list[Fingerprint | None] = []
        self._times: list[int] = []
        self._folder_times: dict[str, int] = {}
        self._delicates = Delicates()
        self._left_out: list[str] = []

    def found(self) -> Scan:
        """The result. Raises the problems found."""
        self._raise_problems()
        times = [*self._times]
        if self._folder_times:
            times += [self._folder_times[path] for path in folders_of(self._entries)]
        return Scan(
            tuple(self._entries),
            SharedLocation(
                os.fsencode(self._root), tuple(self._fingerprints), identity_of(self._root)
            ),
            tuple(times) if len(times) <= limits.TIMES_MAX else (),
            self._delicates.found(),
            tuple(self._left_out),
        )

    def is_part(self, status: os.stat_result) -> bool:
        """Whether a download of ours fills it."""
        return bool(self._parts) and identity(status) in self._parts

    # -- folders --------------------------------------------------------------------------------

    def enter_root(self, fd: int, status: os.stat_result) -> None:
        """Walk the folder to share."""
        if self._homes.holds(status):
            raise _is_home(quoted(self._root), "this peer", "it is a part of ")
        name = os.path.basename(self._root)
        hidden = Reason(f"{name}/", hidden=True) if name.startswith(".") else None
        self._enter(fd, [], status, hidden)

    def _enter(
        self, fd: int, parts: list[str], status: os.stat_result, reason: Reason | None
    ) -> None:
        names = sorted(os.listdir(fd))
        kind = homes.home_in(fd, names)
        if kind is not None:
            self._problem(_is_home(self._shown(parts), kind))
            return
        path = "/".join(parts)
        self._folder_times[path] = kept_time(status.st_mtime_ns)
        before = len(self._entries) + self._problem_count
        for name in names:
            self._visit(fd, [*parts, name], reason)
        if parts and len(self._entries) + self._problem_count == before:
            time_ns = self._folder_times.pop(path)
            self._add(Entry(path, 0, EntryKind.FOLDER), None, time_ns)
            self._delicates.add(path, reason, private=False)

    def _visit(self, fd: int, parts: list[str], reason: Reason | None) -> None:
        name = parts[-1]
        try:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if self.is_part(status):
                self._left_out.append("/".join(parts))
                return
            if self._homes.holds(status):
                self._problem(_is_home(self._shown(parts), "this peer", "it is a part of "))
                return
            if not stat.S_ISDIR(status.st_mode):
                readable = os.access(name, os.R_OK, dir_fd=fd, effective_ids=True)
                self._take("/".join(parts), fd, name, status, readable, reason)
                return
            if len(parts) >= PATH_DEPTH_MAX:
                self._problem(
                    ConfigError(f"{self._shown(parts)} is too many folders deep to be shared")
                )
                return
            share_name(name)
            inner = paths.open_folder(fd, [name])
        except BadName as error:
            self._problem(error)
            return
        except OSError as error:
            self._problem(self._unreadable(parts, error))
            return
        try:
            self._enter(inner, parts, status, reason_of("/".join(parts), status, reason))
        except OSError as error:
            self._problem(self._unreadable(parts, error))
        finally:
            os.close(inner)

    # -- files ----------------------------------------------------------------------------------

    def take_file(self, real: str, status: os.stat_result) -> None:
        """Check the one file to share; nothing else is looked at."""
        folder, name = os.path.split(real)
        if self._homes.holds(status):
            raise _is_home(quoted(real), "this peer", "it is a part of ")
        with translated(folder, "share from"):
            fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            readable = os.access(real, os.R_OK, effective_ids=True)
            self._take("", fd, name, status, readable, None)
        finally:
            os.close(fd)

    def _take(
        self,
        path: str,
        fd: int,
        name: str,
        status: os.stat_result,
        readable: bool,
        reason: Reason | None,
    ) -> None:
        shown = self._shown([path] if path else [])
        if not stat.S_ISREG(status.st_mode):
            self._problem(
                Unreadable(
                    f"{shown} is {paths.kind_of(status)}, which cannot be shared",
                    _copy_hint(self._root, status),
                )
            )
        elif not readable:
            self._problem(Unreadable(f"cannot read {shown}: {os.strerror(errno.EACCES)}"))
        elif status.st_size == PAIR_BYTES and homes.holds_pair(fd, name):
            self._problem(
                Unreadable(
                    f"cannot share {shown}: it is the secret key of a peer or tracker", _HOME_HINT
                )
            )
        else:
            executable = bool(status.st_mode & stat.S_IXUSR)
            kind = EntryKind.EXECUTABLE if executable else EntryKind.FILE
            entry = Entry(path, status.st_size, kind)
            self._add(entry, Fingerprint.of(status), kept_time(status.st_mtime_ns))
            self._delicates.add(path or name, reason, private=is_private(status))

    def _add(self, entry: Entry, fingerprint: Fingerprint | None, time_ns: int) -> None:
        if entry.path:
            try:
                self._order.add(entry.path)
            except BadName as error:
                self._problem(error)
                return
        if len(self._entries) == limits.ENTRIES_MAX:
            raise ConfigError(
                f"{quoted(self._root)} holds more than {limits.ENTRIES_MAX} files",
                "share a part of it, or an archive",
            )
        self._entries.append(entry)
        self._fingerprints.append(fingerprint)
        self._times.append(time_ns)

    # -- problems -------------------------------------------------------------------------------

    def _problem(self, error: MiniTorrentError) -> None:
        self._problem_count += 1
        if self._problem_count <= PROBLEMS_NAMED_MAX:
            self._problems.append(error)

    def _raise_problems(self) -> None:
        if self._problem_count == 1:
            raise self._problems[0]
        if not self._problems:
            return
        more = self._problem_count - len(self._problems)
        told = "; ".join(error.message for error in self._problems)
        kind = BadName if all(isinstance(e, BadName) for e in self._problems) else Unreadable
        hints = dict.fromkeys(error.hint for error in self._problems if error.hint)
        raise kind(
            f"cannot share {quoted(self._root)}: {self._problem_count} problems: {told}"
            + (f"; and {more} more" if more else ""),
            "; ".join(hints) or None,
        )

    def _unreadable(self, parts: list[str], error: OSError) -> Unreadable:
        reason = os.strerror(error.errno or 0)
        return Unreadable(f"cannot share {self._shown(parts)}: {reason}")

    def _shown(self, parts: list[str]) -> str:
        return quoted(os.path.join(self._root, *parts))


def _identities(found: Iterable[str]) -> Iterable[Identity]:
    for path in found:
        with suppress(OSError):
            yield identity(os.lstat(path))


def _copy_hint(root: str, status: os.stat_result) -> str:
    if not stat.S_ISLNK(status.st_mode):
        return "only plain files and folders can be"
    words = "share a copy with the files in place of their links"
    return shell_hint(words, "cp", "-rL", root, "COPY")
