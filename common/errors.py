"""Every way in which something can fail, for a person to read.

The text of an error is what the user sees after ``error:``: what happened, and to what. ``hint`` is
what to do next. Only the shells (sockets, files, command line) translate foreign exceptions into
these; what decides raises none of them but `Refused` and `LocalProtocolError`.
"""

from __future__ import annotations

from typing import ClassVar

from common.messages.refusals import Code


class MiniTorrentError(Exception):
    """The root of them all.

    ``exit_code`` is what the command line ends with, as the README's table of exit codes says.
    """

    exit_code: ClassVar[int] = 1
    code: Code = Code.FAILED

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class ConfigError(MiniTorrentError):
    """What the user or a configuration file said cannot be used."""

    exit_code = 2
    code = Code.USAGE


class LocalProtocolError(MiniTorrentError):
    """Our own code misused a protocol: a defect of ours."""

    code = Code.INTERNAL


class RemoteProtocolError(MiniTorrentError):
    """The other side sent what the protocol does not allow."""

    code = Code.MALFORMED


class Refused(MiniTorrentError):
    """The other side understood and said no."""

    def __init__(self, code: Code, message: str, hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.code = code

    @property
    def exit_status(self) -> int:
        """The exit code that belongs to the reason of this refusal."""
        return _EXIT_OF_CODE.get(self.code, 1)


class TransportError(MiniTorrentError):
    """Nobody answered, or the connection cannot be made."""

    exit_code = 4
    code = Code.UNREACHABLE


class CannotListen(TransportError):
    """The address to listen at cannot be had. It says nothing of the tracker."""

    exit_code = 1
    code = Code.FAILED


class NoSuchAddress(CannotListen):
    """This machine has not got the address to listen at, which may change with its network."""


class NoPeerRunning(MiniTorrentError):
    """There is no peer for this home to talk to."""

    exit_code = 3
    code = Code.NO_PEER


class StorageError(MiniTorrentError):
    """A file or a database did not do what was asked of it."""

    code = Code.STORAGE


class IntegrityError(MiniTorrentError):
    """Bytes are not those that their digest promises."""

    exit_code = 5
    code = Code.CORRUPT


_EXIT_OF_CODE = {
    Code.UNREACHABLE: 4,
    Code.NO_PEER: 3,
    Code.USAGE: 2,
    Code.CORRUPT: 5,
}


def exit_code_of(error: MiniTorrentError) -> int:
    """The exit code of the command line for this error."""
    return error.exit_status if isinstance(error, Refused) else error.exit_code
