"""Encryption of published messages, so that a subscription alone discloses nothing.

Why: a PUB socket sends to every subscriber. So bodies are encrypted (XChaCha20-Poly1305) with a key
that members get over the command socket, one for each epoch of a group, and topics are opaque ids.

A published message is ``[topic, signature, sealed]``, where ``sealed`` is
``epoch (4 bytes, big endian) | nonce (24) | ciphertext and tag``, bound to topic and epoch.
"""

from __future__ import annotations

import hashlib
import os
import struct

import nacl.bindings
import nacl.exceptions

from common.errors import RemoteProtocolError
from common.ids import ContentId
from common.net.codec import SIGNATURE

_EPOCH = struct.Struct(">I")
_NONCE_BYTES = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
_TAG_BYTES = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_ABYTES
TOPIC_BYTES = 16


def seal(key: bytes, epoch: int, topic: bytes, plain: bytes) -> bytes:
    """Seal ``plain`` for the holders of ``key`` (32 bytes) of ``epoch``."""
    header = _EPOCH.pack(epoch)
    nonce = os.urandom(_NONCE_BYTES)
    body = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(
        plain, SIGNATURE + header + topic, nonce, key
    )
    return header + nonce + body


def epoch_of(sealed: bytes) -> int:
    """Return the epoch whose key opens ``sealed``.

    Raises `RemoteProtocolError` when it is too short.
    """
    if len(sealed) < _EPOCH.size + _NONCE_BYTES + _TAG_BYTES:
        raise RemoteProtocolError("a sealed message that is too short")
    epoch: int = _EPOCH.unpack_from(sealed)[0]
    return epoch


def unseal(key: bytes, topic: bytes, sealed: bytes) -> bytes:
    """Open what `seal` closed. Raises `RemoteProtocolError` when it was not made with ``key``."""
    epoch_of(sealed)
    header = sealed[: _EPOCH.size]
    nonce = sealed[_EPOCH.size : _EPOCH.size + _NONCE_BYTES]
    try:
        return nacl.bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(
            sealed[_EPOCH.size + _NONCE_BYTES :], SIGNATURE + header + topic, nonce, key
        )
    except (nacl.exceptions.CryptoError, ValueError) as error:
        raise RemoteProtocolError("a sealed message that this key does not open") from error


def share_topic(group_topic: bytes, content: ContentId) -> bytes:
    """Return the opaque topic of one share's peer-set updates.

    It is a keyed hash, so that only members of the group can tell which content it is about.
    """
    return hashlib.blake2b(content, key=group_topic, digest_size=TOPIC_BYTES).digest()


def inbox_of(secret: bytes, device: bytes) -> tuple[bytes, bytes]:
    """Return topic and key of one device's inbox, derived from the tracker's secret."""
    topic = hashlib.blake2b(device, key=secret, digest_size=TOPIC_BYTES, person=b"inbox topic")
    key = hashlib.blake2b(device, key=secret, digest_size=32, person=b"inbox key")
    return topic.digest(), key.digest()
