"""Code that the tracker and the peers share: messages, sockets, keys, home directories.

Invariant: no module in here imports ``tracker`` or ``peer``.
"""
