"""The peer: one device's part of the swarm, and the command line that drives it."""

import sys

if sys.argv[:1] == ["-m"]:  # `python -m`: this runs before any import that could be shadowed
    from mini_torrent_start import leave_if_at_fault

    leave_if_at_fault()
