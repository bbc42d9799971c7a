"""Host addresses: current ones of this machine's interfaces, and those of host names.

All functions block. Not here: lookup beside an event loop (see ``common.net.resolving``).

Limits: one IPv4 address an interface (its primary one); IPv6 addresses of global scope only.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
import socket
import struct
from pathlib import Path

from common.link import host_of, is_address

ADDRESSES_MAX = 8  # of one name that are tried; the best come first

_LOOPBACK = ("127.0.0.1", "::1")
_SIOCGIFFLAGS, _SIOCGIFADDR = 0x8913, 0x8915  # of linux/sockios.h
_IFF_UP = 1
_IF_INET6 = Path("/proc/net/if_inet6")
_GLOBAL_SCOPE = "00"


def addresses_of_interface(name: str) -> list[str]:
    """Return the addresses of an interface that is up, IPv4 first."""
    found = []
    request = struct.pack("256s", name.encode()[:15])
    with (
        contextlib.suppress(OSError),
        contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe,
    ):
        (flags,) = struct.unpack_from("=H", fcntl.ioctl(probe, _SIOCGIFFLAGS, request), 16)
        if not flags & _IFF_UP:
            return []
        answer = fcntl.ioctl(probe, _SIOCGIFADDR, request)
        found.append(socket.inet_ntoa(answer[20:24]))
    with contextlib.suppress(OSError, ValueError):
        for line in _IF_INET6.read_text("ascii").splitlines():
            packed, _, _, scope, _, interface = line.split()
            if interface == name and scope == _GLOBAL_SCOPE:
                found.append(str(ipaddress.IPv6Address(bytes.fromhex(packed))))
    return found


def addresses_for_others() -> list[str]:
    """Return the addresses at which other machines may reach this one.

    They are neither loopback nor link-local; IPv4 comes first, in the order of the interfaces.
    """
    found = [one for _, name in socket.if_nameindex() for one in addresses_of_interface(name)]
    usable = [ipaddress.ip_address(one) for one in found]
    good = [one for one in usable if not (one.is_loopback or one.is_link_local)]
    return [str(one) for one in sorted(good, key=lambda one: one.version)]


def is_host_name(endpoint: str) -> bool:
    """Whether the host of ``endpoint`` is a host name: no address, and no interface's name."""
    host = host_of(endpoint)
    if endpoint.startswith("ipc://") or is_address(host):
        return False
    return host not in {name for _, name in socket.if_nameindex()}


def addresses_of(host: str) -> list[str]:
    """Return the addresses of a host name, the preferred one first. Blocks; raises OSError."""
    try:
        rows = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise socket.gaierror(socket.EAI_NONAME, "not a host name") from error
    found = [str(row[4][0]) for row in rows]
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        found += _LOOPBACK  # also against the hosts file (RFC 6761)
    return list(dict.fromkeys(found))[:ADDRESSES_MAX]


def reason_of(error: OSError) -> str:
    """Return the system's text for a failed lookup or connection."""
    return error.strerror or (os.strerror(error.errno) if error.errno else "no address")
