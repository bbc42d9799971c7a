"""Command `web`: opens the page of the running peer in the browser.

Why a file: a command line is seen by all users of the machine, so the secret of the page must not
be an argument of the browser. It passes in a file that only its user can read, and that forwards.
"""

from __future__ import annotations

import html
import sys

import click

from peer.cli.command import command
from peer.cli.console import Console

FORWARD = "page.html"  # in the home; the secret in it is worth nothing after its first use


@command("web", example="mini-torrent web")
@click.option("--no-browser", is_flag=True, help="Print the address, and open no browser.")
def web(console: Console, no_browser: bool) -> None:
    """Open the page of this device's peer in the browser.

    The page shows transfers, groups, files and devices. Its address is valid once, for a minute.
    On a machine without a browser, forward the port of the address with ssh -L.
    """
    from common.host.atomic_files import atomic_write
    from common.messages.control import OpenPage, PageOpened

    answer = console.ask(OpenPage())
    assert isinstance(answer, PageOpened)
    address = f"{answer.url}#s={answer.secret}"
    if no_browser:
        if console.as_json:
            console.json({"url": answer.url, "address": address})
        else:
            console.print_line(address)
        return
    path = console.home / FORWARD
    atomic_write(path, _forwarding(address).encode(), durable=False)
    opened = _open(path.as_uri())
    if console.as_json:
        console.json({"url": answer.url, "address": address, "opened": opened})
    elif opened:
        console.report(f"the page is open in the browser: {answer.url}")
    else:
        console.report("no browser was found; open this address within a minute")
        console.print_line(address)


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


COMMANDS = (web,)
