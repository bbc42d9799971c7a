"""Where this peer listens, and what others are told of that.

Owns the address that is taken when none was asked for, and that a name which was asked for is
looked up here, once: others are told addresses alone (`common.link.check_source`). What blocks here
is a name server's business and belongs on a thread.
"""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from common import names
from common.errors import ConfigError, TransportError
from common.link import Tracker, endpoint_at, host_of


def default_listen(home: Path, where: Tracker) -> str:
    """The address of this machine that faces the tracker, on a free port; a socket in the home
    where the tracker is on this machine's ipc. Blocks; raises `ConfigError`, `TransportError`."""
    if where.endpoint.startswith("ipc://"):
        path = f"ipc://{home}/pieces.sock"
        if len(path) <= len("ipc://") + 100:
            return path
        raise ConfigError(
            f"the path of the home is too long for a socket: {names.quoted(str(home))}",
            "use a shorter --home, or --listen tcp://127.0.0.1:0",
        )
    host, _, port = where.endpoint.removeprefix("tcp://").rpartition(":")
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_DGRAM
        )[0]
        with contextlib.closing(socket.socket(family, kind)) as probe:
            probe.connect(address)  # sends nothing: it only asks the kernel for the route
            local = str(probe.getsockname()[0])
    except OSError as error:
        raise TransportError(
            f"there is no way from here to the tracker at {where.endpoint}: {error.strerror}",
            "check the link and the network, or say where to listen with --listen",
        ) from error
    return endpoint_at(local, "0")


def beside(endpoint: str, port: int) -> str:
    """Another port, or any free one for 0, of the host of ``tcp://HOST:PORT``."""
    return f"tcp://{host_of(endpoint)}:{port or '*'}"


def resolved(endpoint: str) -> str:
    """``endpoint``, to be listened at, with an address in the place of a host name.

    Names of network interfaces are left to libzmq. Blocks; raises `ConfigError`.
    """
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    literal = host == "*" or host.startswith("[") or host.replace(".", "").isdigit()
    interfaces = {name for _, name in socket.if_nameindex()}
    if endpoint.startswith("ipc://") or literal or host in interfaces:
        return endpoint
    hint = "say --listen with an IP address of this machine, or leave it out"
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no name"
        raise ConfigError(f"cannot listen at {endpoint}: {host}: {reason}", hint) from error
    # One with a zone is of use on one link alone, and cannot be told to others.
    addresses = [str(address[0]) for *_, address in found if "%" not in str(address[0])]
    if not addresses:
        raise ConfigError(f"cannot listen at {endpoint}: {host} has no address for others", hint)
    return endpoint_at(addresses[0], port)


def announced(endpoint: str) -> str:
    """What the tracker is told of ``endpoint``: for a wildcard, the host that it sees us at."""
    for wildcard in ("tcp://0.0.0.0:", "tcp://[::]:"):
        if endpoint.startswith(wildcard):
            return f"tcp://*:{endpoint.removeprefix(wildcard)}"
    return endpoint
