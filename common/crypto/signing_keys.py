"""Signing keys: the tracker's Ed25519 keys for tickets, and their rotation.

Several trackers rotate in two steps: first all know the next key, which is in a file of its own and
signs nothing; then each signs with it.

Why apart from ``common.crypto.keys``: only a tracker signs, and PyNaCl is slow to load.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable
from pathlib import Path

import nacl.signing

from common.crypto.keys import read_secret
from common.errors import ConfigError
from common.host.atomic_files import atomic_write
from common.ids import KEY_BYTES

NEXT_KEY = "signing.next.key"  # beside the file of the keys
MARK_BYTES = 8


def load_or_make_signing_keys(path: Path) -> list[nacl.signing.SigningKey]:
    """The tracker's Ed25519 keys, the one in use first; made on first start.

    Several stand in the file while a key is rotated out: tickets signed with any of them count, and
    those of the next key.
    """
    keys = _current(path)
    following = next_signing_key(path)
    return keys if following is None or following in keys else [*keys, following]


def _current(path: Path) -> list[nacl.signing.SigningKey]:
    try:
        raw = read_secret(path)
    except FileNotFoundError:
        key = nacl.signing.SigningKey.generate()
        atomic_write(path, bytes(key))
        return [key]
    if not raw or len(raw) % KEY_BYTES:
        raise ConfigError(f"{path} is not a key file", "restore it from a backup")
    return [
        nacl.signing.SigningKey(raw[at : at + KEY_BYTES]) for at in range(0, len(raw), KEY_BYTES)
    ]


def next_signing_key(path: Path) -> nacl.signing.SigningKey | None:
    """Return the key that is known beside those of ``path`` and signs nothing yet, if any."""
    place = path.with_name(NEXT_KEY)
    try:
        raw = read_secret(place)
    except FileNotFoundError:
        return None
    if len(raw) != KEY_BYTES:
        raise ConfigError(f"{place} is not a key file", "delete it, and rotate again")
    return nacl.signing.SigningKey(raw)


def prepare_signing_key(path: Path) -> None:
    """Make the next key, which other trackers get to know before it signs."""
    atomic_write(path.with_name(NEXT_KEY), bytes(nacl.signing.SigningKey.generate()))


def rotate_signing_key(path: Path, *, keep: int = 1) -> list[nacl.signing.SigningKey]:
    """Put the next signing key, or a fresh one, before the ``keep`` last ones; return them all.

    ``keep=0`` ends the overlap: only tickets signed from here on count. The key is fresh then.
    """
    old, following = _current(path), next_signing_key(path)
    if following is None or following in old or not keep:
        following = nacl.signing.SigningKey.generate()
    keys = [following, *old[:keep]]
    atomic_write(path, b"".join(bytes(key) for key in keys))
    with contextlib.suppress(FileNotFoundError):
        path.with_name(NEXT_KEY).unlink()
    return keys


def marks(keys: Iterable[nacl.signing.SigningKey]) -> bytes:
    """Return what tells ``keys`` from others, ``MARK_BYTES`` each; no key can be found by it."""
    return b"".join(
        hashlib.blake2b(bytes(key.verify_key), digest_size=MARK_BYTES).digest() for key in keys
    )
