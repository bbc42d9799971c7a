"""The entry points of both programs, which see to it that the packages imported are ours.

A folder `common`, `peer` or `tracker` on PYTHONPATH or where Python was started comes before what
is installed. This module has a name that none has, and imports none of them before it has looked.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("common", "peer", "tracker")


def shadowed() -> str | None:
    """A line that says which path stands before which package of ours; None if none does."""
    ours = Path(__file__).resolve().parent
    for package in PACKAGES:
        spec = find_spec(package)
        origin = None if spec is None else spec.origin
        if origin is None or Path(origin).resolve().parent != ours / package:
            found = "nothing" if origin is None else origin.removesuffix("/__init__.py")
            return (
                f"error: {found!a} shadows the package {package!r} of Mini-Torrent in {str(ours)!a}"
                "\nhint: take its folder off PYTHONPATH, or run this elsewhere"
            )
    return None


def _leave_if_shadowed() -> None:
    if (line := shadowed()) is not None:
        print(line, file=sys.stderr)
        sys.exit(1)


def peer() -> None:
    """`mini-torrent`."""
    _leave_if_shadowed()
    from peer.cli import main

    main()


def tracker() -> None:
    """`mini-torrent-tracker`."""
    _leave_if_shadowed()
    from tracker.cli import main

    main()
