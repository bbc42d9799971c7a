from __future__ import annotations

import pytest

from tests.support.tracker_harness import TrackerHarness


@pytest.fixture
def harness() -> TrackerHarness:
    return TrackerHarness()
