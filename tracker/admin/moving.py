"""Move of a tracker to PostgreSQL, and the keys that several trackers share.

Owns: `migrate_to`, and the file of `export_keys` and `join`. The link stays: it names the key, and
the key moves with the home. Not here: the copy (see tracker.admin.table_copy).
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import time
from pathlib import Path

import msgspec

from common.crypto import keys
from common.crypto.signing_keys import NEXT_KEY
from common.errors import ConfigError, MiniTorrentError, StorageError
from common.hints import tracker_hint
from common.host.atomic_files import atomic_write
from common.names import printable
from tracker.admin.database_choice import chosen, digest_of, open_shared, remember
from tracker.admin.home import CURVE_KEY, INBOX_SECRET, KEY_FILES, SIGNING_KEY, Home
from tracker.store import postgres_connections as pg
from tracker.store.sqlite_store import SqliteStore

KEYS_FORM = "mini-torrent-tracker keys 1"
KEY_FILE_BYTES_MAX = 64 * 1024


class _Keys(msgspec.Struct, forbid_unknown_fields=True):
    form: str
    files: dict[str, str]


def migrate_to(home: Home, url: str) -> tuple[int, Path]:
    """Copy the database of ``home``, which must be locked, to ``url``; use that one from then on.

    Return the number of rows, and where the file is kept. Raise `MiniTorrentError`; nothing has
    changed then.
    """
    if (now := chosen(home.path, None)) is not None:
        raise ConfigError(f"this tracker uses {pg.shown(now)} already")
    if not home.database.exists():
        raise ConfigError(f"there is no tracker in {home.path}", "choose its --home")
    from tracker.admin.table_copy import copy_all

    source = SqliteStore(home.database)
    try:
        target = open_shared(url)
        try:
            with pg.translated(f"copy to {pg.shown(url)}"):
                rows = copy_all(source._engine, target._engine)
            target.claim(digest_of(home.secrets()))
        finally:
            target.close()
    finally:
        source.close()
    # First: an interruption after it leaves both, and `run` says so.
    remember(home.path, url)
    return rows, set_aside(home)


def set_aside(home: Home) -> Path:
    """Rename the SQLite database of ``home``; return its new name."""
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    aside = home.database.with_name(f"{home.database.name}.moved-{stamp}")
    try:
        for suffix in ("-wal", "-shm", ""):
            with contextlib.suppress(FileNotFoundError):
                os.rename(f"{home.database}{suffix}", f"{aside}{suffix}")
    except OSError as error:
        raise StorageError(f"cannot rename {home.database}: {error.strerror}") from error
    return aside


# -- keys ---------------------------------------------------------------------------------------


def export_keys(home: Path, target: Path, *, replace: bool = False) -> None:
    """Write the keys of ``home`` to ``target`` (0600). Raise `MiniTorrentError`."""
    if target.exists() and not replace:
        advice = tracker_hint("replace it", "export-keys", str(target), options=["--replace"])
        raise StorageError(f"{target} already exists", advice)
    files = {}
    for name in (*KEY_FILES, NEXT_KEY):
        try:
            files[name] = base64.b64encode((home / name).read_bytes()).decode()
        except FileNotFoundError:
            if name == NEXT_KEY:
                continue
            raise ConfigError(
                f"there is no tracker in {home} yet", tracker_hint("start it", "run")
            ) from None
        except OSError as error:
            raise StorageError(f"cannot read {home / name}: {error.strerror}") from error
    atomic_write(target, msgspec.json.format(msgspec.json.encode(_Keys(KEYS_FORM, files))) + b"\n")


def join(home: Home, source: Path) -> None:
    """Take the keys in ``source`` into ``home``, which must be locked and without a database.

    Raise `MiniTorrentError`; nothing has changed then.
    """
    contents = _read_keys(source)
    different = [
        name
        for name in (CURVE_KEY, INBOX_SECRET)
        if (home.path / name).exists() and (home.path / name).read_bytes() != contents[name]
    ]
    if different and (home.database.exists() or chosen(home.path, None) is not None):
        raise ConfigError(
            f"{home.path} is the home of a tracker with other keys",
            tracker_hint("join with another home", "join", str(source), options=("--home", "DIR")),
        )
    # Only a tracker that never had a database loses its keys here: no peer knows them.
    # In the home of a tracker of this cluster only those for signing change (see rotate-key).
    (home.path / NEXT_KEY).unlink(missing_ok=True)
    for name in (INBOX_SECRET, SIGNING_KEY, NEXT_KEY, CURVE_KEY):
        if name in contents:
            atomic_write(home.path / name, contents[name])


def _read_keys(source: Path) -> dict[str, bytes]:
    wrong = ConfigError(
        f"{printable(str(source))} is not a file of keys",
        tracker_hint("make one at a tracker of the cluster", "export-keys", "FILE"),
    )
    try:
        with source.open("rb") as file:
            found = msgspec.json.decode(file.read(KEY_FILE_BYTES_MAX), type=_Keys)
        names = (*KEY_FILES, *({NEXT_KEY} & found.files.keys()))
        contents = {name: base64.b64decode(found.files[name], validate=True) for name in names}
    except OSError as error:
        raise ConfigError(f"cannot read {source}: {error.strerror}") from error
    except (msgspec.MsgspecError, KeyError, ValueError, binascii.Error):
        raise wrong from None
    if found.form != KEYS_FORM:
        raise wrong
    _check(contents, wrong)
    return contents


def _check(contents: dict[str, bytes], wrong: ConfigError) -> None:
    """Raise ``wrong`` unless each key can be read as a tracker reads it."""
    import tempfile

    from common.crypto.signing_keys import load_or_make_signing_keys

    with tempfile.TemporaryDirectory(prefix="mini-torrent-") as folder:
        for name, content in contents.items():
            atomic_write(Path(folder) / name, content, durable=False)
        try:
            keys.load_pair(Path(folder) / CURVE_KEY)
            load_or_make_signing_keys(Path(folder) / SIGNING_KEY)
            keys.load_or_make_secret(Path(folder) / INBOX_SECRET)
        except (MiniTorrentError, OSError):
            raise wrong from None
