"""Downloads of this device: created, queued, fetched, and shared when complete.

``manager`` owns the list and the commands, ``lifecycle`` the steps of one download, and
``transfer`` the shell around the core while it fetches.
"""
