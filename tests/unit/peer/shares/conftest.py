"""Fixtures of the tests of shares."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.peer.shares.test_manager import ALICE, Town


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[Town]:
    town = Town(tmp_path)
    await town.shares.activate(ALICE)
    try:
        yield town
    finally:
        town.end()
