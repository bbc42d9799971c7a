"""``python -m peer.cli``: the same as ``mini-torrent``."""

from peer.cli.main import main

main()
