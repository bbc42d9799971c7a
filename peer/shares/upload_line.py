"""Command line of an upload, as hints repeat it."""

from __future__ import annotations

from common.messages.control import UploadFile


def upload_options(ask: UploadFile, *, links: bool = True) -> list[str]:
    """The options of the command line that makes ``ask``; without ``links``, those about links are
    left out. ``--yes`` and ``--dry-run`` are not repeated."""
    words = [] if ask.name is None else ["--name", ask.name]
    words += [] if ask.digest == "blake3" else ["--digest", ask.digest]
    words += [] if ask.piece_length is None else ["--piece-size", str(ask.piece_length)]
    if links and ask.links != "refuse":
        words += ["--links", ask.links]
    for root in ask.link_roots if links else ():
        words += ["--link-root", root]
    for pattern in ask.exclude:
        words += ["--exclude", pattern]
    words += ["--skip-unsharable"] * ask.skip
    words += ["--replace"] * ask.replace
    words += [] if ask.expires_s is None else ["--expires", f"{round(ask.expires_s)}s"]
    return words if ask.times else [*words, "--no-times"]
