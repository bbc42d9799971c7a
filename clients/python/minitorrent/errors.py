"""Errors of the client."""

from __future__ import annotations


class Error(Exception):
    """A refused or failed command.

    ``code``: the reason for programs, as on the command line, such as ``unknown-share``.
    ``hint``: the next step, or None. ``status``: the HTTP status, or 0.
    """

    def __init__(self, code: str, message: str, hint: str | None = None, status: int = 0) -> None:
        super().__init__(message if hint is None else f"{message} ({hint})")
        self.code = code
        self.message = message
        self.hint = hint
        self.status = status


class NotRunning(Error):
    """No peer answers at the socket, or its HTTP API is off."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(
            "no-peer",
            f"no HTTP API of a peer at {path}: {reason}",
            "start the peer with [http] on = true in its peer.toml: mini-torrent up",
        )
