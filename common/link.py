"""Links: addresses and public key of a tracker, as users pass them on.

Owns: the link (``mini-torrent://HOST:PORT/KEY``; for several trackers with one key
``mini-torrent://HOST:PORT,HOST:PORT/KEY``; for a tracker on an ipc path
``mini-torrent+ipc:///path/to/socket/KEY``), the rules for endpoints, and the original's
``tracker_info.txt`` with a line for the IP, one for the port and, ours, one for the key.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from common import limits, link_text
from common.crypto.keys import key_text, parse_key
from common.errors import ConfigError
from common.ids import DeviceKey

_TCP = re.compile(r"tcp://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._*-]+):(?P<port>[0-9]{1,5}|\*)\Z")
_IPC = re.compile(r"ipc://(?P<path>/[^\x00-\x1f\x7f\ud800-\udfff]{1,100})\Z")
_BROADCAST = ipaddress.IPv4Address("255.255.255.255")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,252})\Z")


@dataclass(frozen=True, slots=True)
class Tracker:
    """A tracker's command endpoint and its pinned CURVE public key."""

    endpoint: str
    key: DeviceKey

    @property
    def link(self) -> str:
        return Link((self.endpoint,), self.key).text


@dataclass(frozen=True, slots=True)
class Link:
    """Public key of a tracker, and the endpoints at which trackers with this key answer.

    An endpoint on an ipc path is the only one of its link.
    """

    endpoints: tuple[str, ...]
    key: DeviceKey

    @property
    def text(self) -> str:
        """The link as users pass it on, without endpoints that do not fit into it."""
        if self.endpoints[0].startswith("ipc://"):
            return f"mini-torrent+{self.endpoints[0]}/{key_text(self.key)}"
        fit = [each for each in self.endpoints if each.startswith("tcp://")]
        addresses = ",".join(each.removeprefix("tcp://") for each in fit)
        return f"mini-torrent://{addresses}/{key_text(self.key)}"

    @property
    def trackers(self) -> list[Tracker]:
        return [Tracker(endpoint, self.key) for endpoint in self.endpoints]

    @property
    def first(self) -> Tracker:
        return Tracker(self.endpoints[0], self.key)


def check_endpoint(text: str, *, wildcard: bool = False) -> str:
    """Return ``text`` if it is ``tcp://HOST:PORT`` or ``ipc:///PATH``. Raises `ConfigError`.

    ``wildcard`` allows endpoints to bind: a host of ``*`` and the port 0.
    """
    if match := _IPC.match(text):
        # The kernel's limit for the path of a socket is 107 bytes.
        if len(match["path"].encode()) > 100:
            raise ConfigError(f"the path is too long for a socket: {text!r}", "use a shorter one")
        return text
    match = _TCP.match(text)
    if match is None:
        raise ConfigError(f"not an endpoint: {text!r}", "write tcp://HOST:PORT or ipc:///PATH")
    host, port = match["host"], match["port"]
    _check_host(host, text, wildcard)
    number = 0 if port == "*" else int(port)
    if port not in ("*", str(number)):
        raise ConfigError(f"not a port: {port} in {text!r}", "write it without leading zeros")
    if number > 65535 or (number == 0 and not wildcard):
        raise ConfigError(f"not a port: {port} in {text!r}", "ports are 1 to 65535")
    return text


def check_source(text: str) -> str:
    """Return ``text`` if it is an endpoint that a device may announce. Raises `ConfigError`.

    Its host is an address and never a name. Why: libzmq resolves names on the one thread that all
    its connections share, so that a slow name server of another party would hold up
    everything, and would learn who asked.
    """
    hint = "what others are told is tcp://IP:PORT, with an IPv6 address in brackets"
    try:
        check_endpoint(text)
    except ConfigError as error:
        raise ConfigError(error.message, error.hint or hint) from error
    if text.startswith("ipc://"):
        return text
    host = text.removeprefix("tcp://").rpartition(":")[0]
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        raise ConfigError(f"{host} in {text!r} is a name and not an IP address", hint) from None
    plain = getattr(address, "ipv4_mapped", None) or address
    if plain.is_unspecified or plain.is_multicast or plain == _BROADCAST:
        raise ConfigError(f"{host} in {text!r} is not the address of one machine", hint)
    return text


