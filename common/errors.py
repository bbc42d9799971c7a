"""Error classes, with texts and hints for users.

The message of an error is the text that the user sees after ``error:``: the operation, its object
and the reason. ``hint`` is the next step. Only shells (sockets, files, command line) translate
foreign exceptions into these; pure modules raise only `Refused` and `LocalProtocolError`.
"""

from __future__ import annotations

from typing import ClassVar

from common.messages.refusals import Code


class MiniTorrentError(Exception):
    """Base class of all errors.

    ``exit_code`` is the exit code of the command line (table of exit codes in the README).
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
    """Invalid input of the user or of a configuration file."""

    exit_code = 2
    code = Code.USAGE


class LocalProtocolError(MiniTorrentError):
    """Misuse of a protocol by our own code: a defect."""

    code = Code.INTERNAL


class RemoteProtocolError(MiniTorrentError):
    """Message of the other side that violates the protocol."""

    code = Code.MALFORMED


class Refused(MiniTorrentError):
    """Refusal by the other side, which understood the request."""

    def __init__(self, code: Code, message: str, hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.code = code

    @property
    def exit_status(self) -> int:
        """Exit code for the reason of this refusal."""
        return _EXIT_OF_CODE.get(self.code, 1)


class TransportError(MiniTorrentError):
    """Failed connection, or no answer in time."""

    exit_code = 4
    code = Code.UNREACHABLE


class CannotListen(TransportError):
    """Listening address that cannot be bound. It is independent of the tracker."""

    exit_code = 1
    code = Code.FAILED


class NoSuchAddress(CannotListen):
    """Listening address that this machine lacks now; that may change with its network."""


class TimedOut(MiniTorrentError):
    """End of a wait that its user bounded; what was waited for may still come."""

    exit_code = 6
    code = Code.TIMED_OUT


class NoPeerRunning(MiniTorrentError):
    """No peer runs for this home."""

    exit_code = 3
    code = Code.NO_PEER


class StorageError(MiniTorrentError):
    """Failed operation on a file or a database."""

    code = Code.STORAGE


class IntegrityError(MiniTorrentError):
    """Bytes that do not match their digest."""

    exit_code = 5
    code = Code.CORRUPT


_EXIT_OF_CODE = {
    Code.UNREACHABLE: 4,
    Code.NO_PEER: 3,
    Code.USAGE: 2,
    Code.CORRUPT: 5,
    Code.TIMED_OUT: 6,
}


def exit_code_of(error: MiniTorrentError) -> int:
    """Return the exit code of the command line for this error."""
    return error.exit_status if isinstance(error, Refused) else error.exit_code
