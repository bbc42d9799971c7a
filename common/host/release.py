"""Release of Mini-Torrent that runs."""

from __future__ import annotations

import sys
from pathlib import Path

_DISTRIBUTION = "mini-torrent"


def release() -> str:
    """The installed release; a source tree that is not installed has none."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(_DISTRIBUTION)
    except PackageNotFoundError:
        return f"from {Path(__file__).resolve().parent.parent} (Python {sys.version.split()[0]})"
