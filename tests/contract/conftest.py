from __future__ import annotations

import sys
from pathlib import Path

# The people and devices that the tracker's unit tests are told with.
sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "tracker"))
