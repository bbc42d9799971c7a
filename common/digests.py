"""Digest algorithms: which there are, how long their digests are, how to compute them.

Owns nothing else. What is digested, and with how many threads, is decided by the callers. All of
them release the interpreter's lock for buffers of more than 2 KiB.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Protocol, TypeAlias

from blake3 import blake3

from common.errors import ConfigError

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Bytes in memory that are only read."""

DIGEST_BYTES_MAX = 32


class Hasher(Protocol):
    """A digest in the making."""

    def update(self, data: Buffer, /) -> object: ...

    def digest(self) -> bytes: ...


class Algorithm(StrEnum):
    """What a share's pieces and its whole content are digested with."""

    BLAKE3 = "blake3"
    SHA256 = "sha256"
    SHA1 = "sha1"

    @classmethod
    def named(cls, text: str) -> Algorithm:
        """The algorithm of this name; raises `ConfigError`."""
        try:
            return cls(text)
        except ValueError:
            raise ConfigError(
                "there is no such digest algorithm", f"one of {', '.join(cls)}"
            ) from None

    @property
    def digest_size(self) -> int:
        """Bytes."""
        return 20 if self is Algorithm.SHA1 else 32

    def new(self, threads: int = 1) -> Hasher:
        """A fresh digest. BLAKE3 can use several threads within one large ``update``."""
        if self is Algorithm.BLAKE3:
            return blake3(max_threads=threads)
        if self is Algorithm.SHA256:
            return hashlib.sha256(usedforsecurity=False)
        return hashlib.sha1(usedforsecurity=False)

    def digest_of(self, data: Buffer) -> bytes:
        """The digest of one buffer."""
        if self is Algorithm.BLAKE3:
            return blake3(data).digest()
        if self is Algorithm.SHA256:
            return hashlib.sha256(data, usedforsecurity=False).digest()
        return hashlib.sha1(data, usedforsecurity=False).digest()
