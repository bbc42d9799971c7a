"""Command `web`: opens the page of the running tracker in the browser."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from tracker.cli_options import home_option, json_option, show


@click.command("web")
@click.option("--no-browser", is_flag=True, help="Print the address, and open no browser.")
@home_option
@json_option
def web(no_browser: bool, home: Path) -> None:
    """Open the page of the running tracker in the browser.

    The page shows users, devices, groups, shares, load and log, and has the operator's actions. Its
    address is valid once, for a minute. On a machine without a browser, forward the port of the
    address with ssh -L.

    Example: mini-torrent-tracker web
    """
    from common.cli.browser import open_page
    from common.messages import operator as messages
    from tracker.operator_client import request

    home = Path(os.path.abspath(home.expanduser()))
    found = request(home, messages.OpenPage(), messages.PageOpened)
    address = f"{found.url}#s={found.secret}"
    if no_browser:
        show({"url": found.url, "address": address}, address)
        return
    opened = open_page(home, address)
    document = {"url": found.url, "address": address, "opened": opened}
    if opened:
        show(document, f"the page is open in the browser: {found.url}")
    else:
        print("no browser was found; open this address within a minute", file=sys.stderr)
        show(document, address)


COMMANDS = (web,)
