"""The tracker: accounts, groups, the catalogue of shares, and who is online. It never sees data.

What decides (``commands``, ``accounts``, ``groups``, ``catalogue``, ``rights``, ``presence``,
``events`` and the state under them) knows no socket, clock, file or random source: all of that is
passed in by the shell (``server``, ``desk``, ``store``, ``passwords``, ``cli``).
"""

import sys

if sys.argv[:1] == ["-m"]:  # `python -m`: this runs before any import that could be shadowed
    from mini_torrent_start import leave_if_at_fault

    leave_if_at_fault()
