"""Where a tracker listens, and by which address others find it.

Owns the choice of the two endpoints and their binding. Everything else about the sockets is
``tracker.server``'s and ``common.sockets``'.
"""

from __future__ import annotations

import logging
import socket
from dataclasses import dataclass
from typing import Any

import zmq

from common.errors import TransportError
from common.link import check_endpoint
from common.sockets import bind

log = logging.getLogger(__name__)

PAIR_ATTEMPTS = 16  # to find two free ports in a row


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where to listen. ``events`` empty: the port after that of ``commands``, or its path with
    ``.events``. ``advertise``: the host to tell to others."""

    commands: str
    events: str = ""
    advertise: str = ""


def bind_both(
    commands: zmq.Socket[Any], events: zmq.Socket[Any], addresses: Addresses
) -> tuple[str, str]:
    """Bind both sockets; where they are. Raises `ConfigError`, `TransportError`."""
    wanted = check_endpoint(addresses.commands, wildcard=True)
    if addresses.events:
        endpoint = _bind(commands, wanted)
        return endpoint, _bind(events, check_endpoint(addresses.events, wildcard=True))
    if wanted.startswith("ipc://"):
        return _bind(commands, wanted), _bind(events, f"{wanted}.events")
    host, _, port = wanted.rpartition(":")
    # With a free port of its own choice a tracker takes two in a row, so that it can be started
    # again at the port that it got.
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
        # libzmq would take the path away from whoever listens there.
        raise TransportError(
            f"cannot listen at {endpoint}: another process does",
            "stop that one, or choose another path",
        )
    return bind(socket_, endpoint)


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
        return True


def told(events: str, commands: str) -> str:
    """The events' endpoint as it stands in `Welcome`."""
    if events.startswith("ipc://"):
        return events
    host, _, port = events.rpartition(":")
    if host == commands.rpartition(":")[0] or host in ("tcp://0.0.0.0", "tcp://[::]"):
        return f"tcp://*:{port}"
    return events


def advertised(endpoint: str, host: str = "") -> str:
    """``endpoint`` as others reach it: ``host``, or for a wildcard this machine's address."""
    if endpoint.startswith("ipc://"):
        return endpoint
    bound, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    if host:
        return f"tcp://{f'[{host}]' if ':' in host and host[0] != '[' else host}:{port}"
    if bound in ("0.0.0.0", "[::]", "*"):
        return f"tcp://{_own_address()}:{port}"
    return endpoint


def _own_address() -> str:
    # Connecting a datagram socket sends nothing; it only asks the system for a route.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"
