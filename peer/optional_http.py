"""Optional HTTP service: loaded at its first use, because it needs the extra ``web``.

Owns: the error of a peer that lacks the extra. Not here: the service (see peer.http.service).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from common.host.release import RELEASE
from common.messages import control
from common.optional_library import library_missing
from peer.control.handlers import Commands
from peer.reading.manager import Reading

if TYPE_CHECKING:
    from peer.http.service import HttpService


class OptionalHttp:
    """The HTTP service of one peer, if it is used."""

    def __init__(
        self, home: Path, commands: Commands, metrics: Callable[[], str], reading: Reading
    ) -> None:
        self._home = home
        self._reading = reading
        self._commands = commands
        self._metrics = metrics
        self._service: HttpService | None = None

    def service(self) -> HttpService:
        """Return the service. Raises `ConfigError` if a library of the extra is missing."""
        if self._service is None:
            try:
                from peer.http.service import HttpService
            except ModuleNotFoundError as error:
                what = "the page and the HTTP API need"
                raise library_missing(what, error.name, "web") from error
            self._service = HttpService(
                self._home,
                self._commands.handle,
                self._commands.listen,
                RELEASE,
                self._metrics,
                self._reading,
            )
        return self._service

    def open_page(self) -> control.PageOpened:
        """Open the page for its user."""
        return self.service().open_page()

    async def close(self) -> None:
        """End the service, if it was used."""
        if self._service is not None:
            await self._service.close()
