"""What can go wrong with files, told apart by what follows from it.

Owns the translation of the operating system's errors. What is done about them (pause, unshare,
fail) is decided by the daemon.
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
    """What passes by itself, or by what somebody does elsewhere: to be tried again in a while."""


class DiskFull(TransientStorageError):
    """No room. What was there stays consistent; the same call may be made again later."""


class Away(TransientStorageError):
    """What lies in a place that cannot be reached now: a disk that is not mounted, a server that
    does not answer, a permission that was taken. Nothing follows for what lies there."""


class ReadOnly(TransientStorageError):
    """Not writable: by permissions, or because the file system is mounted so."""

    code = Code.READ_ONLY


class IOFailed(StorageError):
    """The device or file system failed. What was not synced before must be taken for lost."""


class AlreadyExists(StorageError):
    """Something of that name exists and is not overwritten."""

    code = Code.TAKEN


class UnsafeDestination(StorageError):
    """A link, device, FIFO or hard link stands where a file of ours should be."""


class NameTooLong(StorageError):
    """The file system takes no name of that length."""


class NeverNamed(StorageError):
    """A complete content whose file system refuses to give it its final name. It stays a part."""


class ContentChanged(StorageError):
    """A shared file is not what was digested any more: edited, truncated, replaced or gone."""

    code = Code.CHANGED


class OtherContent(ContentChanged):
    """Files that stand still, and hold other bytes than a manifest says."""


class Unreadable(StorageError):
    """What should be shared is missing, not readable, or not a plain file or folder."""


class PieceNotHeld(LocalProtocolError):
    """A piece is to be read that is not there, or was lost since."""


class StorageClosed(StorageError):
    """Used after it was closed, as happens to a worker that outlives its download."""


class WrongPiece(IntegrityError):
    """Bytes that are not the piece they were sent as. Nothing was written."""


class DigestMismatch(IntegrityError):
    """The whole content does not have the digest it should.

    ``pieces`` are those that fail their own digests on disk; they are no longer held and can be
    fetched again. If there are none, the manifest itself is wrong.
    """

    def __init__(self, message: str, pieces: tuple[int, ...], hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.pieces = pieces


class TooManyOpenFiles(TransientStorageError):
    """Too many files are open, or memory is short. Passes by itself; ask again later."""

    code = Code.BUSY


class Cancelled(MiniTorrentError):
    """Long work that was asked to stop, and did."""

    code = Code.CANCELLED


_FULL = {errno.ENOSPC, errno.EDQUOT}
_SHORT = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
_READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_NAME = {errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG}
_UNSAFE = {errno.ELOOP, errno.ENXIO, errno.ENOTDIR, errno.EISDIR, errno.ENODEV}


def storage_error(error: OSError, path: str, doing: str) -> StorageError:
    """The `StorageError` for what the system said while ``doing`` something to ``path``."""
    number = error.errno or 0
    reason = os.strerror(number) if number else str(error)
    text = f"cannot {doing} {quoted(path)}: {reason}"
    if number in _FULL:
        return DiskFull(text, "make room there; it goes on by itself")
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


@contextmanager
def translated(path: str, doing: str) -> Iterator[None]:
    """Raise what the system reports within as a `StorageError` about ``path``."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, path, doing) from error
