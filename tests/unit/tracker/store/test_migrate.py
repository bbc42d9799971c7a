"""Two ways to the same schema: the migrations one by one, and all tables at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.support.paths import ROOT
from tracker.store import migrate


def schema(engine: sa.Engine) -> dict[str, list[str]]:
    """The words of a SQLite database's statements, by the names of what they made."""
    query = sa.text("SELECT name, coalesce(sql, '') AS sql FROM sqlite_master")
    with engine.connect() as db:
        return {row.name: row.sql.replace('"', "").split() for row in db.execute(query)}


def test_an_empty_database_gets_what_the_migrations_would_make(tmp_path: Path) -> None:
    made, migrated = (sa.create_engine(f"sqlite:///{tmp_path / name}") for name in ("a", "b"))
    migrate.upgrade(made)
    migrate.migrate(migrated)
    assert schema(made) == schema(migrated)
    assert migrate.current(made) == migrate.current(migrated) == migrate.HEAD


def test_a_start_without_migrations_does_not_load_alembic(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tracker.store.sqlite_store import SqliteStore;"
        "SqliteStore(Path(sys.argv[1])).close(); print('alembic' in sys.modules)"
    )
    for _ in ("empty", "current"):
        words = [sys.executable, "-c", code, str(tmp_path / "tracker.db")]
        assert subprocess.check_output(words, cwd=ROOT, text=True) == "False\n"


def test_tables_without_a_schema_number_are_not_taken_for_empty(tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'c'}")
    with engine.begin() as db:
        db.execute(sa.text("CREATE TABLE accounts (theirs TEXT)"))
    with pytest.raises(sa.exc.OperationalError, match="already exists"):
        migrate.upgrade(engine)
