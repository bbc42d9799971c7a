"""Schema of the database at start: made for an empty one, migrated by Alembic otherwise.

Owns: how the packaged migrations are found and run. Not here: the migrations (see
tracker.store.migrations.versions), the tables (see tracker.store.tables).
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from common.errors import StorageError
from tracker.store.tables import metadata

HEAD = "0008"
"""The schema that this release works with; a test holds it to the newest migration."""


def current(engine: sa.Engine) -> str | None:
    """Return the schema of a database; None for an empty one."""
    with engine.connect() as db:
        if not sa.inspect(db).has_table("alembic_version"):
            return None
        found: str | None = db.execute(
            sa.text("SELECT version_num FROM alembic_version")
        ).scalar_one_or_none()
        return found


def upgrade(engine: sa.Engine) -> None:
    """Bring the schema to `HEAD`, all in one transaction.

    Raise `StorageError` for a database of a later release.
    """
    found = current(engine)
    if found == HEAD:
        return
    if found is not None and found > HEAD:
        raise StorageError(
            f"the database has schema {found}, this release knows {HEAD}",
            "use the release that wrote it, or a later one",
        )
    if found is None and not sa.inspect(engine).get_table_names():
        create(engine)
    else:
        migrate(engine)


def create(engine: sa.Engine) -> None:
    """Make all tables in an empty database.

    Why not by migrations: loading Alembic takes longer than the rest of a start. A test holds both
    to the same schema.
    """
    versions = sa.Table(
        "alembic_version",
        sa.MetaData(),
        sa.Column("version_num", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
    )
    with engine.begin() as db:
        metadata.create_all(db, checkfirst=False)
        versions.create(db, checkfirst=False)
        db.execute(sa.insert(versions).values(version_num=HEAD))


def migrate(engine: sa.Engine) -> None:
    """Run the missing migrations."""
    # Imported here: most starts have nothing to migrate.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option(
        "script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%")
    )
    with engine.begin() as db:
        config.attributes["connection"] = db
        command.upgrade(config, "head")
