"""The deciding core of the peer: no sockets, clocks, files, threads or randomness of its own.

A machine takes an event and the time and answers with effects: ``handle(event, now) -> effects``.
`download` fetches one content, `serving` answers everyone who fetches from this peer.
"""
