"""Parameters of connections to sources."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import zmq

from common.crypto.keys import KeyPair
from common.net.connection_limits import ConnectionLimiter


@dataclass(frozen=True, slots=True)
class ConnectionConfig:
    """Parameters that all connections of a pool share."""

    context: zmq.Context[Any]
    pair: KeyPair
    limiter: ConnectionLimiter
    counts: Counter[str]
