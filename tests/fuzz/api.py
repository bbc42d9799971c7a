"""Long exploration of the HTTP API by generated requests, from printed seeds."""

from __future__ import annotations

import random
import time

from tests.integration.test_openapi import explored_peer
from tests.support.api_explorer import Explorer, peer_aim

EXAMPLES = 20  # of each operation and kind in one round


def fuzz_api(seconds: float) -> bool:
    """Explore the API of a real peer in rounds; whether nothing was found."""
    deadline, rounds = time.monotonic() + seconds, 0
    while time.monotonic() < deadline:
        number, rounds = random.SystemRandom().getrandbits(32), rounds + 1
        with explored_peer() as person:
            explorer = Explorer(peer_aim(person))
            wrong = explorer.explore(number, EXAMPLES)
            explorer.close()
        if wrong:
            print(f"openapi: found by schemathesis with seed {number}:", flush=True)
            print("\n\n".join(wrong), flush=True)
            return False
    print(f"openapi: schemathesis: {rounds} rounds, nothing found", flush=True)
    return True
