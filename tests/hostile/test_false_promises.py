"""A manifest that promises what its pieces are not: exit code 5, and nothing under the name."""

from __future__ import annotations

import pytest

from common import manifest
from common.digests import Algorithm
from common.messages import tracker
from tests.support.attackers import PIECE, AttackSwarm, Liar, Shared, honest


@pytest.fixture
def shared(arena: AttackSwarm) -> Shared:
    """A share of Alice, in a group in which Bob is."""
    group = arena.alice.group_with(arena.bob)
    return arena.shared(group, pieces=5, size=4 * PIECE + 100)


def test_a_whole_that_is_not_its_pieces_does_not_verify(arena: AttackSwarm, shared: Shared) -> None:
    digest = Algorithm.BLAKE3.digest_of
    pieces = [shared.bytes[at : at + PIECE] for at in range(0, len(shared.bytes), PIECE)]
    told = manifest.Manifest(
        1,
        Algorithm.BLAKE3,
        PIECE,
        len(shared.bytes),
        digest(b"something else"),
        b"".join(map(digest, pieces)),
        (manifest.Entry("", len(shared.bytes)),),
    )
    encoded = manifest.encode(told)
    content = manifest.manifest_id(encoded)
    liar = Liar(arena.member(shared.group, "liar"), honest(shared, encoded))
    try:
        liar.device.request(tracker.PutManifest(content, len(encoded), 0), encoded)
        liar.device.announce(liar.endpoint)
        liar.device.request(tracker.Offer(shared.group, "promise.bin", content))
        liar.start()
        dest = arena.swarm.folder()
        said = arena.bob.refused("download-file", shared.group, "promise.bin", dest, code=5)
    finally:
        liar.end()
    assert "promise.bin" in said or "digest" in said
    assert not (dest / "promise.bin").exists()
    row = arena.bob.downloads()[(shared.group, "promise.bin")]
    assert row["state"] == "failed"
    assert row["reason"]
    listed = arena.alice.files(shared.group)["promise.bin"]["shared_by"]
    assert "bob" not in listed
    arena.bob.ok("cancel", shared.group, "promise.bin")
    assert list(dest.iterdir()) == []
