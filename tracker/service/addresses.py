"""Addresses of a tracker: the endpoints that it binds, and those that others connect to.

Owns: the choice and binding of the two endpoints, and the endpoint in the link. Not here: the
sockets (see tracker.service.sockets and common.net.sockets).
"""

from __future__ import annotations

import logging
import shlex
import socket
from dataclasses import dataclass
from typing import Any

import zmq

from common.errors import ConfigError, NoSuchAddress, TransportError
from common.link import check_endpoint, endpoint_at, host_of, is_loopback
from common.net.hosts import addresses_for_others, addresses_of, is_host_name, reason_of
from common.net.sockets import bind

log = logging.getLogger(__name__)

_ANYWHERE = ("0.0.0.0", "[::]", "*")
PAIR_ATTEMPTS = 16  # to find two consecutive free ports


@dataclass(frozen=True, slots=True)
class Addresses:
    """Addresses to listen at, as configured.

    ``events`` empty: the port after that of ``commands``, or its path with ``.events``.
    ``advertise``: the host in the link.
    """

    commands: str
    events: str = ""
    advertise: str = ""


def bind_both(
    commands: zmq.Socket[Any], events: zmq.Socket[Any], addresses: Addresses
) -> tuple[str, str]:
    """Bind both sockets. Return their endpoints.

    A host name is bound at the first of its addresses that this machine has. Blocks. Raise
    `ConfigError` or `TransportError`.
    """
    last: NoSuchAddress | None = None
    for wanted in _with_addresses(check_endpoint(addresses.commands, wildcard=True)):
        try:
            return _bind_both(commands, events, wanted, addresses.events)
        except NoSuchAddress as error:
            last = last or error
    assert last is not None
    raise last


def _with_addresses(endpoint: str) -> list[str]:
    if not is_host_name(endpoint):
        return [endpoint]
    host, port = host_of(endpoint), endpoint.rpartition(":")[2]
    try:
        found = [address for address in addresses_of(host) if "%" not in address]
    except OSError as error:
        raise ConfigError(
            f"cannot listen at {endpoint}: {host}: {reason_of(error)}",
            "use --bind with an IP address of this machine",
        ) from error
    if not found:
        raise ConfigError(f"cannot listen at {endpoint}: {host} has no address for others")
    # IPv4 first, so that links by 127.0.0.1 and by localhost both work.
    return [endpoint_at(address, port) for address in sorted(found, key=lambda a: ":" in a)]


def _bind_both(
    commands: zmq.Socket[Any], events: zmq.Socket[Any], wanted: str, events_at: str
) -> tuple[str, str]:
    if events_at:
        elsewhere = _with_addresses(check_endpoint(events_at, wildcard=True))[0]
        return _bind(commands, wanted), _bind(events, elsewhere)
    if wanted.startswith("ipc://"):
        return _bind(commands, wanted), _bind(events, f"{wanted}.events")
    host, _, port = wanted.rpartition(":")
    # With port 0 a tracker takes two consecutive ports, so that it can be started again at the port
    # that it got.
    for _ in range(PAIR_ATTEMPTS if port in ("0", "*") else 1):
        endpoint = _bind(commands, wanted)
        beside = int(endpoint.rpartition(":")[2]) + 1
        try:
            return endpoint, _bind(events, f"{host}:{beside}")
        except TransportError:
            if port in ("0", "*"):
                commands.unbind(endpoint)
    if port in ("0", "*"):
        endpoint = _bind(commands, wanted)
    found = _bind(events, f"{host}:0")
    log.warning(
        "the port after that of %s is not free: events are published at %s", endpoint, found
    )
    return endpoint, found


def _bind(socket_: zmq.Socket[Any], endpoint: str) -> str:
    path = endpoint.removeprefix("ipc://")
    if path != endpoint and _answers(path):
        # libzmq would take the path away from the process that listens there.
        raise TransportError(
            f"cannot listen at {endpoint}: in use by another process",
            "stop the process that listens there, or choose another path",
        )
    return bind(socket_, endpoint)


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
        return True


def events_endpoint_for_welcome(events: str, commands: str) -> str:
    """Return the events' endpoint as `Welcome` names it."""
    if events.startswith("ipc://"):
        return events
    host, _, port = events.rpartition(":")
    if host == commands.rpartition(":")[0] or host in ("tcp://0.0.0.0", "tcp://[::]"):
        return f"tcp://*:{port}"
    return events


def advertised_endpoint(endpoint: str, host: str = "", typed: str = "") -> str:
    """Return ``endpoint`` as others reach it.

    Its host is ``host``, or the host name that was ``typed`` to bind, or for a wildcard an address
    of this machine.
    """
    if endpoint.startswith("ipc://"):
        return endpoint
    port = endpoint.rpartition(":")[2]
    if not host and typed and is_host_name(typed):
        host = host_of(typed)
    if host:
        return endpoint_at(host.strip("[]"), port)
    if host_of(endpoint) in _ANYWHERE:
        return endpoint_at(_own_address(), port)
    return endpoint


def is_networked(endpoint: str, advertise: str) -> bool:
    """Whether other machines can reach a tracker at ``endpoint`` or at its advertised host."""
    return not is_loopback(advertised_endpoint(endpoint, advertise))


def run_options(addresses: Addresses, endpoint: str) -> str:
    """Return the options of `run` that bind a tracker at ``endpoint`` again."""
    bind_at = addresses.commands
    if not bind_at.startswith("ipc://"):
        bind_at = f"{bind_at.rpartition(':')[0]}:{endpoint.rpartition(':')[2]}"
    words = ["--bind", bind_at]
    for option, value in (("--events", addresses.events), ("--advertise", addresses.advertise)):
        words += [option, value] if value else []
    return shlex.join(words)


def advice(endpoint: str, advertise: str) -> str | None:
    """Return a warning for a link whose address is a guess; None if it is not."""
    if advertise or endpoint.startswith("ipc://") or host_of(endpoint) not in _ANYWHERE:
        return None
    found, chosen = addresses_for_others(), _own_address()
    if not found:
        return (
            "this machine has no address that others could use: the link works on this machine "
            "only, until --advertise HOST names one"
        )
    others = [address for address in found if address != chosen]
    if _routed_address() is None and others:
        return (
            f"the link names {chosen}, one of several addresses of this machine; for another one "
            f"use --advertise HOST: {', '.join(others)}"
        )
    return None


def _own_address() -> str:
    return _routed_address() or next(iter(addresses_for_others()), "127.0.0.1")


def _routed_address() -> str | None:
    """Return the address of the default route's interface; None without such a route."""
    # Connecting a datagram socket sends nothing; it only asks the system for a route.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return None
