"""Doctor of a PostgreSQL database: its schema, its promises, and the way to it."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa

from common.errors import MiniTorrentError
from common.names import printable
from common.units import count_text, size_text
from tracker.admin.findings import Finding, Health
from tracker.store import postgres_connections as pg
from tracker.store.migrate import HEAD, current

VERIFIED = ("verify-ca", "verify-full")
_PROMISES = (
    ("fsync", Health.BAD, "a loss of power damages the database"),
    ("full_page_writes", Health.BAD, "a loss of power may damage the database"),
    ("data_checksums", Health.WARNING, "damage of its disk is not noticed"),
    ("synchronous_commit", Health.OK, ""),
)


def examine_shared(url: str) -> Iterator[Finding]:
    """Check the database at ``url``; nothing is changed."""
    try:
        where = pg.shown(url)
        yield from _way(url)
        engine = pg.make_engine(url)
    except MiniTorrentError as error:
        yield Finding("database", Health.BAD, error.message, error.hint)
        return
    try:
        with pg.translated(f"reach the database {where}"):
            yield from _server(engine, where)
    except MiniTorrentError as error:
        yield Finding("database", Health.BAD, error.message, "check that PostgreSQL runs")
    finally:
        engine.dispose()


def _way(url: str) -> Iterator[Finding]:
    """Keys of groups and hashes of passwords travel to the database."""
    found = pg.parsed(url)
    host = str(found.get("host") or found.get("hostaddr") or "")
    hosts = [each for each in host.split(",") if each]
    local = all(each.startswith("/") or each in ("localhost", "127.0.0.1", "::1") for each in hosts)
    mode = str(found.get("sslmode") or "prefer")
    if local or mode in VERIFIED:
        return
    yield Finding(
        "database",
        Health.WARNING,
        f"the way to it is not verified (sslmode={printable(mode)}): others may read or change it",
        "add sslmode=verify-full and sslrootcert to the URL",
    )


def _server(engine: sa.Engine, where: str) -> Iterator[Finding]:
    with engine.connect() as db:
        version = db.execute(sa.text("SHOW server_version")).scalar_one()
        for setting, health, risk in _PROMISES:
            if db.execute(sa.text(f"SHOW {setting}")).scalar_one() == "off" and risk:
                advice = f"switch {setting} on"
                yield Finding("database", health, f"{setting} is off: {risk}", advice)
        schema = current(engine)
        if schema is None:
            text = f"{where} is empty: PostgreSQL {printable(version)}"
            yield Finding("database", Health.OK, text)
            return
        if schema > HEAD:
            text = f"it has schema {schema}, this release knows {HEAD}"
            yield Finding("database", Health.BAD, text, "use the release that wrote it")
            return
        accounts = db.execute(sa.text("SELECT count(*) FROM accounts")).scalar_one()
        size = db.execute(sa.text("SELECT pg_database_size(current_database())")).scalar_one()
        standbys = db.execute(sa.text("SELECT count(*) FROM pg_stat_replication")).scalar_one()
        names = db.execute(sa.text("SHOW synchronous_standby_names")).scalar_one()
    text = f"PostgreSQL {printable(version)}, schema {schema}, {count_text(accounts, 'account')}"
    yield Finding("database", Health.OK, f"{where}: {text}, {size_text(size)}")
    if standbys and not names:
        yield Finding(
            "database",
            Health.WARNING,
            "its standbys are asynchronous: one that takes over may lack acknowledged changes",
            "set synchronous_standby_names",
        )
