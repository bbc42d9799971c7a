"""Signing keys: the tracker's Ed25519 keys for tickets, and their rotation.

Why apart from ``common.crypto.keys``: only a tracker signs, and PyNaCl is slow to load.
"""

from __future__ import annotations

from pathlib import Path

import nacl.signing

from common.crypto.keys import read_secret
from common.errors import ConfigError
from common.host.atomic_files import atomic_write
from common.ids import KEY_BYTES


def load_or_make_signing_keys(path: Path) -> list[nacl.signing.SigningKey]:
    """The tracker's Ed25519 keys, the one in use first; made on first start.

    Several stand in the file while a key is rotated out: tickets signed with any of them count.
    """
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


def rotate_signing_key(path: Path, *, keep: int = 1) -> list[nacl.signing.SigningKey]:
    """Put a fresh signing key in front of the ``keep`` last ones and return them all.

    ``keep=0`` ends the overlap: only tickets signed from here on count.
    """
    old = load_or_make_signing_keys(path)
    keys = [nacl.signing.SigningKey.generate(), *old[:keep]]
    atomic_write(path, b"".join(bytes(key) for key in keys))
    return keys
