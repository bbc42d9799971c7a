"""Listening address of a peer, and the address that others are told.

Owns: the choice for a given moment, that is, the address on the way to the tracker when none was
asked for, and addresses in the place of host names, since others are told addresses alone
(`common.link.check_source`). Not here: later changes (see ``peer.address_changes``).
"""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from common import names
from common.errors import ConfigError
from common.hints import hint
from common.link import endpoint_at, host_of
from common.net.hosts import addresses_of, is_host_name, reason_of

ANYWHERE = "tcp://*:0"


def beside_the_keys(home: Path) -> str:
    """A socket in the home, for a tracker on this machine's ipc. Raises `ConfigError`."""
    path = f"ipc://{home}/pieces.sock"
    if len(path) <= len("ipc://") + 100:
        return path
    raise ConfigError(
        f"the path of the home is too long for a socket: {names.quoted(str(home))}",
        hint(
            "use a shorter --home, or listen elsewhere",
            "up",
            options=("--listen", "tcp://127.0.0.1:0"),
        ),
    )


def facing(endpoint: str) -> str:
    """The address of this machine from which packets to ``endpoint`` leave. Raises OSError."""
    host, port = host_of(endpoint).strip("[]"), int(endpoint.rpartition(":")[2])
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with contextlib.closing(socket.socket(family, socket.SOCK_DGRAM)) as probe:
        probe.connect((host, port))  # sends nothing: it only asks the kernel for the route
        return str(probe.getsockname()[0]).partition("%")[0]


def with_port(endpoint: str, port: int) -> str:
    """Return ``endpoint`` with another port; 0 stands for any free port."""
    return f"tcp://{host_of(endpoint)}:{port or '*'}"


def resolve_host(endpoint: str) -> str:
    """Return ``endpoint`` with an address in place of a host name. Blocks; raises `ConfigError`."""
    if not is_host_name(endpoint):
        return endpoint
    host, port = host_of(endpoint), endpoint.rpartition(":")[2]
    try:
        found = [endpoint_at(address, port) for address in addresses_of(host)]
    except OSError as error:
        raise cannot_listen(endpoint, f"{host}: {reason_of(error)}") from error
    return usable(endpoint, found)


def usable(endpoint: str, found: list[str]) -> str:
    """Return the first of ``found`` that others can use. Raises `ConfigError`."""
    # An address with a zone is of use on one link alone, and cannot be told to others.
    usable = [one for one in found if "%" not in one]
    if not usable:
        raise cannot_listen(endpoint, f"{host_of(endpoint)} has no address for others")
    return usable[0]


def cannot_listen(endpoint: str, why: str) -> ConfigError:
    """The error for an endpoint that names no address of this machine."""
    words = "leave the address out, or name one of this machine"
    return ConfigError(
        f"cannot listen at {endpoint}: {why}", hint(words, "up", options=("--listen", "HOST:PORT"))
    )


def announce_endpoint(endpoint: str) -> str:
    """Return the form of ``endpoint`` for an announcement.

    A wildcard becomes ``*``, which stands for the host that the tracker sees us at.
    """
    for wildcard in ("tcp://0.0.0.0:", "tcp://[::]:"):
        if endpoint.startswith(wildcard):
            return f"tcp://*:{endpoint.removeprefix(wildcard)}"
    return endpoint
