"""Fixtures of the tests of downloads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.peer.downloads.test_lifecycle import Stage, staged


@pytest.fixture
def pieces() -> int:
    """Number of pieces of the film."""
    return 4


@pytest.fixture
async def stage(tmp_path: Path, pieces: int) -> AsyncIterator[Stage]:
    async with staged(tmp_path, pieces) as stage:
        yield stage
