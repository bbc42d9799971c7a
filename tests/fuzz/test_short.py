"""A short run of every target, and all that was ever found. The long run is ``make fuzz``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "common"))

import wire_samples
from inputs import found, inputs
from targets import Target, targets

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
