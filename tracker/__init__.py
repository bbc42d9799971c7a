"""The tracker: accounts, groups, the catalogue of shares, and who is online. It never sees data.

What decides (``commands``, ``accounts``, ``groups``, ``catalogue``, ``rights``, ``presence``,
``events`` and the state under them) knows no socket, clock, file or random source: all of that is
passed in by the shell (``server``, ``desk``, ``store``, ``passwords``, ``cli``).
"""
