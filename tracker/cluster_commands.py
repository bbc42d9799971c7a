"""Commands of `mini-torrent-tracker` about several trackers on one database.

Owns: their options and output. Not here: the work (see tracker.admin.moving).
"""

from __future__ import annotations

from pathlib import Path

import click

from common.units import count_text
from tracker.cli_options import database_option, home_option, json_option, show


@click.command("export-keys")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@home_option
@click.option("--replace", is_flag=True, help="Replace FILE if it is there.")
@json_option
def export_keys(file: Path, home: Path, replace: bool) -> None:
    """Write the keys of this tracker to FILE, for `join`.

    With them anyone can pose as the tracker: copy FILE over a safe way, and delete it afterwards.

    Example: mini-torrent-tracker export-keys keys.json
    """
    from tracker.admin import moving

    moving.export_keys(home, file, replace=replace)
    text = f"wrote {file}. It holds all keys: keep it safe, and delete it after join."
    show({"file": str(file)}, text)


@click.command("join")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@home_option
@database_option
@json_option
def join(file: Path, home: Path, database: str | None) -> None:
    """Become one of several trackers, with the keys in FILE.

    FILE is from `export-keys` at one of them. They have one link. The tracker must not run.

    Example: mini-torrent-tracker join keys.json --database postgresql://tracker@db/mini
    """
    from tracker.admin import moving
    from tracker.admin.database_choice import remember
    from tracker.admin.home import Home

    opened = Home(home)
    try:
        moving.join(opened, file)
        if database:
            remember(opened.path, database)
    finally:
        opened.release()
    show({"home": str(opened.path)}, f"{opened.path} has the keys of {file} now")


@click.command("migrate-to")
@click.argument("url")
@home_option
@json_option
def migrate_to(url: str, home: Path) -> None:
    """Move the database of this tracker to PostgreSQL.

    The link stays the same. URL names an empty database. The tracker must not run; from then on
    it uses that one. The file is kept under another name.

    Example: mini-torrent-tracker migrate-to postgresql://tracker@db.example.org/mini
    """
    from tracker.admin import moving
    from tracker.admin.home import Home
    from tracker.cli_options import check_database
    from tracker.store.postgres_connections import shown

    check_database(url, typed=True)
    opened = Home(home)
    try:
        rows, aside = moving.migrate_to(opened, url)
    finally:
        opened.release()
    text = (
        f"moved {count_text(rows, 'row')} to {shown(url)}\nthe former database is kept as {aside}"
    )
    show({"database": shown(url), "rows": rows, "former": str(aside)}, text)


COMMANDS = (export_keys, join, migrate_to)
