"""Entry points of both programs, and the checks before any of our packages is imported.

Owns two checks: this system is Linux, and no other ``common``, ``peer`` or ``tracker`` stands
before ours on the path of Python. This module has a name that no other project uses. Why so few
imports: each command line pays for them, and `--version` needs nothing else.
"""

from __future__ import annotations

import gc
import os
import sys
from importlib.machinery import PathFinder

PACKAGES = ("common", "peer", "tracker")
OBJECTS = 50_000  # new ones until Python looks for unreachable cycles; 700 is its own choice


def fault() -> tuple[str, str] | None:
    """The error and the hint where neither program can run; None if both can."""
    if sys.platform != "linux":
        return (
            f"Mini-Torrent runs on Linux, and this system is {sys.platform!a}",
            "use a Linux machine, virtual machine or container; on Windows: wsl --install",
        )
    ours = os.path.dirname(os.path.realpath(__file__))
    for package in PACKAGES:
        spec = PathFinder.find_spec(package)
        origin = None if spec is None else spec.origin
        if origin is None or os.path.realpath(origin) != f"{ours}/{package}/__init__.py":
            from shlex import quote

            found = "nothing" if origin is None else origin.removesuffix("/__init__.py")
            return (
                f"{found!a} shadows the package {package!r} of Mini-Torrent in {ours!a}",
                f"put ours first: export PYTHONSAFEPATH=1 PYTHONPATH={quote(ours)}",
            )
    return None


def leave_if_at_fault() -> None:
    """End with the error, in JSON if the command line or the environment asks for it."""
    if (found := fault()) is None:
        return
    message, hint = found
    options = sys.argv[: sys.argv.index("--")] if "--" in sys.argv else sys.argv
    if "--json" in options or os.environ.get("MINI_TORRENT_JSON", "") not in ("", "0"):
        from json import dumps

        text = dumps({"error": {"code": "failed", "message": message, "hint": hint}})
    else:
        text = f"error: {message}\nhint: {hint}"
    print(text.encode("ascii", "backslashreplace").decode(), file=sys.stderr)
    sys.exit(1)


def collect_rarely() -> None:
    """Let Python look for unreachable cycles rarely, since imports make none.

    It would take a tenth of a start. A serving process returns to Python's own choice when it is
    ready (`common.host.process.settle`).
    """
    gc.set_threshold(OBJECTS)


def leave_with_version(program: str) -> None:
    """Print the version and end, if the command line asks for nothing else.

    Other command lines with ``--version`` are read by the program itself.
    """
    if sys.argv[1:] != ["--version"]:
        return
    from common.host.release import RELEASE

    try:
        print(f"{program} {RELEASE}", flush=True)
    except OSError:
        return  # the program meets the same error, and reports it
    os._exit(0)


def peer() -> None:
    """`mini-torrent`."""
    leave_if_at_fault()
    leave_with_version("mini-torrent")
    collect_rarely()
    from peer.cli import main

    main()


def tracker() -> None:
    """`mini-torrent-tracker`."""
    leave_if_at_fault()
    leave_with_version("mini-torrent-tracker")
    collect_rarely()
    from tracker.cli import main

    main()
