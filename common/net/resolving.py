"""Host name lookup beside the event loop: all addresses of ``tcp://HOST:PORT``.

Owns: the threads that wait for a name server. Not here: the choice among the addresses (see the
callers).

Why: libzmq takes the first address that a name has, and asks for it on the one thread that all its
connections share. A name with an IPv6 and an IPv4 address (``localhost``) is then unreachable when
only the other one answers, and a slow name server holds up everything.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import TypeAlias

from common.errors import TransportError
from common.link import endpoint_at, host_of, is_address
from common.net.hosts import addresses_of, reason_of


class NoSuchHost(TransportError):
    """Host name without an address, by the answer of the name servers."""


LOOKUP_S = 5.0  # resolvers wait that long for the first name server that is asked

_UNKNOWN = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))

_Found: TypeAlias = "asyncio.Future[list[str]]"
_lookups: dict[tuple[asyncio.AbstractEventLoop, str], _Found] = {}


async def endpoints_of(endpoint: str) -> list[str]:
    """Return ``endpoint`` once for each current address of its host, the preferred one first.

    Invariant: a name is looked up by one thread at a time, however often it is asked for; a thread
    that a name server keeps waiting does not keep the process from ending.
    Raises `NoSuchHost` when there is none, `TransportError` without an answer in `LOOKUP_S`.
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
        kind = NoSuchHost if error.errno in _UNKNOWN else TransportError
        raise kind(f"cannot look up {host}: {reason_of(error)}") from error
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
