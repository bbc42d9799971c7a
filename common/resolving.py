"""Host name lookup beside the event loop: all addresses of ``tcp://HOST:PORT``.

Owns the threads that wait for a name server. Which address is used is the caller's choice.

Why: libzmq takes the first address that a name has, and asks for it on the one thread that all its
connections share. A name with an IPv6 and an IPv4 address (``localhost``) is then unreachable when
only the other one answers, and a slow name server holds up everything.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import threading
from typing import TypeAlias

from common.errors import TransportError
from common.link import endpoint_at, host_of

LOOKUP_S = 5.0  # resolvers wait that long for the first name server that is asked
ADDRESSES_MAX = 8  # of one name that are tried; the best come first

_Found: TypeAlias = "asyncio.Future[list[str]]"
_lookups: dict[tuple[asyncio.AbstractEventLoop, str], _Found] = {}


def is_address(host: str) -> bool:
    """Whether ``host`` of an endpoint is an address, or the wildcard, and no name."""
    return host == "*" or host.startswith("[") or re.fullmatch(r"[0-9.]+", host) is not None


async def endpoints_of(endpoint: str) -> list[str]:
    """``endpoint`` once for each address that its host has now, the preferred one first.

    Invariant: a name is looked up by one thread at a time, however often it is asked for; a thread
    that a name server keeps waiting does not keep the process from ending.
    Raises `TransportError` when there is none, or no answer in `LOOKUP_S`.
    """
    host = host_of(endpoint)
    if not endpoint.startswith("tcp://") or is_address(host):
        return [endpoint]
    key = (asyncio.get_running_loop(), host)
    found = _lookups.get(key)
    if found is None:
        found = _begin(key)
    try:
        addresses = await asyncio.wait_for(asyncio.shield(found), LOOKUP_S)
    except TimeoutError:
        raise TransportError(f"cannot look up {host}: the name server does not answer") from None
    except OSError as error:
        raise TransportError(f"cannot look up {host}: {reason_of(error)}") from error
    port = endpoint.rpartition(":")[2]
    return [endpoint_at(address, port) for address in addresses]


def _begin(key: tuple[asyncio.AbstractEventLoop, str]) -> _Found:
    loop, host = key
    found = _lookups[key] = loop.create_future()

    def end(addresses: list[str], error: OSError | None) -> None:
        _lookups.pop(key, None)
        if found.cancelled():
            return
        if error is None:
            found.set_result(addresses)
        else:
            found.set_exception(error)
            found.exception()  # the caller may have given up, and the failure is no defect

    def look() -> None:
        error: OSError | None = None
        addresses: list[str] = []
        try:
            addresses = addresses_of(host)
        except OSError as caught:
            error = caught
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(end, addresses, error)

    threading.Thread(target=look, name="lookup", daemon=True).start()
    return found


def addresses_of(host: str) -> list[str]:
    """The addresses of a host name, the preferred one first. Blocks; raises OSError."""
    try:
        rows = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise socket.gaierror(socket.EAI_NONAME, "not a host name") from error
    found = list(dict.fromkeys(str(row[4][0]) for row in rows))
    return found[:ADDRESSES_MAX]


def reason_of(error: OSError) -> str:
    """Why a lookup or a connection failed, in the system's words."""
    return error.strerror or (os.strerror(error.errno) if error.errno else "no address")
