"""Commands about what this device shares: list-shares."""

from __future__ import annotations

from peer.cli.command import command
from peer.cli.console import Console


@command("list-shares", example="mini-torrent list-shares")
def list_shares(console: Console) -> None:
    """List what this device shares, from where, and who fetches it.

    SENT counts from the start of the peer.
    """
    from common.messages.control import ListShares
    from peer.cli.bandwidth_listing import shares_table
    from peer.cli.tables import show_rows

    show_rows(console, console.ask(ListShares()), shares_table)


COMMANDS = (list_shares,)
