"""``python -m peer.cli``: the same as ``mini-torrent``."""

from peer.cli.program import main

main()
