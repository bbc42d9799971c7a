"""Network side of fetching: connections to sources and the channels on them.

The decisions are in ``peer.swarm.fetching``.
"""
