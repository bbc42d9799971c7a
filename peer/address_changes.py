"""Address changes: listening and announced addresses of this peer, over the life of the process.

Owns: repeated checks, moves of the serving sockets to another address, and `announced`. Not here:
the choice of an address for a given moment (see ``peer.addresses``), and the announcement itself
(see ``peer.tracker_client.lease``).

A machine may have no network when the peer starts, and gets another address with another cable, a
new lease or after a sleep. The address is looked at again before each announcement, which is six
times a minute, and whenever the link to the tracker is made anew; names once a minute.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Protocol

from common.errors import CannotListen, MiniTorrentError, NoSuchAddress, TransportError
from common.hints import hint
from common.host.clock import monotonic
from common.link import Tracker, endpoint_at, host_of, is_address, is_loopback
from common.messages import tracker
from common.net.hosts import addresses_for_others, addresses_of_interface, is_host_name, reason_of
from common.net.resolving import NoSuchHost, endpoints_of
from peer import addresses

log = logging.getLogger(__name__)

NAMES_S = 60.0  # how often the names of --listen and --advertise are looked up again
START_S = 2.0  # a start does not wait longer for a name server


class Moving(Protocol):
    """Server that can move to another address: the piece server."""

    endpoint: str

    def move(self, listen: str) -> None: ...


class AddressWatch:
    """Watch that keeps ``server`` at an address that others can reach.

    ``listen`` and ``advertise`` are the options of `up`, None if not given. ``reached`` returns the
    endpoint at which the tracker was reached last, None before the first time.
    """

    def __init__(
        self,
        home: Path,
        listen: str | None,
        advertise: str | None,
        trackers: list[Tracker],
        server: Moving,
        reached: Callable[[], str | None],
    ) -> None:
        self._home = home
        self._listen = listen
        self.advertise = advertise
        self._trackers = trackers
        self._server = server
        self._reached = reached
        self._lock = asyncio.Lock()
        self._names: dict[str, tuple[float, str]] = {}
        self._task: asyncio.Task[str | None] | None = None
        self.announced: str | None = None
        """The endpoint that the tracker is told; None while no device could connect to us."""
        self.last_error: str | None = None
        """The reason for listening nowhere, or at another address than wanted."""
        self.seen_at = ""
        """The address that the tracker sees us at; empty on ipc, and before its first `Welcome`."""
        self._networked = False

    async def start(self) -> None:
        """Listen, if there is an address by now.

        Raises `MiniTorrentError` for permanent faults: a port in use, a name that does not exist.
        """
        try:
            async with self._lock:
                await asyncio.wait_for(self._apply_address(), START_S)
        except TimeoutError:
            self.last_error = "the name server does not answer"
        except TransportError as error:
            if isinstance(error, CannotListen) and not isinstance(error, NoSuchAddress):
                raise
            self.last_error = error.message

    async def refresh(self) -> str | None:
        """Check the address again, and move if necessary; returns `announced`."""
        async with self._lock:
            try:
                await self._apply_address()
            except MiniTorrentError as error:
                if error.message != self.last_error:
                    log.warning("not listening where others could connect: %s", error)
                self.last_error = error.message
            return self.announced

    def link_up(self, welcome: tracker.Welcome) -> None:
        """Check the address after a reconnection, which may come from another address."""
        self.seen_at, self._networked = welcome.seen_at, welcome.networked
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self.refresh(), name="whereabouts")

    @property
    def advice(self) -> tuple[str, str] | None:
        """The fault of the announced address and its hint; None without a known fault."""
        announced = self.announced
        over_tcp = (self._reached() or "").startswith("tcp:")
        if over_tcp and announced is not None and announced.startswith("ipc:"):
            return (
                f"the tracker refuses the address {announced}, for its peers are on many machines; "
                "this peer can neither share nor fetch",
                hint("listen at an address", "down", then=("up", "--listen", "HOST:0")),
            )
        if not self._networked or announced is None or not is_loopback(self._as_seen(announced)):
            return None
        host = next(iter(addresses_for_others()), "HOST")
        option = ("--advertise", host) if self._listen is None else ("--listen", f"{host}:0")
        return (
            f"other machines cannot reach this peer: they are told {self._as_seen(announced)}, "
            "which is good on this machine alone",
            hint("give an address of this machine", "down", then=("up", *option)),
        )

    def _as_seen(self, endpoint: str) -> str:
        """Return ``endpoint``, with the address that the tracker puts in the place of ``*``."""
        return endpoint.replace("tcp://*:", f"{endpoint_at(self.seen_at or '127.0.0.1', '')}", 1)

    def close(self) -> None:
        """Stop watching."""
        if self._task is not None:
            self._task.cancel()

    async def _apply_address(self) -> None:
        wanted = await self._wanted()
        if not self._is_at(wanted):
            self._move(wanted)
        announced = addresses.announce_endpoint(self._server.endpoint)
        if self.advertise is not None and announced.startswith("tcp://"):
            host = host_of(await self._named(self._advertised(), endpoints_of_one))
            announced = f"tcp://{host}:{announced.rpartition(':')[2]}"
        self.announced, self.last_error = announced, None

    async def _wanted(self) -> str:
        if self._listen is not None:
            return await self._named(self._listen, to_listen_at)
        if self.advertise is not None:
            return addresses.ANYWHERE
        reached = self._reached()
        known = [where.endpoint for where in self._trackers]
        return await on_the_way(self._home, [reached] if reached else known)

    def _advertised(self) -> str:
        return endpoint_at(str(self.advertise), 1)

    async def _named(self, endpoint: str, look_up: Callable[[str], Awaitable[str]]) -> str:
        """Return ``endpoint`` resolved by ``look_up``, which is cached for `NAMES_S`."""
        if not is_host_name(endpoint):
            return await look_up(endpoint)
        known = self._names.get(endpoint)
        if known is not None and monotonic() - known[0] < NAMES_S:
            return known[1]
        try:
            found = await look_up(endpoint)
        except TransportError:
            if known is None:
                raise
            found = known[1]  # while the name server is unreachable, the address stays
        self._names[endpoint] = monotonic(), found
        return found

    def _is_at(self, wanted: str) -> bool:
        at = self._server.endpoint
        if not at or wanted.startswith("ipc://"):
            return at == wanted
        host, port = host_of(wanted), wanted.rpartition(":")[2]
        if port not in ("0", "*", at.rpartition(":")[2]):
            return False
        # The name of an interface without an address is left to libzmq.
        return host == host_of(at) or host in ("*", "0.0.0.0", "[::]") or not is_address(host)

    def _move(self, wanted: str) -> None:
        before = self._server.endpoint
        port = before.rpartition(":")[2]
        if before.startswith("tcp://") and wanted.rpartition(":")[2] in ("0", "*"):
            try:  # keep the port: some peers may only know the old endpoint
                self._server.move(f"{wanted.rpartition(':')[0]}:{port}")
            except CannotListen:
                self._server.move(wanted)
        else:
            self._server.move(wanted)
        if before:
            log.info("the address changed: %s, and %s before", self._server.endpoint, before)


async def on_the_way(home: Path, endpoints: Iterable[str]) -> str:
    """The address of this machine that faces the first of the trackers' ``endpoints`` to which
    there is a way, on a free port; a socket in the home where a tracker is on this machine's ipc.

    Raises `ConfigError`, and `TransportError` while there is no way to any.
    """
    reasons = []
    for where in endpoints:
        if where.startswith("ipc://"):
            return addresses.beside_the_keys(home)
        try:
            for endpoint in await endpoints_of(where):
                try:
                    return endpoint_at(addresses.facing(endpoint), 0)
                except OSError as error:
                    reasons.append(f"no route to the tracker at {endpoint}: {reason_of(error)}")
        except TransportError as error:
            reasons.append(error.message)
    raise TransportError(
        reasons[0] if reasons else "no tracker is known",
        hint(
            "check the link and the network, or give an address",
            "up",
            options=("--listen", "HOST:0"),
        ),
    )


async def to_listen_at(endpoint: str) -> str:
    """Return ``endpoint`` with an address in place of a host name.

    Raises `ConfigError` for a name that has no address, `TransportError` while that is not known.
    """
    host, port = host_of(endpoint), endpoint.rpartition(":")[2]
    if not is_host_name(endpoint):
        if endpoint.startswith("ipc://") or is_address(host):
            return endpoint
        found = addresses_of_interface(host)
        return endpoint_at(found[0], port) if found else endpoint
    try:
        return addresses.usable(endpoint, await endpoints_of(endpoint))
    except NoSuchHost as error:
        raise addresses.cannot_listen(endpoint, error.message) from error


async def endpoints_of_one(endpoint: str) -> str:
    """The first address of ``endpoint``. Raises `TransportError`."""
    return (await endpoints_of(endpoint))[0]
