"""The OpenAPI document against the running application: generated requests, and their answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.integration.test_http import with_http
from tests.support.processes import Person, Swarm

pytest.importorskip("schemathesis", reason="no schemathesis: pip install schemathesis, to test it")

from tests.support.api_explorer import Explorer, peer_aim

SEED, EXAMPLES = 17, 3  # `make fuzz` runs more, from other seeds


@contextmanager
def explored_peer() -> Iterator[Person]:
    """The owner of a group with two shares, in a swarm of her own."""
    swarm = Swarm()
    try:
        anna = with_http(swarm, "anna")
        anna.ok("create-group", "lab")
        folder = swarm.folder()
        (folder / "a").write_bytes(b"a")
        anna.share(swarm.file(300_000), "lab", "--name", "model.bin")
        anna.share(folder, "lab", "--name", "tree")
        yield anna
    finally:
        swarm.close()


def test_h171_generated_requests_get_the_answers_of_the_document() -> None:
    print(f"seed {SEED}")
    with explored_peer() as anna:
        explorer = Explorer(peer_aim(anna))
        wrong = explorer.explore(SEED, EXAMPLES)
        explorer.close()
        assert "\n\n".join(wrong) == ""
        assert {200, 404} <= set().union(*explorer.statuses.values())
        assert anna.status()["user"] == "anna"
        assert "Traceback" not in (anna.home / "peer.log").read_text()
