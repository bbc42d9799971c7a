"""Where a download goes: the folder, the final name in it, and the name until it is complete.

Owns the handle of that folder, the checks before anything is made, and the one step that makes a
complete download visible. Everything is done from the handle, so a path that is redirected
meanwhile changes nothing. What is in the part is none of its business (``peer.files.partfile``).
"""

from __future__ import annotations

import os
import shutil
import stat

from blake3 import blake3

from common.errors import ConfigError
from common.names import NAME_BYTES_MAX, quoted
from peer.files import paths, syscalls
from peer.files.errors import AlreadyThere, DiskFull, UnsafeDestination, translated

PART_SUFFIX = ".part"
_HASHED_CHARACTERS = 8


def part_name(name: str) -> str:
    """The name in the same folder under which ``name`` is collected."""
    room = NAME_BYTES_MAX - len(PART_SUFFIX)
    encoded = os.fsencode(name)
    if len(encoded) <= room:
        return name + PART_SUFFIX
    # Cut, and told apart from other long names by a digest of the whole.
    mark = "~" + blake3(encoded).hexdigest()[:_HASHED_CHARACTERS]
    cut = encoded[: room - len(mark)].decode("utf-8", "ignore")
    return cut + mark + PART_SUFFIX


class Destination:
    """A folder and a name in it. ``path`` has no link in it and is the one to be recorded."""

    def __init__(self, folder: str, name: str, fd: int) -> None:
        self.folder = folder
        self.name = name
        self.part = part_name(name)
        self.fd = fd
        self.renamed = False  # the part has its final name, which may not be on the disk yet

    @classmethod
    def choose(cls, path: str) -> Destination:
        """For a path that a user gave: links on the way to its folder are resolved once, here.

        Raises `StorageError` if there is no such folder, `ConfigError` if that is no name.
        """
        folder, name = os.path.split(os.path.abspath(path))
        return cls.again(os.path.join(os.path.realpath(folder), name))

    @classmethod
    def again(cls, path: str) -> Destination:
        """For a path that was recorded: a link that has appeared in it since is refused."""
        folder, name = os.path.split(path)
        if name in ("", ".", ".."):
            raise ConfigError(f"{quoted(path)} is no name for a new file or folder")
        with translated(folder, "use the folder"):
            return cls(folder, name, paths.open_real_folder(folder))

    @property
    def path(self) -> str:
        return os.path.join(self.folder, self.name)

    @property
    def part_path(self) -> str:
        return os.path.join(self.folder, self.part)

    def refuse_if_there(self) -> None:
        """Raise `AlreadyThere` or `UnsafeDestination` if either name is in use."""
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
            raise AlreadyThere(f"{shown} is already there", hint)

    def status(self, name: str) -> os.stat_result | None:
        """What stands at ``name`` in the folder, links not followed."""
        with translated(os.path.join(self.folder, name), "look at"):
            return paths.status_of(self.fd, name)

    def check_room(self, needed: int) -> None:
        """Raise `DiskFull` if there are less than ``needed`` bytes to be had."""
        with translated(self.folder, "look at"):
            found = os.fstatvfs(self.fd)
        free = found.f_bavail * found.f_frsize
        if free < needed and found.f_blocks:  # some network file systems tell nothing
            raise DiskFull(
                f"no room in {quoted(self.folder)}: {needed:,} bytes needed, {free:,} free",
                "make room there, or choose another place",
            )

    @property
    def block_size(self) -> int:
        """Bytes of the smallest piece of disk that a file can take."""
        return max(1, os.fstatvfs(self.fd).f_frsize)

    def sync(self) -> None:
        """Put the names in the folder on the disk."""
        with translated(self.folder, "sync"):
            os.fsync(self.fd)

    def publish(self, part_fd: int) -> None:
        """Give the part its final name, if it is still the one open as ``part_fd``.

        Raises `AlreadyThere` if that name has come into use; nothing is overwritten. On return the
        new name is on the disk. After an error that passes the same call can be made again.
        """
        if not self.renamed:
            self._require_part(part_fd, self.part)
            with translated(self.path, "create"):
                syscalls.rename_no_replace(self.part, self.name, self.fd)
            self.renamed = True
        self._require_part(part_fd, self.name)
        self.sync()

    def _require_part(self, part_fd: int, name: str) -> None:
        status = self.status(name)
        if status is None or not os.path.samestat(status, os.fstat(part_fd)):
            shown = quoted(os.path.join(self.folder, name))
            raise UnsafeDestination(f"{shown} is gone, or was replaced by something else")

    def remove_part(self, part_fd: int) -> None:
        """Remove the part with everything in it, if it is the one open as ``part_fd``."""
        with translated(self.part_path, "remove"):
            status = paths.status_of(self.fd, self.part)
            if status is None or not os.path.samestat(status, os.fstat(part_fd)):
                return
            if stat.S_ISDIR(status.st_mode):
                shutil.rmtree(self.part, dir_fd=self.fd)
            else:
                os.unlink(self.part, dir_fd=self.fd)
        self.sync()

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
