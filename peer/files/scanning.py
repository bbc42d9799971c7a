"""Walk over files to share: entries, times, and everything that prevents sharing.

Owns: the rule of what may be shared: plain files and folders, no home of a peer or tracker, no part
of a download, and targets of links only as the user's rule says. All problems are found before the
first is reported. Not here: reading the bytes (see peer.files.sharing), the text of problems (see
peer.files.scan_problems).
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
from common.errors import ConfigError
from common.hints import hint
from common.manifest import Entry, EntryKind, folders_of, kept_time
from common.names import PATH_DEPTH_MAX, BadName, PathOrder, quoted, share_name
from peer.files import homes, paths
from peer.files.errors import Unreadable, translated
from peer.files.fingerprint import Fingerprint, SharedLocation
from peer.files.folder_identity import identity_of
from peer.files.homes import Identity, KnownHomes, identity
from peer.files.link_targets import link_root, real_target, root_above
from peer.files.private_files import Delicate, Delicates, Reason, is_private, reason_of
from peer.files.scan_problems import HOME_HINT, Problems, Typed, home_problem
from peer.files.sharing_rule import Links, SharingRule, Skipped, exclusion

VISITS_MAX = 5 * limits.ENTRIES_MAX  # of entries, also excluded and skipped ones, in one walk
FOLLOWED_MAX = 100_000  # links in one walk; each takes up to 2 ms to look up
PART_REASON = "a download fills it"
_PART_HINT = hint("it can be shared when it is complete; see how far it is", "show-downloads")


class Scan(NamedTuple):
    """Result of a walk: the entries in the manifest's order, and their fingerprints.

    ``times`` as in a manifest, empty if there are too many; ``skipped``: what was left out, but for
    the ``excluded`` entries and the ``unnamed`` ones, which are counted.
    """

    entries: tuple[Entry, ...]
    place: SharedLocation
    times: tuple[int, ...] = ()
    delicate: Delicate = Delicate()
    skipped: tuple[Skipped, ...] = ()
    unnamed: int = 0
    excluded: int = 0

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.entries)


class DevicePaths(NamedTuple):
    """Paths of this device that a walk treats apart: parts of active downloads, and homes."""

    parts: tuple[str, ...] = ()
    homes: tuple[str, ...] = ()


def scan(
    path: str,
    paths_here: DevicePaths = DevicePaths(),  # noqa: B008 - a constant
    rule: SharingRule = SharingRule(),  # noqa: B008 - a constant
    typed: Typed = Typed(),  # noqa: B008 - a constant
) -> Scan:
    """List the entries to share from ``path``, without reading them.

    A link that the user names is followed, and one inside a folder as ``rule`` says. Everything
    else that is no plain file or folder is refused. ``typed`` stands in hints. Raises `Unreadable`,
    `BadName` or `ConfigError`, which name all problems.
    """
    real = os.path.realpath(path)
    try:
        status = os.lstat(real)
    except OSError as error:
        raise Unreadable(f"cannot share {quoted(path)}: {os.strerror(error.errno or 0)}") from error
    above = homes.home_above(real)
    if above is not None:
        raise home_problem(quoted(real), above[1], f"it lies in {quoted(above[0])}, ")
    walk = _Walk(real, paths_here, rule, Problems(real, rule, typed))
    if walk.is_part(real, status):
        raise Unreadable(f"cannot share {quoted(real)}: {PART_REASON}", _PART_HINT)
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


class _Walk:
    """Collects the entries of a folder in order, from the handle of each folder above."""

    def __init__(
        self, root: str, paths_here: DevicePaths, rule: SharingRule, problems: Problems
    ) -> None:
        self._root = root
        self._links = Links(rule.links)
        self._roots = (root, *map(os.fsdecode, rule.roots))
        self._exclusion = exclusion(rule.exclude)
        self._order = PathOrder()
        self._homes = KnownHomes(paths_here.homes)
        self._homes_above: dict[str, tuple[str, str] | None] = {}
        self._part_paths = paths_here.parts
        self._parts = frozenset(_identities(paths_here.parts))
        self._problems = problems
        self._above: list[Identity] = []  # the folders that the walk is in
        self._entries: list[Entry] = []
        self._fingerprints: list[Fingerprint | None] = []
        self._times: list[int] = []
        self._folder_times: dict[str, int] = {}
        self._delicates = Delicates()
        self._visits = self._followed = self._excluded = 0

    def found(self) -> Scan:
        """The result. Raises the problems found."""
        self._problems.raise_all(left=len(self._entries), excluded=self._excluded)
        times = [*self._times]
        if self._folder_times:
            times += [self._folder_times[path] for path in folders_of(self._entries)]
        follows = self._links is Links.FOLLOW and bool(self._folder_times)
        return Scan(
            tuple(self._entries),
            SharedLocation(
                os.fsencode(self._root),
                tuple(self._fingerprints),
                identity_of(self._root),
                tuple(map(link_root, self._roots)) if follows else (),
            ),
            tuple(times) if len(times) <= limits.TIMES_MAX else (),
            self._delicates.found(),
            *self._problems.skipped(),
            self._excluded,
        )

    def is_part(self, real: str, status: os.stat_result) -> bool:
        """Whether a download of ours fills it, or the folder that it lies in."""
        if any(real.startswith(f"{part}/") for part in self._part_paths):
            return True
        return bool(self._parts) and identity(status) in self._parts

    # -- folders --------------------------------------------------------------------------------

    def enter_root(self, fd: int, status: os.stat_result) -> None:
        """Walk the folder to share."""
        if self._homes.holds(status):
            raise home_problem(quoted(self._root), "this peer", "it is a part of ")
        name = os.path.basename(self._root)
        hidden = Reason(f"{name}/", hidden=True) if name.startswith(".") else None
        self._enter(fd, [], status, hidden)

    def _enter(
        self, fd: int, parts: list[str], status: os.stat_result, reason: Reason | None
    ) -> None:
        names = sorted(os.listdir(fd))
        kind = homes.home_in(fd, names)
        if kind is not None:
            self._problems.add(parts, home_problem(self._shown(parts), kind), folder=True)
            return
        path = "/".join(parts)
        self._folder_times[path] = kept_time(status.st_mtime_ns)
        before = self._count()
        self._above.append(identity(status))
        for name in names:
            self._visit(fd, [*parts, name], reason)
        self._above.pop()
        if parts and self._count() == before:
            time_ns = self._folder_times.pop(path)
            self._add(Entry(path, 0, EntryKind.FOLDER), None, time_ns)
            self._delicates.add(path, reason, private=False)

    def _count(self) -> int:
        """Number of entries found, those left out included: it stays equal in an empty folder."""
        return len(self._entries) + self._problems.count + self._excluded

    def _visit(self, fd: int, parts: list[str], reason: Reason | None) -> None:
        self._visits += 1
        if self._visits > VISITS_MAX:
            raise self._too_many()
        try:
            status = os.stat(parts[-1], dir_fd=fd, follow_symlinks=False)
            if self._is_excluded(parts, status):
                self._excluded += 1
            elif not paths.is_link(status) or self._links is Links.REFUSE:
                self._add_entry(fd, parts[-1], parts, status, reason)
            elif self._links is Links.SKIP:
                self._problems.leave_out(parts, paths.kind_of(status))
            else:
                self._follow(parts, reason)
        except BadName as error:
            self._problems.add(parts, error, folder=True)
        except OSError as error:
            self._problems.add_unreadable(parts, error)

    def _add_entry(
        self, fd: int, name: str, parts: list[str], status: os.stat_result, reason: Reason | None
    ) -> None:
        """Take the file, or enter the folder, that is ``name`` in the folder ``fd``."""
        if bool(self._parts) and identity(status) in self._parts:
            self._problems.leave_out(parts, PART_REASON, folder=stat.S_ISDIR(status.st_mode))
        elif self._homes.holds(status):
            error = home_problem(self._shown(parts), "this peer", "it is a part of ")
            self._problems.add(parts, error)
        elif not stat.S_ISDIR(status.st_mode):
            readable = os.access(name, os.R_OK, dir_fd=fd, effective_ids=True)
            self._take("/".join(parts), fd, name, status, readable, reason)
        elif len(parts) >= PATH_DEPTH_MAX:
            deep = "too many folders deep to be shared"
            found = ConfigError(f"{self._shown(parts)} is {deep}")
            self._problems.add(parts, found, reason=deep, folder=True)
        else:
            share_name(parts[-1])
            inner = paths.open_folder(fd, [name])
            try:
                self._enter(inner, parts, status, reason_of("/".join(parts), status, reason))
            finally:
                os.close(inner)

    def _is_excluded(self, parts: list[str], status: os.stat_result) -> bool:
        if self._exclusion is None:
            return False
        folder = stat.S_ISDIR(status.st_mode)
        return self._exclusion.excludes("/".join(parts), folder=folder)

    # -- links ----------------------------------------------------------------------------------

    def _follow(self, parts: list[str], reason: Reason | None) -> None:
        """Take the target of a link in its place."""
        path = os.path.join(self._root, *parts)
        self._followed += 1
        if self._followed > FOLLOWED_MAX:
            raise self._too_many()
        try:
            real = real_target(path, self._roots)
        except OSError as error:
            self._problems.add_link(parts, path, error)
            return
        folder, name = os.path.split(real)
        fd = paths.open_real_folder(folder, path_only=True)
        try:
            status = os.stat(name or ".", dir_fd=fd, follow_symlinks=False)
            above = self._home_above(folder)
            if identity(status) in self._above:
                loop = "a link to a folder that holds it"
                found = Unreadable(f"{self._shown(parts)} is {loop}")
                self._problems.add(parts, found, reason=loop)
            elif above is not None:
                where = f"its target lies in {quoted(above[0])}, "
                self._problems.add(parts, home_problem(self._shown(parts), above[1], where))
            elif self.is_part(real, status):
                self._problems.leave_out(parts, PART_REASON)
            elif not self._is_excluded(parts, status):
                self._add_entry(fd, name, parts, status, reason or self._target_reason(parts, real))
            else:
                self._excluded += 1
        finally:
            os.close(fd)

    def _home_above(self, folder: str) -> tuple[str, str] | None:
        if folder not in self._homes_above:
            self._homes_above[folder] = homes.home_above(os.path.join(folder, "target"))
        return self._homes_above[folder]

    def _target_reason(self, parts: list[str], real: str) -> Reason | None:
        """The reason that a target has, by the folders between its root and itself."""
        root, found = root_above(real, self._roots) or "", None
        at = root
        for name in os.path.relpath(real, root).split("/")[:-1]:
            at = os.path.join(at, name)
            found = reason_of(name, os.stat(at), found)
        hidden = os.path.basename(real).startswith(".") or (found is not None and found.hidden)
        return None if found is None and not hidden else Reason("/".join(parts), hidden=hidden)

    # -- files ----------------------------------------------------------------------------------

    def take_file(self, real: str, status: os.stat_result) -> None:
        """Check the one file to share; nothing else is looked at."""
        folder, name = os.path.split(real)
        if self._homes.holds(status):
            raise home_problem(quoted(real), "this peer", "it is a part of ")
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
        parts = [path] if path else []
        shown = self._shown(parts)
        if not stat.S_ISREG(status.st_mode):
            self._problems.add_special(parts, status)
        elif not readable:
            self._problems.add(
                parts, Unreadable(f"cannot read {shown}: {os.strerror(errno.EACCES)}")
            )
        elif status.st_size == PAIR_BYTES and homes.holds_pair(fd, name):
            secret = f"cannot share {shown}: it is the secret key of a peer or tracker"
            self._problems.add(parts, Unreadable(secret, HOME_HINT))
        else:
            executable = bool(status.st_mode & stat.S_IXUSR)
            kind = EntryKind.EXECUTABLE if executable else EntryKind.FILE
            entry = Entry(path, status.st_size, kind)
            if self._add(entry, Fingerprint.of(status), kept_time(status.st_mtime_ns)):
                self._delicates.add(path or name, reason, private=is_private(status))

    def _add(self, entry: Entry, fingerprint: Fingerprint | None, time_ns: int) -> bool:
        if entry.path:
            try:
                self._order.add(entry.path)
            except BadName as error:
                self._problems.add([entry.path], error)
                return False
        if len(self._entries) == limits.ENTRIES_MAX:
            raise self._too_many()
        self._entries.append(entry)
        self._fingerprints.append(fingerprint)
        self._times.append(time_ns)
        return True

    def _too_many(self) -> ConfigError:
        return ConfigError(
            f"{quoted(self._root)} holds more than {limits.ENTRIES_MAX:,} files, or more than"
            f" {FOLLOWED_MAX:,} links to follow",
            "share a part of it, or an archive",
        )

    def _shown(self, parts: list[str]) -> str:
        return quoted(os.path.join(self._root, *parts))


def _identities(found: Iterable[str]) -> Iterable[Identity]:
    for path in found:
        with suppress(OSError):
            yield identity(os.lstat(path))
