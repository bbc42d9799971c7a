"""AEGIS-128L with tags of 32 bytes, by libsodium, in the form of the AES-GCM of `cryptography`.

The compiled data path uses the same function of libsodium; this is its reference, and copies more.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from nacl import bindings
from nacl.exceptions import CryptoError

from common.digests import Buffer

KEY_BYTES = 16
TAG_BYTES = 32
_PADDING = bytes(4)  # between the kind of a text and its number, in a nonce of 16 bytes
_KIND_BYTES = 4


class Aegis128L:
    """A cipher with a key. A nonce has 12 bytes, as for AES-GCM: kind and number of a text."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def encrypt(self, nonce: bytes, data: Buffer, known: bytes | None) -> bytes:
        """Return the sealed data with its tag. ``known`` is authenticated too."""
        return bindings.crypto_aead_aegis128l_encrypt(
            bytes(data), known or b"", _padded(nonce), self._key
        )

    def encrypt_into(
        self, nonce: bytes, data: Buffer, known: bytes | None, sealed: memoryview
    ) -> None:
        """`encrypt` into ``sealed``."""
        sealed[:] = self.encrypt(nonce, data, known)

    def decrypt(self, nonce: bytes, sealed: Buffer, known: bytes | None) -> bytes:
        """Return the opened data. Raises `InvalidTag`."""
        try:
            return bindings.crypto_aead_aegis128l_decrypt(
                bytes(sealed), known or b"", _padded(nonce), self._key
            )
        except (CryptoError, ValueError) as error:
            raise InvalidTag from error

    def decrypt_into(
        self, nonce: bytes, sealed: Buffer, known: bytes | None, opened: memoryview
    ) -> None:
        """`decrypt` into ``opened``."""
        opened[:] = self.decrypt(nonce, sealed, known)


def _padded(nonce: bytes) -> bytes:
    return nonce[:_KIND_BYTES] + _PADDING + nonce[_KIND_BYTES:]
