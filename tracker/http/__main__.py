"""Web process of a tracker: the HTTP service on sockets that it has inherited.

Owns: orders on standard input, one a line, and the answers on standard output, one JSON object a
line. The end of standard input ends the process. Why: the tracker may end in any way.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import msgspec

from common.host import process
from tracker.http.service import HttpService, Sockets
from tracker.service.web_process import NICENESS, PAGE_ORDER


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m tracker.http")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--page", type=int, required=True)
    parser.add_argument("--api", type=int)
    parser.add_argument("--metrics", type=int)
    parser.add_argument("--origin")
    parser.add_argument("--log-json", action="store_true")
    options = parser.parse_args()
    process.start_up(log_json=options.log_json)
    # Signals of a terminal reach both processes; the tracker ends this one in its order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    sockets = Sockets(
        _inherited(options.page),
        None if options.api is None else _inherited(options.api),
        None if options.metrics is None else _inherited(options.metrics),
        options.origin,
    )
    asyncio.run(_serve(options.home, sockets))


def _inherited(fd: int) -> socket.socket:
    found = socket.socket(fileno=fd)
    found.setblocking(False)
    return found


async def _serve(home: Path, sockets: Sockets) -> None:
    service = HttpService(home, sockets)
    service.start()
    orders = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    loop.add_signal_handler(signal.SIGTERM, orders.feed_eof)
    _send({"ready": True})
    try:
        while order := await orders.readline():
            if order.strip() == PAGE_ORDER:
                _send({"secret": service.open_page()})
    finally:
        await service.close()


def _send(answer: dict[str, Any]) -> None:
    os.write(1, msgspec.json.encode(answer) + b"\n")


if __name__ == "__main__":
    main()