def check_host(text: str) -> str:
    """Return ``text`` if it is an address, without brackets, or a host name. Raises `ConfigError`.

    Others must be able to connect to it.
    """
    host = text.strip().removeprefix("[").removesuffix("]")
    endpoint = endpoint_at(host, 1)
    try:
        check_endpoint(endpoint)
        if re.fullmatch(r"[0-9.]+|.*:.*", host):
            check_source(endpoint)
    except ConfigError as error:
        raise ConfigError(
            f"not a host that others can be told: {text!r}",
            "give an IP address or a host name of this machine, without a port",
        ) from error
    return host


def is_address(host: str) -> bool:
    """Whether ``host`` of an endpoint is an address, or the wildcard, and no name."""
    return host == "*" or host.startswith("[") or re.fullmatch(r"[0-9.]+", host) is not None


def host_of(endpoint: str) -> str:
    """Return the host of a checked ``tcp://HOST:PORT``; brackets of an IPv6 address stay."""
    return endpoint.removeprefix("tcp://").rpartition(":")[0]


def is_loopback(endpoint: str) -> bool:
    """Whether only processes of this machine can connect to ``endpoint``."""
    if endpoint.startswith("ipc://"):
        return True
    try:
        address = ipaddress.ip_address(host_of(endpoint).strip("[]").partition("%")[0])
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def endpoint_at(address: str, port: int | str) -> str:
    """Return ``tcp://ADDRESS:PORT``, with an IPv6 address in brackets."""
    return f"tcp://[{address}]:{port}" if ":" in address else f"tcp://{address}:{port}"


def _check_host(host: str, text: str, wildcard: bool) -> None:
    if host == "*" and wildcard:
        return
    try:
        if host.startswith("["):
            ipaddress.IPv6Address(host[1:-1])
            return
        if re.fullmatch(r"[0-9.]+", host):
            ipaddress.IPv4Address(host)
            return
    except ValueError as error:
        raise ConfigError(f"not an address: {host} in {text!r}") from error
    if not _HOST.match(host):
        raise ConfigError(f"not a host name: {host} in {text!r}")


def as_endpoint(text: str) -> str:
    """Return the endpoint of a user's ``--listen``: an endpoint, ``HOST:PORT`` or a port alone."""
    if text.isdigit():
        return check_endpoint(f"tcp://127.0.0.1:{text}", wildcard=True)
    if "://" not in text:
        text = f"tcp://{text}"
    return check_endpoint(text, wildcard=True)


def parse_link(text: str) -> Link:
    """Return the content of a link, after clean-up. Raises `ConfigError` that names the fault."""
    text = link_text.cleaned(text)
    with contextlib.suppress(ConfigError):
        if text.startswith(link_text.IPC_SCHEME):
            path, _, key = text.removeprefix(link_text.IPC_SCHEME).rpartition("/")
            return Link((check_endpoint(f"ipc://{path}"),), parse_key(key))
        if text.startswith(link_text.SCHEME):
            addresses, _, key = text.removeprefix(link_text.SCHEME).rpartition("/")
            endpoints = [check_endpoint(f"tcp://{each}") for each in addresses.split(",")]
            unique = tuple(dict.fromkeys(endpoints))
            if len(unique) <= limits.TRACKER_ADDRESSES_MAX:
                return Link(unique, parse_key(key))
    raise link_text.refusal(text)


# -- tracker_info.txt ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class InfoEntry:
    """One tracker of the file: ``line`` is the number of its first line, ``key_after`` the number
    of the line after which its key line stands or belongs."""

    endpoint: str
    key: DeviceKey | None
    line: int
    key_after: int


