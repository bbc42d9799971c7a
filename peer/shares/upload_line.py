"""Command line of an upload, as hints repeat it."""

from __future__ import annotations

from common.messages.control import UploadFile


def upload_options(command: UploadFile, *, links: bool = True) -> list[str]:
    """The options of the command line that makes ``command``.

    Those about links are left out without ``links``. ``--yes`` and ``--dry-run`` are not repeated.
    """
    words = [] if command.name is None else ["--name", command.name]
    words += [] if command.digest == "blake3" else ["--digest", command.digest]
    words += [] if command.piece_length is None else ["--piece-size", str(command.piece_length)]
    if links and command.links != "refuse":
        words += ["--links", command.links]
    for root in command.link_roots if links else ():
        words += ["--link-root", root]
    for pattern in command.exclude:
        words += ["--exclude", pattern]
    words += ["--skip-unsharable"] * command.skip
    words += ["--replace"] * command.replace
    words += [] if command.expires_s is None else ["--expires", f"{round(command.expires_s)}s"]
    return words if command.times else [*words, "--no-times"]
