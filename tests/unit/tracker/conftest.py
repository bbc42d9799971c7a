from __future__ import annotations

import pytest

from tests.support.tracker_harness import TrackerHarness


@pytest.fixture
def town() -> TrackerHarness:
    return TrackerHarness()