_INFO_HINT = "a tracker has three lines: its IP, its port, and the key that it prints"


def read_info(path: Path) -> list[InfoEntry]:
    """Return the trackers of a ``tracker_info.txt``. Raises `ConfigError` naming the line."""
    try:
        # Editors elsewhere begin a text with a mark of its encoding.
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not a text file") from error
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    wanted = [
        (number, line.split("#", 1)[0].strip())
        for number, line in enumerate(lines, 1)
        if line.split("#", 1)[0].strip()
    ]
    entries: list[InfoEntry] = []
    at = 0
    while at < len(wanted):
        first, host = wanted[at]
        if re.fullmatch(r"[^:\s]+(:|\s+)[0-9]+|\[.*\](:|\s+)[0-9]+", host):
            raise ConfigError(
                f"{path}, line {first}: the port of {host!r} belongs in the next line", _INFO_HINT
            )
        if at + 1 == len(wanted):
            raise ConfigError(f"{path}, line {first}: the port of {host!r} is missing", _INFO_HINT)
        number, port = wanted[at + 1]
        if not re.fullmatch(r"[0-9]{1,5}", port):
            raise ConfigError(f"{path}, line {number}: not a port: {port!r}", _INFO_HINT)
        endpoint = _info_endpoint(path, first, number, host, port)
        at += 2
        key = None
        if at < len(wanted) and _looks_like_key(wanted[at][1]):
            number, text = wanted[at]
            try:
                key = parse_key(text)
            except ConfigError as error:
                raise ConfigError(f"{path}, line {number}: {error.message}") from error
            at += 1
        entries.append(InfoEntry(endpoint, key, first, number))
    if not entries:
        raise ConfigError(f"{path} names no tracker", _INFO_HINT)
    return entries


def _info_endpoint(path: Path, first: int, second: int, host: str, port: str) -> str:
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    try:
        check_endpoint(f"tcp://{host}:1")
    except ConfigError as error:
        what = f"{path}, line {first}: not an IP or host name: {host!r}"
        raise ConfigError(what, _INFO_HINT) from error
    try:
        return check_endpoint(f"tcp://{host}:{int(port)}")
    except ConfigError as error:
        what = f"{path}, line {second}: not a port: {port!r}"
        raise ConfigError(what, _INFO_HINT) from error


def _looks_like_key(text: str) -> bool:
    # No IP is that long; a damaged key of about the right length is named as one.
    return len(text) >= 40 and not re.search(r"[.:]", text)


def add_key(path: Path, entry: InfoEntry, key: DeviceKey) -> None:
    """Write the key line of ``entry``, which has none, into its file. Raises `ConfigError`."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        lines.insert(entry.key_after, key_text(key))
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot add the tracker's key to {path}: {error.strerror}") from error


def links_of(trackers: Iterable[Tracker]) -> list[Link]:
    """Return ``trackers`` as one link for each key, in their order."""
    found: dict[DeviceKey, dict[str, None]] = {}
    for each in trackers:
        found.setdefault(each.key, {})[each.endpoint] = None
    return [Link(tuple(endpoints), key) for key, endpoints in found.items()]


def trackers_of(text: str, base: Path | None = None) -> list[Tracker]:
    """Return the trackers of a link, or of the file ``tracker_info.txt`` at a path, in order.

    Entries without a key cannot be trusted; when no entry has one, `ConfigError`.
    """
    path = (base or Path()) / text
    if link_text.looks_like_link(link_text.cleaned(text)) and not os.path.lexists(path):
        return parse_link(text).trackers
    entries = read_info(path)
    trackers = [Tracker(entry.endpoint, entry.key) for entry in entries if entry.key is not None]
    if not trackers:
        raise ConfigError(
            f"{path}, line {entries[0].line}: this tracker has no key line",
            "start the tracker with this file once, or add the key from its link",
        )
    return trackers
