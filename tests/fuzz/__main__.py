"""Long fuzzing: ``python -m tests.fuzz [SECONDS [TARGET]]``.

Every target gets its share of the time (by default twenty minutes in all), half of it with
Hypothesis, in rounds of different seeds, and half with atheris where that is installed. A find is
reduced, shown with its seed, and added to the corpus, which the test suite runs through from then
on. The HTTP API of a real peer (``openapi``) gets such a share too. Exits with 1 if anything was
found.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
import traceback

from hypothesis import HealthCheck, given, seed, settings

if os.access("/dev/shm", os.W_OK):  # readers of files sync them, which is most of their time
    tempfile.tempdir = "/dev/shm"

from tests.fuzz import guided
from tests.fuzz.api import fuzz_api
from tests.fuzz.inputs import found, inputs, keep
from tests.fuzz.targets import Target, targets
from tests.support import wire_samples

ROUND = 2_000  # examples between two looks at the clock


def fuzz(target: Target, seconds: float) -> bool:
    """Fuzz one target with Hypothesis; whether nothing was found."""
    deadline = time.monotonic() + seconds
    runs = 0
    for data in found(target.name):
        target.run(data)
    while time.monotonic() < deadline:
        number = random.SystemRandom().getrandbits(64)
        last = b""

        @seed(number)
        @settings(
            max_examples=ROUND,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(inputs(target.seeds))
        def run(data: bytes) -> None:
            nonlocal last, runs
            last, runs = data, runs + 1
            target.run(data)

        try:
            run()
        except Exception:  # whatever a reader raises that is none of our errors
            traceback.print_exc()
            print(
                f"{target.name}: found by Hypothesis with seed {number}: {last.hex()}", flush=True
            )
            keep(target.name, last)
            return False
    print(f"{target.name}: Hypothesis: {runs} inputs, nothing found", flush=True)
    return True


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 1_200.0
    chosen = [
        target
        for target in targets(wire_samples)
        if len(sys.argv) < 3 or target.name == sys.argv[2]
    ]
    engines = [fuzz]
    if guided.is_installed():
        engines.append(guided.fuzz)
    else:
        print("atheris is not installed here: Hypothesis runs alone", flush=True)
    of_api = len(sys.argv) < 3 or sys.argv[2] == "openapi"
    each = seconds / (len(chosen) + of_api) / len(engines)
    # What one engine found is in the corpus, and the other would only find it again.
    results = [all(engine(target, each) for engine in engines) for target in chosen]
    if of_api:
        results.append(fuzz_api(each * len(engines)))
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
