"""The peer: process of one device in the swarm, and its command line."""

import sys

if sys.argv[:1] == ["-m"]:  # `python -m`: this runs before any import that could be shadowed
    from mini_torrent_start import collect_rarely, leave_if_at_fault

    leave_if_at_fault()
    collect_rarely()
