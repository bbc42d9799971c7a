"""Connections to PostgreSQL: the URL, the settings of each session, and failures in words.

Owns: what a URL may hold and what of it is shown, and the check of the server. Not here: turns and
commits (see tracker.store.postgres_store).

Invariant: no password leaves this module, neither in an error nor in a log.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from common.errors import ConfigError, StorageError
from common.names import printable
from common.optional_library import install_hint
from tracker.store.failures import text_of
from tracker.store.turns import LogConflict

if TYPE_CHECKING:
    import psycopg


class Unreachable(StorageError):
    """The server does not answer, or not yet."""


SCHEMES = ("postgresql://", "postgres://")
SERVER_MIN = 14_00_00  # the first with client_connection_check_interval
CONNECT_S = 3  # for one address: a frozen server delays the way to the next one that long
_HOST = re.compile(r"|[/@][^@:=?]*|[\w.-]+|[0-9A-Fa-f:.]+(%\w+)?")
_DATABASE = re.compile(r"[^@:=?/]*")
_NOT_YET = ("starting up", "shutting down", "too many", "recovery")
UNSAFE_VARIABLE = "MINI_TORRENT_TRACKER_UNSAFE_DATABASE"

# A frozen or vanished end must not hold the turn of all trackers for hours.
_PARAMETERS: dict[str, Any] = {
    "connect_timeout": CONNECT_S,
    "application_name": "mini-torrent-tracker",
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 5_000,
}
_SETTINGS = """
SET default_transaction_isolation = 'read committed';
SET lock_timeout = '10s';
SET statement_timeout = '60s';
SELECT set_config('synchronous_commit', 'on', false)
  WHERE current_setting('synchronous_commit') IN ('off', 'local');
