"""Authenticated encryption of bulk connections, which ZeroMQ does not encrypt.

Owns the cipher (AES-256-GCM, or AEGIS-128L between compiled data paths), the numbering of messages
of one direction of one connection, and the proof of possession of its key. Both ends got the key
over a connection that is encrypted. It is used only to derive others from it (BLAKE3): one seals
messages, one makes proofs.

A message has a number, a head and data. Its number goes into both nonces and only ever grows, and
its head is authenticated together with the number of the message sent before it. So a message that
was changed, repeated, reordered or made up is rejected, and so is a message whose predecessor is
missing. Limits: the loss of the last message cannot be detected here.

Invariant: no nonce is used twice with the key that seals. Why: AES-GCM then gives away what is
needed to forge any message. So a proof, which may be shown again under another name, has another
key and takes no nonce at all.
"""

from __future__ import annotations

import os
import platform
import struct
from functools import cache
from pathlib import Path

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from common import limits
from common.crypto import aegis
from common.digests import Buffer
from common.errors import RemoteProtocolError

KEY_BYTES = 32
TAG_BYTES = 16
NUMBER_BYTES = 8
_NUMBER = struct.Struct(">Q")
# The first four bytes of a nonce. The number of the message is the rest.
_HEAD, _DATA = b"head", b"data"
# What each key that is derived from the one of the connection is for (BLAKE3 contexts).
_SEALING, _PROVING = "mini-torrent bulk v2 sealing", "mini-torrent bulk v2 proof"
_SEALING_AEGIS = "mini-torrent bulk v3 sealing aegis-128l"
BROKEN = "a sealed message was changed on its way, or the one before it is missing"
# In /proc/cpuinfo: what the processor must have for AES and the GCM of it, by its kind.
_INSTRUCTIONS = {"x86_64": {"aes", "pclmulqdq"}, "aarch64": {"aes", "pmull"}}


@cache
def aes_is_fast() -> bool:
    """Whether this processor has instructions for AES. Without, ZeroMQ's own cipher is quicker."""
    wanted = _INSTRUCTIONS.get(platform.machine())
    if wanted is None:
        return False
    try:
        return wanted <= set(Path("/proc/cpuinfo").read_text(errors="replace").split())
    except OSError:
        return False


def new_key() -> bytes:
    """Return a random key for one stream."""
    return os.urandom(KEY_BYTES)


def _derived(key: bytes, context: str) -> bytes:
    return blake3(key, derive_key_context=context).digest()


def aegis_key(key: bytes) -> bytes:
    """Return the key that seals messages with AEGIS-128L, derived from that of the connection."""
    return blake3(key, derive_key_context=_SEALING_AEGIS).digest(length=aegis.KEY_BYTES)


def aes_key(key: bytes) -> bytes:
    """Return the key that seals messages with AES-256-GCM, derived from that of the connection."""
    return _derived(key, _SEALING)


def _cipher_of(key: bytes, by_aegis: bool) -> tuple[AESGCM | aegis.Aegis128L, int]:
    """The cipher, and the bytes of its tags."""
    if by_aegis:
        return aegis.Aegis128L(aegis_key(key)), aegis.TAG_BYTES
    return AESGCM(aes_key(key)), TAG_BYTES


def proof(key: bytes, name: bytes) -> bytes:
    """Proof that the connection with routing id ``name`` has the key: keyed BLAKE3 of the name."""
    return blake3(name, key=_derived(key, _PROVING)).digest()


class ScratchBuffer:
    """Reusable memory in which data is sealed.

    Why: it is in the cache already, and is not filled with zeros first, as a new buffer would be.
    Thread safety: several sealers of one thread may share a buffer.
    """

    def __init__(self) -> None:
        self._memory = bytearray()

    def of(self, size: int) -> memoryview:
        """Return a writable view of ``size`` bytes. It is valid only until the next call."""
        if len(self._memory) < size:
            self._memory = bytearray(size)
        return memoryview(self._memory)[:size]


class Sealer:
    """Sending end of a sealed stream."""

    def __init__(self, key: bytes, scratch: ScratchBuffer, *, by_aegis: bool = False) -> None:
        self._cipher, self._tag_bytes = _cipher_of(key, by_aegis)
        self.by_aegis = by_aegis
        self._number = 0
        self._before = b""
        self._bytes = 0
        self._scratch = scratch

    @property
    def spent(self) -> bool:
        """Whether the key has sealed its maximum of bytes, so that another key is needed."""
        return self._bytes >= limits.SEALED_BYTES_MAX

    def seal(self, head: bytes, data: Buffer) -> tuple[bytes, bytes, memoryview]:
        """Seal the next message: its number, its head and its data, a frame each.

        The sealed data is valid until the scratch buffer is used again: it must be copied by then.
        Call `sent` after the message was sent. The number of an unsent message is not used again.
        """
        number = _NUMBER.pack(self._number)
        self._number += 1
        self._bytes += len(data)
        sealed = self._scratch.of(len(data) + self._tag_bytes)
        self._cipher.encrypt_into(_DATA + number, data, None, sealed)
        return number, self._cipher.encrypt(_HEAD + number, head, self._before), sealed

    def sent(self, number: bytes) -> None:
        """Record that the message with this number was sent: the next one follows it."""
        self._before = number


class Opener:
    """Receiving end of a sealed stream."""

    def __init__(self, key: bytes, *, by_aegis: bool = False) -> None:
        self._cipher, self._tag_bytes = _cipher_of(key, by_aegis)
        self._next = 0
        self._before = b""

    def open(self, number: bytes, head: Buffer, data: Buffer) -> tuple[bytes, Buffer]:
        """Return head and data of a message.

        Writable ``data`` is opened in place, and of no value after an error. Why: fresh memory
        would be one more pass through the processor's caches.

        Raises `RemoteProtocolError` unless it is the message that the other end sent next.
        """
        if len(number) != NUMBER_BYTES or (count := _NUMBER.unpack(number)[0]) < self._next:
            raise RemoteProtocolError("a sealed message out of order")
        sealed, nonce = memoryview(data), _DATA + number
        try:
            opened_head = self._cipher.decrypt(_HEAD + number, head, self._before)
            if sealed.readonly:
                opened = memoryview(self._cipher.decrypt(nonce, sealed, None))
            else:
                opened = sealed[: max(0, len(sealed) - self._tag_bytes)]
                self._cipher.decrypt_into(nonce, sealed, None, opened)
        except (InvalidTag, ValueError) as error:
            raise RemoteProtocolError(BROKEN) from error
        self._next, self._before = count + 1, number
        return opened_head, opened
