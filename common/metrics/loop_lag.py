"""Lag of the event loop: how much later than due it comes to a timer."""

from __future__ import annotations

import asyncio
from collections import deque

SAMPLE_S = 1.0
SAMPLES = 15  # a scrape every 15 s misses none


class LoopLag:
    """Largest lag of the last `SAMPLES` seconds."""

    def __init__(self) -> None:
        self._lags: deque[float] = deque(maxlen=SAMPLES)

    @property
    def seconds(self) -> float:
        return max(self._lags, default=0.0)

    async def measure(self) -> None:
        """Measure until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + SAMPLE_S
            await asyncio.sleep(SAMPLE_S)
            self._lags.append(max(0.0, loop.time() - due))
