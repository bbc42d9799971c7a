"""The downloads of this device.

``registry`` is the list that people see and act on, ``entry`` one row of it, ``life`` how one
begins, ends and comes back, ``running`` the shell around the swarm core while it fetches.
"""
