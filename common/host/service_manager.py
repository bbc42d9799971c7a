"""Messages to the service manager (systemd): ready, state, stopping, and the watchdog.

Owns: the datagrams of the protocol of sd_notify(3). Without ``NOTIFY_SOCKET`` nothing is sent. Not
here: the units (see config/).

Invariant: the watchdog is fed from the event loop alone. Why: a process whose loop hangs is
restarted then, although it has not ended.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, MutableMapping

from common.names import printable

log = logging.getLogger(__name__)

STATUS_S = 10.0  # how often the state is looked at, without a watchdog
SEND_S = 1.0  # for a message that the service manager waits for
STATUS_CHARACTERS_MAX = 200


class ServiceManager:
    """The service manager of this process, if it has one.

    Takes its variables out of ``environment``, so that no process started here has them.
    """

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        self._address = _address(environment.pop("NOTIFY_SOCKET", ""))
        period = _seconds(environment.pop("WATCHDOG_USEC", ""))
        ours = environment.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_s = period if ours and self._address is not None else 0.0
        """Time after which it restarts a silent process; 0 for never."""
        self._status = ""

    def ready(self, status: str) -> None:
        """Report that this process serves. ``status``: a line for people."""
        self._status = status
        self._send("READY=1", _status_line(status), wait_s=SEND_S)

    def stopping(self) -> None:
        """Report that this process is ending in order."""
        self._send("STOPPING=1", "STATUS=stopping", wait_s=SEND_S)

    async def keep_informed(self, status: Callable[[], str]) -> None:
        """Feed the watchdog, and send a ``status`` that has changed, until cancelled."""
        if self._address is None:
            return
        while True:
            await asyncio.sleep(self.watchdog_s / 3 or STATUS_S)
            lines = ["WATCHDOG=1"] if self.watchdog_s else []
            try:
                now = status()
            except Exception:
                log.exception("the state for the service manager is not known")
                now = self._status
            if now != self._status:
                self._status = now
                lines.append(_status_line(now))
            if lines:
                self._send(*lines)

    def _send(self, *lines: str, wait_s: float = 0.0) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.settimeout(wait_s)
                sender.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            log.warning("the service manager cannot be told %s: %s", lines[0], error)


def _address(text: str) -> str | None:
    """The address of the socket: a path, or behind ``@`` a name in the abstract namespace."""
    if text.startswith("@") and len(text) > 1:
        return "\0" + text[1:]
    if text.startswith("/"):
        return text
    if text:
        log.warning("NOTIFY_SOCKET is neither a path nor an abstract name: %s", printable(text))
    return None


def _seconds(microseconds: str) -> float:
    return int(microseconds) / 1e6 if microseconds.isascii() and microseconds.isdigit() else 0.0


def _status_line(status: str) -> str:
    return f"STATUS={printable(status)[:STATUS_CHARACTERS_MAX]}"
