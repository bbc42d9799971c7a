"""Entry points of both programs, and the checks before any of our packages is imported.

Owns two checks: this system is Linux, and no other ``common``, ``peer`` or ``tracker`` stands
before ours on the path of Python. This module has a name that no other project uses.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("common", "peer", "tracker")


def fault() -> tuple[str, str] | None:
    """The error and the hint where neither program can run; None if both can."""
    if sys.platform != "linux":
        return (
            f"Mini-Torrent runs on Linux, and this system is {sys.platform!a}",
            "use a Linux machine, virtual machine or container; on Windows: wsl --install",
        )
    ours = Path(__file__).resolve().parent
    for package in PACKAGES:
        spec = find_spec(package)
        origin = None if spec is None else spec.origin
        if origin is None or Path(origin).resolve().parent != ours / package:
            found = "nothing" if origin is None else origin.removesuffix("/__init__.py")
            path = shlex.quote(str(ours))
            return (
                f"{found!a} shadows the package {package!r} of Mini-Torrent in {str(ours)!a}",
                f"put ours first: export PYTHONSAFEPATH=1 PYTHONPATH={path}",
            )
    return None


def leave_if_at_fault() -> None:
    """End with the error, in JSON if the command line or the environment asks for it."""
    if (found := fault()) is None:
        return
    message, hint = found
    options = sys.argv[: sys.argv.index("--")] if "--" in sys.argv else sys.argv
    if "--json" in options or os.environ.get("MINI_TORRENT_JSON", "") not in ("", "0"):
        text = json.dumps({"error": {"code": "failed", "message": message, "hint": hint}})
    else:
        text = f"error: {message}\nhint: {hint}"
    print(text.encode("ascii", "backslashreplace").decode(), file=sys.stderr)
    sys.exit(1)


def peer() -> None:
    """`mini-torrent`."""
    leave_if_at_fault()
    from peer.cli import main

    main()


def tracker() -> None:
    """`mini-torrent-tracker`."""
    leave_if_at_fault()
    from tracker.cli import main

    main()
