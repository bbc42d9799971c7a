"""Errors of files, one class for each consequence.

Owns: the translation of the operating system's errors. Not here: the consequences themselves, to
pause, unshare or fail (see peer.downloads and peer.shares).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from common.errors import IntegrityError, LocalProtocolError, MiniTorrentError, StorageError
from common.messages.refusals import Code
from common.names import quoted


class TransientStorageError(StorageError):
    """An error that passes by itself or by an action elsewhere: retry later."""


class DiskFull(TransientStorageError):
    """No space left. The file stays consistent; the same call may be made again later."""


class Away(TransientStorageError):
    """The folder cannot be reached now: a disk is not mounted, a server does not answer, or a
    permission was taken. This proves nothing about the files in it.
    """


class ReadOnly(TransientStorageError):
    """Not writable: by permissions, or because the file system is mounted read-only."""

    code = Code.READ_ONLY


class IOFailed(StorageError):
    """The device or file system failed. Data that was not synced before counts as lost."""


class AlreadyExists(StorageError):
    """The name exists already and is not overwritten."""

    code = Code.TAKEN


class UnsafeDestination(StorageError):
    """A link, device, FIFO or hard link stands in the place of a file of ours."""


class NameTooLong(StorageError):
    """The file system takes no name of that length."""


class NeverNamed(StorageError):
    """The file system refuses to give a complete content its final name. It stays a part."""


class ContentChanged(StorageError):
    """A shared file is no longer as it was digested: edited, truncated, replaced or gone."""

    code = Code.CHANGED


class OtherContent(ContentChanged):
    """Files that did not change while they were read hold other bytes than a manifest says."""


class Unreadable(StorageError):
    """A file to share is missing, not readable, or no plain file or folder."""


class PieceNotHeld(LocalProtocolError):
    """A piece to read was never held, or was lost since."""


class StorageClosed(StorageError):
    """Use after closing, as by a worker that outlives its download."""


class WrongPiece(IntegrityError):
    """The bytes are not the piece that their sender named. Nothing was written."""


class DigestMismatch(IntegrityError):
    """The whole content does not have its digest.

    ``pieces`` fail their own digests on the disk; they are no longer held and can be fetched again.
    If there are none, the manifest itself is wrong.
    """

    def __init__(self, message: str, pieces: tuple[int, ...], hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.pieces = pieces


class TooManyOpenFiles(TransientStorageError):
    """Too many files are open, or memory is short. Transient; retry later."""

    code = Code.BUSY


class Cancelled(MiniTorrentError):
    """Long work was asked to stop, and did."""

    code = Code.CANCELLED


_FULL = {errno.ENOSPC, errno.EDQUOT}
_SHORT = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
_READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_NAME = {errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG}
_UNSAFE = {errno.ELOOP, errno.ENXIO, errno.ENOTDIR, errno.EISDIR, errno.ENODEV}


def storage_error(error: OSError, path: str, doing: str) -> StorageError:
    """The `StorageError` for an error of the system while ``doing`` something to ``path``."""
    number = error.errno or 0
    reason = os.strerror(number) if number else str(error)
    text = f"cannot {doing} {quoted(path)}: {reason}"
    if number in _FULL:
        return DiskFull(text, "free some space there; it goes on by itself")
    if number in _READ_ONLY:
        return ReadOnly(text, "choose another place, or change its permissions")
    if number == errno.EEXIST:
        return AlreadyExists(
            f"{quoted(path)} is already there", "choose another name, or remove it"
        )
    if number in _NO_NAME and doing == "create":
        return UnsafeDestination(text, "its file system holds no such name: choose another")
    if number in _SHORT:
        return TooManyOpenFiles(text, "close other programs, or raise the limit of open files")
    if number == errno.ENAMETOOLONG:
        return NameTooLong(text, "choose a shorter name, or another place")
    if number in _UNSAFE:
        return UnsafeDestination(
            f"cannot {doing} {quoted(path)}: a link, device or file stands in the way ({reason})"
        )
    return IOFailed(text)


DISK_ERRORS = ("ENOSPC", "EIO", "other")


def errno_word(error: BaseException) -> str:
    """One of `DISK_ERRORS` for an error of a file."""
    cause = error if isinstance(error, OSError) else error.__cause__
    number = cause.errno if isinstance(cause, OSError) else None
    if isinstance(error, DiskFull) or number in _FULL:
        return "ENOSPC"
    return "EIO" if number == errno.EIO else "other"


@contextmanager
def translated(path: str, doing: str) -> Iterator[None]:
    """Raise errors of the system within the block as a `StorageError` about ``path``."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, path, doing) from error
