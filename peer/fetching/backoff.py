"""Exponential backoff for peers that misbehaved or could not be reached.

It lasts 15 s after the first offence and doubles with each further one, up to 15 min. A quiet hour
resets it. Not here: the choice of what counts as an offence (see ``peer.fetching.pool``).
"""

from __future__ import annotations

from dataclasses import dataclass

from common.ids import DeviceKey

FIRST_S = 15.0
LONGEST_S = 900.0
FORGOTTEN_S = 3_600.0  # from the end of a wait to the reset
DEVICES_MAX = 1_000


@dataclass(slots=True)
class _Record:
    until: float
    wait_s: float


class PeerBackoff:
    """Devices in backoff, each with its end. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._records: dict[DeviceKey, _Record] = {}

    def add(self, device: DeviceKey, now: float) -> float:
        """Start or lengthen the backoff of ``device``; return its length in seconds."""
        known = self._records.pop(device, None)
        if known is None or now - known.until > FORGOTTEN_S:
            wait_s = FIRST_S
        else:
            wait_s = min(known.wait_s * 2, LONGEST_S)
        if len(self._records) >= DEVICES_MAX:
            del self._records[min(self._records, key=lambda key: self._records[key].until)]
        self._records[device] = _Record(now + wait_s, wait_s)
        return wait_s

    def holds(self, device: DeviceKey, now: float) -> bool:
        """Whether ``device`` is in backoff."""
        record = self._records.get(device)
        return record is not None and now < record.until
