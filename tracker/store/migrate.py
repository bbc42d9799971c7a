"""Schema migrations at start, by Alembic.

Owns: how the packaged migrations are found and run. Not here: the migrations (see
tracker.store.migrations.versions).
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from common.errors import StorageError

HEAD = "0006"
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
    """Run the missing migrations, each in a transaction.

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
