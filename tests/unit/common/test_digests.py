"""Digests: known answers of other implementations."""

from __future__ import annotations

import pytest

from common.digests import DIGEST_BYTES_MAX, Algorithm
from common.errors import ConfigError

# Of b"abc"; from the specifications (BLAKE3's test of the empty input stands beside it).
KNOWN = {
    Algorithm.BLAKE3: "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85",
    Algorithm.SHA256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    Algorithm.SHA1: "a9993e364706816aba3e25717850c26c9cd0d89d",
}


@pytest.mark.parametrize("algorithm", Algorithm)
def test_known_answers(algorithm: Algorithm) -> None:
    assert algorithm.digest_of(b"abc").hex() == KNOWN[algorithm]
    assert len(algorithm.digest_of(b"")) == algorithm.digest_size <= DIGEST_BYTES_MAX


@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_digest_in_parts_equals_the_digest_at_once(algorithm: Algorithm, kind: type) -> None:
    data = bytes(range(256)) * 5000
    hasher = algorithm.new(threads=2)
    for start in range(0, len(data), 70_001):
        hasher.update(kind(data[start : start + 70_001]))
    assert hasher.digest() == algorithm.digest_of(kind(data))


def test_an_unknown_algorithm_is_refused_with_the_known_ones() -> None:
    assert Algorithm.named("sha1") is Algorithm.SHA1
    with pytest.raises(ConfigError) as caught:
        Algorithm.named("md5")
    assert caught.value.hint == "one of blake3, sha256, sha1"
