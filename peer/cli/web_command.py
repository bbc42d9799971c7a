"""Command `web`: opens the page of the running peer in the browser."""

from __future__ import annotations

import click

from peer.cli.command import command
from peer.cli.console import Console


@command("web", example="mini-torrent web")
@click.option("--no-browser", is_flag=True, help="Print the address, and open no browser.")
def web(console: Console, no_browser: bool) -> None:
    """Open the page of this device's peer in the browser.

    The page shows transfers, groups, files and devices. Its address is valid once, for a minute.
    On a machine without a browser, forward the port of the address with ssh -L.
    """
    from common.cli.browser import open_page
    from common.messages.control import OpenPage, PageOpened

    answer = console.request(OpenPage())
    assert isinstance(answer, PageOpened)
    address = f"{answer.url}#s={answer.secret}"
    if no_browser:
        if console.as_json:
            console.json({"url": answer.url, "address": address})
        else:
            console.print_line(address)
        return
    opened = open_page(console.home, address)
    if console.as_json:
        console.json({"url": answer.url, "address": address, "opened": opened})
    elif opened:
        console.report(f"the page is open in the browser: {answer.url}")
    else:
        console.report("no browser was found; open this address within a minute")
        console.print_line(address)


COMMANDS = (web,)
