"""Checks of `mini-torrent doctor`: this machine, the home, and a running peer.

Works without a peer, and changes nothing. Not here: checks inside the peer (see
peer.control.health).
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from common.errors import MiniTorrentError
from common.hints import hint, shell_hint
from common.host.home import fault_above
from common.messages import control
from common.messages.control import CheckRow
from common.units import size_text
from peer.addresses import resolve_host
from peer.cli.console import Console
from peer.settings import Settings, load

FREE_BYTES_MIN = 1 << 30  # with less, one large download fills the disk
DESCRIPTORS_MIN = 1024


def findings(console: Console) -> list[CheckRow]:
    """Every check with its result, in the order of repair."""
    from common.host.home import lock_holder

    home = console.home
    rows = [*_machine(), *_home(home)]
    holder = lock_holder(home)
    if holder is None:
        rows.append(CheckRow("peer", True, "none runs for this home"))
        rows += _start(home)
    else:
        rows += _running(console)
    return rows


def _machine() -> Iterator[CheckRow]:
    import resource
    from importlib.metadata import PackageNotFoundError, version

    import zmq

    from common.net.sockets import check_library

    yield CheckRow("python", True, f"{sys.version.split()[0]} ({sys.executable})")
    try:
        check_library()
        yield CheckRow("libzmq", True, f"{zmq.zmq_version()}, with encryption")
    except MiniTorrentError as error:
        yield _bad("libzmq", error)
    versions = []
    for name in (
        "pyzmq",
        "msgspec",
        "blake3",
        "PyNaCl",
        "cryptography",
        "SQLAlchemy",
        "click",
        "rich",
    ):
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            yield CheckRow("libraries", False, f"{name} is missing", "install Mini-Torrent again")
    yield CheckRow("libraries", True, ", ".join(versions))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = hard == resource.RLIM_INFINITY or hard >= DESCRIPTORS_MIN
    yield _checked(
        "open files",
        enough,
        f"up to {hard}",
        f"allow {DESCRIPTORS_MIN} or more (ulimit -Hn, LimitNOFILE=)",
    )


def _home(home: Path) -> Iterator[CheckRow]:
    if not os.path.lexists(home):
        yield CheckRow("home", True, f"{home} is created by the first `up`")
        return
    info = home.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid():
        yield CheckRow("home", False, f"{home} is no directory of yours", "choose another --home")
        return
    private = not info.st_mode & 0o077
    found = f"{home} is yours alone" if private else f"other users can look into {home}"
    yield _checked("home", private, found, shell_hint("close it", "chmod", "700", str(home)))
    if (fault := fault_above(Path(os.path.realpath(home)))) is not None:
        yield CheckRow("home", False, *fault)
    yield from _secrets(home)
    free = shutil.disk_usage(home).free
    yield _checked(
        "disk space", free >= FREE_BYTES_MIN, f"{size_text(free)} free at the home", "make room"
    )


def _secrets(home: Path) -> Iterator[CheckRow]:
    open_to_others = [
        entry.name
        for entry in sorted(home.iterdir())
        if entry.is_file() and entry.suffix in (".key", ".db") and entry.stat().st_mode & 0o077
    ]
    for name in open_to_others:
        yield CheckRow(
            "secrets",
            False,
            f"other users can read {home / name}",
            shell_hint("close it", "chmod", "600", str(home / name)),
        )
    if not open_to_others:
        yield CheckRow("secrets", True, "keys and databases are readable by you alone")


def _start(home: Path) -> Iterator[CheckRow]:
    """Whether a peer could start here."""
    from common.link import links_of, trackers_of
    from peer.native import library as native

    try:
        settings = load(home)
        yield CheckRow("settings", True, "can be read")
    except MiniTorrentError as error:
        yield _bad("settings", error)
        return
    native.use(settings.native)
    yield native.finding()
    if settings.tracker is None:
        yield CheckRow("tracker", False, "none is known yet", hint("name it", "up", "LINK"))
    else:
        try:
            links = [link.text for link in links_of(trackers_of(settings.tracker))]
            yield CheckRow("tracker", True, ", ".join(links))
        except MiniTorrentError as error:
            yield _bad("tracker", error)
    yield _can_listen(settings)


def _can_listen(settings: Settings) -> CheckRow:
    import zmq

    from common.net.sockets import Private, bind, make_socket

    if settings.listen is None:
        return CheckRow("listen", True, "at a free port")
    if settings.listen.startswith("ipc://"):
        folder = Path(settings.listen.removeprefix("ipc://")).parent
        fits = os.access(folder, os.W_OK | os.X_OK)
        return _checked("listen", fits, settings.listen, f"make the folder {folder} writable")
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = make_socket(context, zmq.ROUTER, Private(), message_bytes_max=64)
    try:
        bind(socket, resolve_host(settings.listen))
        return CheckRow("listen", True, f"{settings.listen} is free")
    except MiniTorrentError as error:
        return _bad("listen", error)
    finally:
        socket.close(linger=0)
        context.term()


def _running(console: Console) -> Iterator[CheckRow]:
    try:
        status = console.request(control.Status())
        if isinstance(status, control.StatusIs):
            yield CheckRow("peer", True, f"running, process {status.pid}, at {status.listen}")
        answer = console.request(control.Doctor())
        if isinstance(answer, control.Checks):
            yield from answer.rows
    except MiniTorrentError as error:
        yield _bad("peer", error)


def _checked(check: str, ok: bool, found: str, hint: str) -> CheckRow:
    return CheckRow(check, ok, found, None if ok else hint)


def _bad(check: str, error: MiniTorrentError) -> CheckRow:
    return CheckRow(check, False, error.message, error.hint)
