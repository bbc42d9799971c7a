"""A short run of every target, and all that was ever found. The long run is ``make fuzz``."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzz.inputs import found, inputs
from tests.fuzz.targets import Target, targets
from tests.support import wire_samples

TARGETS = targets(wire_samples)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_fuzz(target: Target) -> None:
    for seed in target.seeds:
        target.run(seed)
    for data in found(target.name):
        target.run(data)

    @settings(
        max_examples=120,
        deadline=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(inputs(target.seeds))
    def run(data: bytes) -> None:
        target.run(data)

    run()
