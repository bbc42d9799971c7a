"""Rotation of the key that signs tickets, at one tracker or at several on one database.

Owns: the steps, and the refusal of a step that would divide the trackers. Not here: the files of
keys (see common.crypto.signing_keys), and their way to other trackers (see tracker.admin.moving).

Why two steps: devices learn the keys from their own tracker. A ticket of a key that another tracker
does not know is refused by all devices there. So every tracker gets to know the next key first
(`export-keys`, `join`), and signs with it afterwards.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from nacl.signing import SigningKey

from common.crypto.signing_keys import (
    MARK_BYTES,
    load_or_make_signing_keys,
    marks,
    next_signing_key,
    prepare_signing_key,
    rotate_signing_key,
)
from common.errors import ConfigError
from common.hints import tracker_hint
from common.units import count_text


def rotate(path: Path, url: str | None, *, at_once: bool) -> int | None:
    """Take the next step of a rotation of the keys in ``path``; the home must be locked.

    ``url``: the database that several trackers may share. Return the number of keys that are valid
    now, or None if a key was prepared, for all trackers to know. Raise `MiniTorrentError`; nothing
    has changed then.
    """
    fellows = [] if url is None else keys_of_serving(url)
    if fellows and at_once:
        raise ConfigError(
            f"{count_text(len(fellows), 'other tracker')} would go on with the former key",
            tracker_hint("stop all of them first, and bring them this key by join", "stop"),
        )
    if fellows:
        check(fellows, load_or_make_signing_keys(path))
        following = next_signing_key(path)
        if following is None:
            prepare_signing_key(path)
            return None
        _check_known(fellows, following)
    return len(rotate_signing_key(path, keep=0 if at_once else 1))


def check(fellows: Collection[bytes], keys: Sequence[SigningKey]) -> None:
    """Raise `ConfigError` unless this tracker, with ``keys``, and ``fellows`` know each other's.

    ``fellows``: the marks of each other tracker on the database.
    """
    ours = _split(marks(keys))
    if any(theirs and _split(theirs)[0] not in ours for theirs in fellows):
        raise ConfigError(
            "another tracker on this database signs with a key that this one does not have",
            tracker_hint("take its keys, from export-keys there", "join", "FILE"),
        )
    _check_known(fellows, keys[0])


def _check_known(fellows: Collection[bytes], key: SigningKey) -> None:
    mark = marks([key])
    if any(theirs and mark not in _split(theirs) for theirs in fellows):
        raise ConfigError(
            "another tracker on this database cannot check tickets of the key of this one",
            tracker_hint("bring it there, by join", "export-keys", "FILE"),
        )


def _split(several: bytes) -> list[bytes]:
    """Return the single marks in ``several``."""
    return [several[at : at + MARK_BYTES] for at in range(0, len(several), MARK_BYTES)]


def keys_of_serving(url: str) -> list[bytes]:
    """Return the marks of all trackers that serve the database at ``url``."""
    # Imported here: a tracker alone needs no driver of PostgreSQL.
    from tracker.store.cluster_tables import ClusterTables

    tables = ClusterTables(url)
    try:
        tables.connect()
        return tables.keys_of_serving()
    finally:
        tables.close()