"""


def is_url(text: str) -> bool:
    """Whether ``text`` names a PostgreSQL database."""
    return text.startswith(SCHEMES)


def parsed(url: str) -> dict[str, Any]:
    """Return the parameters of ``url``. Raise `ConfigError`, without the password."""
    if not is_url(url):
        raise ConfigError(
            "the database is not a URL of PostgreSQL",
            "it looks like this: postgresql://USER@HOST:5432/DATABASE",
        )
    if importlib.util.find_spec("psycopg") is None:
        raise ConfigError(
            "a database of PostgreSQL needs the extra postgres",
            install_hint("postgres"),
        )
    import psycopg.conninfo

    try:
        found = psycopg.conninfo.conninfo_to_dict(url)
    except psycopg.Error:
        # The driver's text repeats the URL, with its password.
        found = None
    if found is None or not _is_plain(found):
        raise ConfigError(
            "the URL of the database cannot be read",
            "it looks like this: postgresql://USER@HOST:5432/DATABASE?sslmode=verify-full; write"
            " a special character of a password as its code, such as %40 for @",
        )
    return found


def _is_plain(found: dict[str, Any]) -> bool:
    """Whether the parts that `shown` tells are plain.

    Why: if a special character of a password has no code, or a URL stands within the URL, a part of
    the password comes to stand in them.
    """
    host, address, port, database = (
        str(found.get(name) or "") for name in ("host", "hostaddr", "port", "dbname")
    )
    return (
        all(_HOST.fullmatch(one) for one in f"{host},{address}".split(","))
        and all(one.isdigit() for one in port.split(",") if one)
        and _DATABASE.fullmatch(database) is not None
    )


def shown(url: str) -> str:
    """Return ``url`` as people may see it: host, port and database."""
    found = parsed(url)
    hosts = str(found.get("host") or found.get("hostaddr") or "localhost").split(",")
    if hosts[0].startswith("/"):  # the folder of a socket
        return printable(f"postgresql:///{found.get('dbname') or ''}?host={','.join(hosts)}")
    hosts = [f"[{host}]" if ":" in host else host for host in hosts]
    ports = str(found.get("port") or "").split(",")
    places = [
        f"{host}:{port}" if port else host
        for host, port in zip(hosts, ports * len(hosts), strict=False)
    ]
    return printable(f"postgresql://{','.join(places)}/{found.get('dbname') or ''}")


def has_password(url: str) -> bool:
    """Whether ``url`` holds a password, or that of the key for TLS."""
    return not parsed(url).keys().isdisjoint({"password", "sslpassword"})


def connect(url: str, **more: Any) -> psycopg.Connection[Any]:
    """Connect, with the settings of a session. Raise exceptions of the driver."""
    import psycopg

    connection = psycopg.connect(url, **{**_PARAMETERS, **more}, autocommit=True)
    try:
        connection.execute(_SETTINGS)
        with contextlib.suppress(psycopg.Error):  # not on every system
            connection.execute("SET client_connection_check_interval = '2s'")
        connection.autocommit = False
    except BaseException:
        connection.close()
        raise
    return connection


def make_engine(url: str) -> sa.Engine:
    """Return an engine for ``url``. Raise `ConfigError`."""
    parsed(url)
    return sa.create_engine(
        "postgresql+psycopg://",
        creator=lambda: connect(url),
        pool_size=4,
        pool_pre_ping=True,
        isolation_level="READ COMMITTED",
    )


def check_server(engine: sa.Engine) -> None:
    """Raise `StorageError` for a server that cannot keep what it acknowledges."""
    with translated("open the database"), engine.connect() as db:
        version = int(db.execute(sa.text("SHOW server_version_num")).scalar_one())
        encoding = db.execute(sa.text("SHOW server_encoding")).scalar_one()
        fsync = db.execute(sa.text("SHOW fsync")).scalar_one()
        standby = db.execute(sa.text("SELECT pg_is_in_recovery()")).scalar_one()
    if version < SERVER_MIN:
        raise StorageError(
            f"PostgreSQL {version // 10_000} is too old", "use PostgreSQL 14 or a later one"
        )
    if encoding != "UTF8":
        raise StorageError(
            f"the database has the encoding {encoding}", "create one with ENCODING 'UTF8'"
        )
    if standby:
        raise StorageError(
            "the database is a standby: it can only be read",
            "name all its servers in the URL, with target_session_attrs=read-write",
        )
    if fsync != "on" and os.environ.get(UNSAFE_VARIABLE, "") in ("", "0"):
        raise StorageError(
            "PostgreSQL runs with fsync=off: a loss of power would damage the database",
            f"switch it on; for a database without value set {UNSAFE_VARIABLE}=1",
        )


@contextlib.contextmanager
def translated(what: str) -> Iterator[None]:
    """Raise `StorageError` for the exceptions of SQLAlchemy and of the driver."""
    import psycopg

    try:
        yield
    except (psycopg.errors.UniqueViolation, psycopg.errors.DivisionByZero) as error:
        # The latter: see the heads of logs in tracker.store.gathered_postgres.
        if error.diag.constraint_name in ("log_pkey", "changes_pkey", None):
            raise LogConflict("a log was continued by another writer") from error
        raise StorageError(f"cannot {what}: {printable(text_of(error))}") from error
    except psycopg.OperationalError as error:
        words = printable(text_of(error))
        refused = "FATAL:" in str(error) and not any(text in str(error) for text in _NOT_YET)
        kind = StorageError if refused else Unreachable
        raise kind(f"cannot {what}: {words}") from error
    except (SQLAlchemyError, psycopg.Error) as error:
        raise StorageError(f"cannot {what}: {printable(text_of(error))}") from error


def in_transaction(connection: psycopg.Connection[Any]) -> bool:
    """Whether the server says that a transaction is open, be it one that failed."""
    from psycopg.pq import TransactionStatus

    open_ones = (TransactionStatus.INTRANS, TransactionStatus.INERROR)
    return connection.info.transaction_status in open_ones


def cut(connection: psycopg.Connection[Any]) -> None:
    """Make a call fail that waits for the server on another thread."""
    with contextlib.suppress(Exception):
        descriptor = os.dup(connection.fileno())
        with socket.socket(fileno=descriptor) as end:
            end.shutdown(socket.SHUT_RDWR)


def into(warnings: list[str]) -> Any:
    """Return a handler of notices that appends the warnings among them."""

    def take(diagnostic: Any) -> None:
        if diagnostic.severity_nonlocalized == "WARNING":
            warnings.append(str(diagnostic.message_primary))

    return take
