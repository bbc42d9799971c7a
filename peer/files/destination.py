"""Destination of a download: its folder, its final name, and the name of its part.

Owns: the handle of the folder, the checks before anything is made, and the one step that makes a
complete download visible. Every step starts from the handle, so a path that is redirected meanwhile
changes nothing. Not here: the bytes of the part (see peer.files.partfile).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Callable

from blake3 import blake3

from common.errors import ConfigError, StorageError
from common.host.atomic_files import is_refusal
from common.names import NAME_BYTES_MAX, quoted
from common.units import size_text
from peer.files import paths, syscalls
from peer.files.errors import (
    AlreadyExists,
    DiskFull,
    NameTooLong,
    NeverNamed,
    UnsafeDestination,
    storage_error,
    translated,
)
from peer.files.optional_steps import without

PART_SUFFIX = ".part"
_HASHED_CHARACTERS = 8


def part_name(name: str) -> str:
    """The name of the part of ``name``, in the same folder."""
    return name_with(name, PART_SUFFIX)


def name_with(name: str, suffix: str) -> str:
    """Return ``name`` with ``suffix``, cut to the length that a file system takes."""
    longest = NAME_BYTES_MAX - len(suffix)
    encoded = os.fsencode(name)
    if len(encoded) <= longest:
        return name + suffix
    # Cut; a digest of the whole tells it from other long names.
    mark = "~" + blake3(encoded).hexdigest()[:_HASHED_CHARACTERS]
    cut = encoded[: longest - len(mark)].decode("utf-8", "ignore")
    return cut + mark + suffix


def short_part_name(name: str) -> str:
    """The name of the part for file systems that take only shorter names than Linux does."""
    return "~" + blake3(os.fsencode(name)).hexdigest()[:_HASHED_CHARACTERS] + PART_SUFFIX


class Destination:
    """A folder and a name in it. ``path`` has no link in it and is the one to record."""

    def __init__(self, folder: str, name: str, fd: int) -> None:
        self.folder = folder
        self.name = name
        self.part = part_name(name)
        self.fd = fd
        self.renamed = False  # the part has its final name, perhaps not on the disk yet
        self.rename: Callable[[Destination], bool] = _rename_to_new
        self._left = False  # the part is still there, as a second name of the complete file
        # Whether a file has one inode number by name and by handle, as `made` finds out.
        self._numbered = True

    @classmethod
    def choose(cls, path: str) -> Destination:
        """The destination at a path that a user gave. Links to its folder are resolved once, here.

        Raises `StorageError` if there is no such folder, `ConfigError` if the path ends in no name.
        """
        folder, name = os.path.split(os.path.abspath(path))
        return cls.again(os.path.join(os.path.realpath(folder), name))

    @classmethod
    def again(cls, path: str) -> Destination:
        """The destination at a recorded path. A link that has appeared in it since is refused."""
        folder, name = os.path.split(path)
        if name in ("", ".", ".."):
            raise ConfigError(f"{quoted(path)} is no name for a new file or folder")
        with translated(folder, "use the folder"):
            destination = cls(folder, name, paths.open_real_folder(folder))
        try:
            destination._choose_part()
        except BaseException:
            destination.close()
            raise
        return destination

    def _choose_part(self) -> None:
        """Take the short name for the part if the file system refuses the long one, or if a part
        with the short name exists.
        """
        short = short_part_name(self.name)
        if self._takes(self.part) and (
            self.status(self.part) is not None or self.status(short) is None
        ):
            return
        self.part = short

    def _takes(self, name: str) -> bool:
        """Whether the file system takes a name of that length, as far as it tells in advance."""
        try:
            longest = os.fstatvfs(self.fd).f_namemax
        except OSError:
            longest = 0  # the file system does not tell
        if longest and len(os.fsencode(name)) > longest:
            return False
        try:
            self.status(name)
        except NameTooLong:
            return False
        return True

    def shorten_part(self) -> bool:
        """Take the short name for the part, after the file system refused the long one; return
        False if it is short already.
        """
        short = short_part_name(self.name)
        before, self.part = self.part, short
        return before != short

    def made(self, part_fd: int) -> None:
        """The part exists and is open as ``part_fd``: learn how its file system numbers files."""
        status = self.status(self.part)
        if status is not None:
            self._numbered = os.path.samestat(status, os.fstat(part_fd))

    @property
    def path(self) -> str:
        return os.path.join(self.folder, self.name)

    @property
    def part_path(self) -> str:
        return os.path.join(self.folder, self.part)

    def refuse_if_there(self, *, replaced: bool = False) -> None:
        """Raise `AlreadyExists` or `UnsafeDestination` if either name is in use.

        ``replaced``: a file or folder under the final name may be there.
        """
        for name, hint in (
            (self.name, "choose another name, or remove it"),
            (self.part, "another download may be filling it; otherwise remove it"),
        ):
            status = self.status(name)
            if status is None:
                continue
            shown = quoted(os.path.join(self.folder, name))
            if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
                raise UnsafeDestination(f"{shown} is {paths.kind_of(status)}", hint)
            if name == self.part or not replaced:
                raise AlreadyExists(f"{shown} is already there", hint)

    def status(self, name: str) -> os.stat_result | None:
        """The status of ``name`` in the folder, without following links; None if it is free."""
        with translated(os.path.join(self.folder, name), "look at"):
            return paths.status_of(self.fd, name)

    def check_space(self, needed: int) -> None:
        """Raise `DiskFull` if less than ``needed`` bytes are free."""
        try:
            found = os.fstatvfs(self.fd)
        except OSError as error:
            if not is_refusal(error):
                raise storage_error(error, self.folder, "look at") from error
            without(self.folder, "tell its free space", error, "the download begins all the same")
            return
        free = found.f_bavail * found.f_frsize
        if free < needed and found.f_blocks:  # some network file systems tell nothing
            raise DiskFull(
                f"no space left in {quoted(self.folder)}: "
                f"{size_text(needed)} needed, {size_text(free)} free",
                "free some space there, or choose another place",
            )

    @property
    def block_size(self) -> int:
        """The block size of the file system, in bytes."""
        try:
            return max(1, os.fstatvfs(self.fd).f_frsize)
        except OSError:
            return 1

    def sync(self) -> None:
        """Sync the names in the folder."""
        with translated(self.folder, "sync"):
            refused = syscalls.sync_file(self.fd)
        if refused is not None:
            instead = "the whole file system is synced"
            without(self.folder, "sync one folder", refused, instead)

    def publish(self, part_fd: int, is_content: Callable[[str], bool]) -> None:
        """Give the part its final name, if it is still the one open as ``part_fd``.

        Some file systems number a file differently by name and by handle, or by each of its names.
        There ``is_content`` tells whether the content stands at a name.

        Raises `AlreadyExists` if the name has come into use; nothing is overwritten. On return the
        new name is on the disk. After a transient error the same call can be made again.
        """
        if not self.renamed:
            if self._numbered or not is_content(self.part):
                self._require_part(part_fd, self.part)
            try:
                with translated(self.path, "create"):
                    self._left = self.rename(self)
            except StorageError as error:
                # A network file system may have renamed it and lost only the answer.
                with contextlib.suppress(StorageError):
                    self.renamed = self._is_part(part_fd, self.name)
                if not self.renamed:
                    self._never_named(error)
                    raise
                self._left = True
            self.renamed = True
        if not self._is_part(part_fd, self.name) and not is_content(self.name):
            self._require_part(part_fd, self.name)
        self.sync()

    def _never_named(self, error: StorageError) -> None:
        """Raise `NeverNamed` if the rename was refused though the folder takes new names.

        Why: no change of permissions would help, so a retry would never end.
        """
        cause = error.__cause__
        if not isinstance(cause, OSError) or not is_refusal(cause):
            return
        probe = short_part_name(self.name + "\0")
        try:
            os.close(paths.create_file(self.fd, probe))
            os.unlink(probe, dir_fd=self.fd)
        except OSError:
            return
        raise NeverNamed(
            f"{error.message}; its file system refuses every way to rename",
            f"the content is complete and verified at {quoted(self.part_path)}: copy it from there",
        ) from cause

    def open(self, name: str) -> int:
        """Open the file or folder at ``name`` to read it. Raises `StorageError`."""
        with translated(os.path.join(self.folder, name), "look at"):
            status = paths.status_of(self.fd, name)
            if status is not None and stat.S_ISDIR(status.st_mode):
                return paths.open_folder(self.fd, [name])
            return paths.open_to_read(self.fd, name)

    def _is_part(self, part_fd: int, name: str) -> bool:
        status = self.status(name)
        return status is not None and os.path.samestat(status, os.fstat(part_fd))

    def _require_part(self, part_fd: int, name: str) -> None:
        if not self._is_part(part_fd, name):
            shown = quoted(os.path.join(self.folder, name))
            raise UnsafeDestination(f"{shown} is gone, or was replaced by something else")

    def forget_second_name(self) -> bool:
        """Remove the part if it is a second name of the complete file; return whether it was.

        Some file systems rename in two steps, link and unlink, and a process may end between them.
        """
        part, final = self.status(self.part), self.status(self.name)
        if part is None or final is None or not _is_one_file(part, final):
            return False
        with translated(self.part_path, "remove"):
            os.unlink(self.part, dir_fd=self.fd)
        return True

    def remove_part(self, part_fd: int) -> None:
        """Remove the part with everything in it, if it is the one open as ``part_fd``."""
        with translated(self.part_path, "remove"):
            status = paths.status_of(self.fd, self.part)
            if status is None or not self._looks_like(status, os.fstat(part_fd)):
                return
            if stat.S_ISDIR(status.st_mode):
                shutil.rmtree(self.part, dir_fd=self.fd)
            else:
                os.unlink(self.part, dir_fd=self.fd)
        self.sync()

    def _looks_like(self, status: os.stat_result, part: os.stat_result) -> bool:
        if self._numbered:
            return os.path.samestat(status, part)
        return (status.st_mode, status.st_size, status.st_mtime_ns) == (
            part.st_mode,
            part.st_size,
            part.st_mtime_ns,
        )

    def close(self) -> None:
        """Close the folder, after the part. Why: not every file system removes an open file."""
        if self._left and self.fd >= 0:
            with contextlib.suppress(OSError, StorageError):
                self.forget_second_name()
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


def _rename_to_new(destination: Destination) -> bool:
    """Give the part its final name, if that is free; return whether it keeps its old name too."""
    return syscalls.rename_no_replace(destination.part, destination.name, destination.fd)


def _is_one_file(one: os.stat_result, other: os.stat_result) -> bool:
    """Whether two names stand for one file, also where each name has a number of its own."""
    if os.path.samestat(one, other):
        return True
    return one.st_nlink > 1 and _looks(one) == _looks(other)


def _looks(status: os.stat_result) -> tuple[int, ...]:
    return (
        *(status.st_dev, status.st_mode, status.st_nlink, status.st_size),
        *(status.st_mtime_ns, status.st_ctime_ns),
    )
