"""Digest algorithms: their names, digest sizes and computation.

Owns: the algorithms. Not here: the choice of data and number of threads (see the callers).
Thread safety: all algorithms release the interpreter's lock for buffers of more than 2 KiB.
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
    """Incremental digest computation."""

    def update(self, data: Buffer, /) -> object: ...

    def digest(self) -> bytes: ...


class Algorithm(StrEnum):
    """Digest algorithm of a share's pieces and of its whole content."""

    BLAKE3 = "blake3"
    SHA256 = "sha256"
    SHA1 = "sha1"

    @classmethod
    def named(cls, text: str) -> Algorithm:
        """Return the algorithm of this name; raises `ConfigError`."""
        try:
            return cls(text)
        except ValueError:
            raise ConfigError(
                "there is no such digest algorithm", f"one of {', '.join(cls)}"
            ) from None

    @property
    def digest_size(self) -> int:
        """Size of a digest in bytes."""
        return 20 if self is Algorithm.SHA1 else 32

    def new(self, threads: int = 1) -> Hasher:
        """Return a new digest computation.

        BLAKE3 can use several threads within one large ``update``.
        """
        if self is Algorithm.BLAKE3:
            return blake3(max_threads=threads)
        if self is Algorithm.SHA256:
            return hashlib.sha256(usedforsecurity=False)
        return hashlib.sha1(usedforsecurity=False)

    def digest_of(self, data: Buffer) -> bytes:
        """Return the digest of one buffer."""
        if self is Algorithm.BLAKE3:
            return blake3(data).digest()
        if self is Algorithm.SHA256:
            return hashlib.sha256(data, usedforsecurity=False).digest()
        return hashlib.sha1(data, usedforsecurity=False).digest()
