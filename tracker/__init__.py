"""The tracker: accounts, groups, the catalogue of shares, presence. It never sees shared content.

``core`` decides: pure, without socket, clock, file or random source of its own. ``service`` runs
it: sockets, the command loop, the publisher and deferred work. ``store`` keeps it: the database and
its migrations. ``admin`` looks after it: the home, backups, the doctor. ``cli`` is the command
``mini-torrent-tracker``.
"""

import sys

if sys.argv[:1] == ["-m"]:  # `python -m`: this runs before any import that could be shadowed
    from mini_torrent_start import collect_rarely, leave_if_at_fault

    leave_if_at_fault()
    collect_rarely()
