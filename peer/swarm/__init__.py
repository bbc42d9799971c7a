"""Deciding core of the peer: no sockets, clocks, files, threads or randomness of its own.

A machine takes an event and the time and returns effects: ``handle(event, now) -> effects``.
`fetching.machine` fetches one content; `serving.machine` serves all requesters of this peer.
"""
