from __future__ import annotations

import pytest
from town import Town


@pytest.fixture
def town() -> Town:
    return Town()
