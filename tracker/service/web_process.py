"""Web process: the tracker's HTTP application, in a process of its own.

Owns: the sockets, bound before the tracker serves so that a taken address is an error at its start,
and the process, which begins when it is needed and is started again after a failure.

Why a process: requests take none of the time of the command loop, whatever a page or a scraper
sends; the process has a lower priority, and asks the tracker little (see tracker.http.cached).
Not here: the application (see tracker.http), which needs the extra ``web``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import msgspec

from common.errors import ConfigError, Refused
from common.host import detached
from common.http.binding import (
    API_SOCKET,
    LOOPBACK,
    address_of,
    bind_address,
    bind_loopback,
    bind_unix,
)
from common.messages.operator import PageOpened
from common.messages.refusals import Code
from common.optional_library import library_missing

log = logging.getLogger(__name__)

PAGE_ORDER = b"page"
NICENESS = 5  # below the tracker, and still ahead of what runs in the background
ANSWER_S = 20.0  # for the start of the process on a busy machine
END_S = 2.0
RETRY_S = 1.0  # before it is started again, doubled each time …
RETRY_S_MAX = 60.0  # … up to that
LINE_BYTES_MAX = 4_096
BACKLOG = 16  # requests that wait while the process starts
_ORIGIN = re.compile(r"https?://[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class WebSettings:
    """Settings of the web process. ``api``: serve ``api.sock``. ``origin``: of its page behind a
    proxy. ``metrics``: HOST:PORT for Prometheus, or empty."""

    api: bool = False
    origin: str = ""
    metrics: str = ""
    log_json: bool = False

    def __post_init__(self) -> None:
        if self.origin and not _ORIGIN.fullmatch(self.origin):
            raise ConfigError(
                f"the origin {self.origin!r} is invalid",
                "write it as the browser does, such as https://tracker.example.org",
            )
        if self.origin and not self.api:
            raise ConfigError("an origin needs the API", "switch it on: [http] on = true")


class WebProcess:
    """The web process of one tracker. All methods run in the tracker's event loop."""

    def __init__(self, home: Path, settings: WebSettings) -> None:
        self._home = home
        self._settings = settings
        self._sockets: dict[str, socket.socket] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._watching: asyncio.Task[None] | None = None
        self._orders = asyncio.Lock()
        self._closing = False

    @property
    def metrics_address(self) -> str:
        """HOST:PORT of the metrics, with the port that was bound; empty if they are off."""
        bound = self._sockets.get("metrics")
        return "" if bound is None else address_of(bound)

    def bind(self) -> None:
        """Bind what the settings name. Raise `ConfigError`, `CannotListen`."""
        settings = self._settings
        if settings.api or settings.metrics:
            check_libraries(metrics=bool(settings.metrics))
        if settings.metrics:
            self._sockets["metrics"] = bind_address(settings.metrics)
        if settings.api:
            self._sockets["api"] = bind_unix(self._home)
        for bound in self._sockets.values():
            bound.listen(BACKLOG)

    async def start(self) -> None:
        """Start the process if a socket of the settings needs it."""
        if self._sockets:
            self._watching = asyncio.create_task(self._keep_running())

    async def open_page(self) -> PageOpened:
        """Serve the page at a loopback port, and return its address with a one-time secret.

        Raise `Refused`, `ConfigError`, `CannotListen`.
        """
        check_libraries()
        async with self._orders:
            process = await self._running()
            assert process.stdin is not None
            try:
                process.stdin.write(PAGE_ORDER + b"\n")
                secret = (await _answer(process))["secret"]
            except (OSError, TimeoutError, KeyError, ValueError) as error:
                raise _ended() from error
        port = self._sockets["page"].getsockname()[1]
        return PageOpened(f"http://{LOOPBACK}:{port}/", str(secret))

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            self._process = await self._begin()
        return self._process

    async def _begin(self) -> asyncio.subprocess.Process:
        """Start the process, and wait until it serves. Raise `Refused`."""
        if "page" not in self._sockets:
            self._sockets["page"] = bind_loopback()
        words = ["-P", "-m", "tracker.http", "--home", str(self._home)]
        for name, bound in self._sockets.items():
            words += [f"--{name}", str(bound.fileno())]
        words += ["--origin", self._settings.origin] if self._settings.origin else []
        words += ["--log-json"] if self._settings.log_json else []
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *words,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd="/",
            env=detached.environment(),
            pass_fds=[bound.fileno() for bound in self._sockets.values()],
            limit=LINE_BYTES_MAX,
        )
        try:
            if (await _answer(process)).get("ready") is not True:
                raise ValueError("not ready")
        except (TimeoutError, ValueError) as error:
            await _end(process)
            raise _ended() from error
        except BaseException:
            process.kill()
            raise
        log.info("the web process serves (PID %d)", process.pid)
        return process

    async def _keep_running(self) -> None:
        """Start the process again when it ends, until `close`."""
        pause = RETRY_S
        while not self._closing:
            try:
                async with self._orders:
                    process = await self._running()
                pause = RETRY_S
                await process.wait()
                if process.returncode == 0:  # asked to end, as its service manager does
                    log.info("the web process has ended; it starts again")
                else:
                    log.error("the web process has ended (%d); it starts again", process.returncode)
            except Refused as error:
                log.error("%s", error.message)
            except OSError as error:
                log.error("the web process cannot start: %s", error.strerror or error)
            await asyncio.sleep(pause)
            pause = min(2 * pause, RETRY_S_MAX)

    async def close(self) -> None:
        """End the process and close the sockets."""
        self._closing = True
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
        if self._process is not None:
            await _end(self._process)
        for bound in self._sockets.values():
            bound.close()
        if "api" in self._sockets:
            (self._home / API_SOCKET).unlink(missing_ok=True)


async def _answer(process: asyncio.subprocess.Process) -> dict[str, object]:
    """Return the next answer. Raise `ValueError` if there is none, and `TimeoutError`."""
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), ANSWER_S)
    try:
        return msgspec.json.decode(line, type=dict[str, object])
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from error


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), END_S)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _ended() -> Refused:
    return Refused(Code.FAILED, "the web process does not serve; the tracker's log has the reason")


def check_libraries(*, metrics: bool = False) -> None:
    """Raise `ConfigError` if a library of the application is missing."""
    for library, extra, needed in (
        ("starlette", "web", True),
        ("uvicorn", "web", True),
        ("prometheus_client", "metrics", metrics),
    ):
        if needed and find_spec(library) is None:
            raise library_missing("the page and the HTTP API need", library, extra)
