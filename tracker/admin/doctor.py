"""Doctor: checks a tracker's home, database, disk and address. Changes nothing."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import nacl
import zmq

from common import limits
from common.crypto import keys
from common.crypto.signing_keys import load_or_make_signing_keys
from common.errors import MiniTorrentError
from common.hints import tracker_hint
from common.host.home import fault_above, lock_holder
from common.net.sockets import check_library
from common.units import count_text, size_text
from tracker.admin import staged_restore
from tracker.admin.database_choice import chosen
from tracker.admin.findings import Finding, Health
from tracker.admin.home import CURVE_KEY, INBOX_SECRET, SIGNING_KEY
from tracker.admin.shared_doctor import examine_shared
from tracker.admin.staged_restore import DATABASE
from tracker.store.migrate import HEAD

SPACE_MIN = 256 * limits.MIB
CREATED_BY_RUN = tracker_hint("create it", "run")


def examine(home: Path, endpoint: str, database: str | None = None) -> Iterator[Finding]:
    """Check ``home``, its database, and whether a tracker could listen at ``endpoint``."""
    yield _libraries()
    if not home.is_dir():
        yield Finding("home", Health.WARNING, f"there is no {home} yet", CREATED_BY_RUN)
        return
    yield from _home(home)
    yield from _keys(home)
    if (url := chosen(home, database)) is None:
        yield _database(home)
    else:
        yield from examine_shared(url)
    yield _space(home)
    yield _process(home, endpoint)


def _libraries() -> Finding:
    text = f"libzmq {zmq.zmq_version()}, SQLite {sqlite3.sqlite_version}, PyNaCl {nacl.__version__}"
    try:
        check_library()
    except MiniTorrentError as error:
        return Finding("libraries", Health.BAD, error.message, error.hint)
    return Finding("libraries", Health.OK, text)


def _home(home: Path) -> Iterator[Finding]:
    info = home.stat()
    if info.st_mode & 0o077:
        yield Finding("home", Health.BAD, f"other users can read {home}", f"chmod 700 {home}")
    elif info.st_uid != os.geteuid():
        yield Finding("home", Health.BAD, f"{home} belongs to another user", "run as that user")
    else:
        yield Finding("home", Health.OK, str(home))
    if (fault := fault_above(Path(os.path.realpath(home)))) is not None:
        yield Finding("home", Health.BAD, *fault)
    for path in sorted(home.iterdir()):
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode) and mode & 0o077:
            yield Finding("home", Health.BAD, f"other users can read {path}", f"chmod 600 {path}")


def _keys(home: Path) -> Iterator[Finding]:
    readers: dict[str, Callable[[Path], object]] = {
        CURVE_KEY: keys.load_pair,
        SIGNING_KEY: load_or_make_signing_keys,
        INBOX_SECRET: keys.load_or_make_secret,
    }
    for name, read in readers.items():
        path = home / name
        if not path.exists():
            yield Finding("keys", Health.WARNING, f"there is no {path}", CREATED_BY_RUN)
            continue
        try:
            read(path)
        except MiniTorrentError as error:
            yield Finding("keys", Health.BAD, error.message, error.hint)
        else:
            yield Finding("keys", Health.OK, str(path))


def _database(home: Path) -> Finding:
    path = home / DATABASE
    if staged_restore.pending(home):
        advice = tracker_hint("finish it", "run")
        return Finding("database", Health.WARNING, f"a restore of {path} was interrupted", advice)
    if not path.exists():
        return Finding("database", Health.WARNING, f"there is no {path}", CREATED_BY_RUN)
    try:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=10.0)
        try:
            found = [row[0] for row in db.execute("PRAGMA integrity_check(3)")]
            schema = db.execute("SELECT version_num FROM alembic_version").fetchone()[0]
            count = db.execute("SELECT count(*) FROM accounts").fetchone()[0]
        finally:
            db.close()
    except sqlite3.Error as error:
        found, schema, count = [str(error)], "", 0
    if found != ["ok"]:
        advice = tracker_hint("restore the last backup", "restore", "FILE")
        return Finding("database", Health.BAD, f"{path} is damaged: {found[0]}", advice)
    if schema > HEAD:
        text = f"it has schema {schema}, this release knows {HEAD}"
        return Finding("database", Health.BAD, text, "use the release that wrote it")
    return Finding(
        "database", Health.OK, f"intact, schema {schema}, {count_text(count, 'account')}"
    )


def _space(home: Path) -> Finding:
    free = shutil.disk_usage(home).free
    text = f"{size_text(free)} free"
    if free < SPACE_MIN:
        advice = "free some space: with a full disk the tracker is read-only"
        return Finding("disk", Health.WARNING, text, advice)
    return Finding("disk", Health.OK, text)


def _process(home: Path, endpoint: str) -> Finding:
    holder = lock_holder(home)
    if holder is not None:
        return Finding("process", Health.OK, f"a tracker runs here as process {holder}")
    if not endpoint.startswith("tcp://"):
        return Finding("process", Health.OK, "no tracker runs here")
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    address = ("" if host == "*" else host.strip("[]"), 0 if port == "*" else int(port))
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            text = f"no tracker runs here, and {endpoint} is not free: {error.strerror}"
            return Finding("process", Health.BAD, text, "choose another with --bind")
    return Finding("process", Health.OK, f"no tracker runs here; {endpoint} is free")
