"""Python client of a Mini-Torrent peer, over the HTTP API at the Unix socket in its home.

``connect`` returns a `Peer`; ``minitorrent.aio.connect`` its asynchronous form. It imports only the
standard library, and none of the packages of Mini-Torrent itself.
"""

from minitorrent.client import Peer, connect
from minitorrent.errors import Error, NotRunning
from minitorrent.types import (
    Download,
    Downloaded,
    Event,
    File,
    Group,
    Progress,
    Shared,
    Source,
    Status,
    User,
)

__all__ = [
    "Download",
    "Downloaded",
    "Error",
    "Event",
    "File",
    "Group",
    "NotRunning",
    "Peer",
    "Progress",
    "Shared",
    "Source",
    "Status",
    "User",
    "connect",
]
