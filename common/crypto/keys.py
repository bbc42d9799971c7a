"""Key files: the CURVE key pair of a device or tracker, and secrets.

Owns: making keys, storing them (0600, by atomic writes) and their text forms. A public key is 32
bytes here, its Z85 text at libzmq's door, and unpadded base64url where people and URLs see it.
"""

from __future__ import annotations

import base64
import binascii
import os
from dataclasses import dataclass, field
from pathlib import Path

import zmq
import zmq.utils.z85 as z85

from common.errors import ConfigError, StorageError
from common.hints import shell_hint
from common.host.atomic_files import atomic_write
from common.ids import KEY_BYTES, DeviceKey

DEVICE_KEY = "device.key"  # its name in a peer's home
PAIR_BYTES = 2 * KEY_BYTES  # in a key file: the public key, then the secret one
# Enough to tell a hundred devices apart, and little to type. Not the form of a whole key, which may
# begin with a dash.
SHORT_ID_CHARACTERS = 8


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A CURVE key pair, 32 bytes each. The secret stays out of every text form."""

    public: DeviceKey
    secret: bytes = field(repr=False)

    @property
    def public_z85(self) -> bytes:
        return to_z85(self.public)

    @property
    def secret_z85(self) -> bytes:
        return to_z85(self.secret)


def new_pair() -> KeyPair:
    """A fresh CURVE key pair."""
    public, secret = zmq.curve_keypair()
    return KeyPair(DeviceKey(z85.decode(public)), z85.decode(secret))


def is_pair(raw: bytes) -> bool:
    """Whether these bytes are a key pair as it stands in a key file: public, then secret."""
    if len(raw) != PAIR_BYTES:
        return False
    return z85.decode(zmq.curve_public(to_z85(raw[KEY_BYTES:]))) == raw[:KEY_BYTES]


def to_z85(key: bytes) -> bytes:
    """32 bytes as the 40 characters that libzmq's options take."""
    return z85.encode(key)


def key_text(key: bytes) -> str:
    """A public key for people, URLs and shells: 43 characters of base64url."""
    return base64.urlsafe_b64encode(key).rstrip(b"=").decode("ascii")


def short_id(key: bytes) -> str:
    """The id of one device: the beginning of its key in hexadecimal."""
    return key.hex()[:SHORT_ID_CHARACTERS]


def parse_key(text: str) -> DeviceKey:
    """The inverse of `key_text`. Raises `ConfigError`."""
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise ConfigError(f"not a key: {text!r}", "copy it whole from the link") from error
    if len(key) != KEY_BYTES or key_text(key) != text:
        raise ConfigError(f"not a key: {text!r}", "it has 43 characters; copy it from the link")
    return DeviceKey(key)


def read_secret(path: Path) -> bytes:
    """Bytes of a key file that only its owner can read; at most 4096.

    Raises FileNotFoundError, `ConfigError` and `StorageError`.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(fd, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & 0o077:
                raise ConfigError(
                    f"other users can read the key file {path}",
                    shell_hint("close it", "chmod", "600", str(path)),
                )
            return file.read(4096)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageError(f"cannot read the key file {path}: {error.strerror}") from error


def load_pair(path: Path) -> KeyPair:
    """Read a CURVE key pair; FileNotFoundError when there is none."""
    raw = read_secret(path)
    if len(raw) != PAIR_BYTES:
        raise ConfigError(f"{path} is not a key file", "restore it from a backup, or remove it")
    pair = KeyPair(DeviceKey(raw[:KEY_BYTES]), raw[KEY_BYTES:])
    if not is_pair(raw):
        raise ConfigError(f"{path} is damaged", "restore it from a backup, or remove it")
    return pair


def load_or_make_pair(path: Path) -> KeyPair:
    """Read the CURVE key pair at ``path``, or make it on first start."""
    try:
        return load_pair(path)
    except FileNotFoundError:
        pair = new_pair()
        atomic_write(path, pair.public + pair.secret)
        return pair


def replace_pair(path: Path) -> KeyPair:
    """Put a fresh CURVE key pair in the place of the one at ``path``, if there is one."""
    pair = new_pair()
    atomic_write(path, pair.public + pair.secret)
    return pair


def load_or_make_secret(path: Path) -> bytes:
    """32 secret bytes kept at ``path``, made on first start."""
    try:
        raw = read_secret(path)
    except FileNotFoundError:
        raw = os.urandom(KEY_BYTES)
        atomic_write(path, raw)
    if len(raw) != KEY_BYTES:
        raise ConfigError(f"{path} is damaged", "restore it from a backup")
    return raw
