"""Command `top`: a full-screen view of the transfers of this device's peer.

Not here: the view (see peer.cli.top), which is loaded by this command alone.
"""

from __future__ import annotations

import sys

from peer.cli.command import command
from peer.cli.console import Console


@command("top", example="mini-torrent top")
def top(console: Console) -> None:
    """Show transfers, sources and events on the whole screen.

    Keys pause, resume and cancel the chosen download, and change the limits; ? lists them. It needs
    the extra `tui`.
    """
    from peer.cli.errors import refuse_usage

    if console.as_json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        from common.hints import hint

        refuse_usage(
            "top needs a terminal",
            hint("for scripts and pipes", "show-downloads", options=("--watch",)),
        )
    try:
        from peer.cli.top.app import Top
    except ModuleNotFoundError as error:
        from common.optional_library import library_missing

        raise library_missing("top needs", error.name, "tui") from error
    from peer.cli.top.transfers import ASCII, UNICODE
    from peer.control.client import ControlClient

    console.need_peer()
    plain = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    app = Top(lambda: ControlClient(console.home), glyphs=ASCII if plain else UNICODE)
    if (ended_by := app.run()) is not None:
        raise ended_by


COMMANDS = (top,)
