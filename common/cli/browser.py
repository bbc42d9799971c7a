"""Browser of the user: a page with a one-time secret in its address is opened in it.

Why a file: a command line is seen by all users of the machine, so the secret of the page must not
be an argument of the browser. It passes in a file that only its user can read, and that forwards.
"""

from __future__ import annotations

import html
import sys
from pathlib import Path

FORWARD = "page.html"  # in the home; the secret in it is worth nothing after its first use


def open_page(home: Path, address: str) -> bool:
    """Open ``address`` by a file in ``home``; return whether there is a browser."""
    from common.host.atomic_files import atomic_write

    path = home / FORWARD
    atomic_write(path, _forwarding(address).encode(), durable=False)
    return _open(path.as_uri())


def _open(uri: str) -> bool:
    import webbrowser

    try:
        found = webbrowser.get()
    except webbrowser.Error:
        return False
    if isinstance(found, webbrowser.GenericBrowser) and not isinstance(
        found, webbrowser.BackgroundBrowser
    ):
        return sys.stdout.isatty() and found.open(uri)  # one that takes over the terminal
    return found.open(uri)


def _forwarding(address: str) -> str:
    shown = html.escape(address, quote=True)
    return (
        '<!doctype html><meta charset="utf-8"><meta name="referrer" content="no-referrer">'
        f'<meta http-equiv="refresh" content="0; url={shown}"><title>Mini-Torrent</title>'
        f'<p><a href="{shown}">Open the page</a></p>'
    )
