"""Network side of serving: the socket that answers piece requests, and access control.

The decisions are in ``peer.swarm.serving``.
"""
