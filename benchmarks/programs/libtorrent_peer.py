"""libtorrent session in a process of its own, controlled by lines on standard input.

The first line, `{"torrent": PATH, "save": PATH, "seed": BOOL}`, loads a torrent. A seed is checked
in full, outside of any timed span; a leecher is only prepared. The line `go` adds the torrent of a
leecher; the process then prints the times of start, seeding state and last write.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import libtorrent as lt

# Best of trials on every workload; settings that are not named keep their defaults. A longer
# request queue than this made it slower.
TUNED: dict[str, Any] = {
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_ip_notifier": False,
    "enable_outgoing_utp": False,
    "enable_incoming_utp": False,
    "in_enc_policy": 2,
    "out_enc_policy": 2,
    "allow_multiple_connections_per_ip": True,
    "connections_limit": 500,
    "connection_speed": 500,
    "torrent_connect_boost": 255,
    "smooth_connects": False,
    "unchoke_slots_limit": -1,
    "max_out_request_queue": 500,
    "max_allowed_in_request_queue": 500,
    "request_queue_time": 10,
    "send_buffer_watermark": 4 << 20,
    "send_buffer_low_watermark": 4 << 20,
    "send_buffer_watermark_factor": 200,
    "max_queued_disk_bytes": 256 << 20,
    "disk_write_mode": 1,
    "aio_threads": 4,
    "hashing_threads": 2,
    "rate_limit_ip_overhead": False,
    "ssrf_mitigation": False,
}

# The alert of the last piece can precede the change of state: poll soon, not at the next alert.
_LOOK_MS = 10


class Peer:
    """libtorrent session with one torrent."""

    def __init__(self, address: str, port: int, overrides: dict[str, Any]) -> None:
        category = lt.alert.category_t
        mask = (
            category.status_notification
            | category.error_notification
            | category.storage_notification
        )
        settings: Any = {
            **TUNED,
            "listen_interfaces": f"{address}:{port}",
            "outgoing_interfaces": address,
            "alert_mask": mask,
            **overrides,
        }
        self._session = lt.session(settings)
        self._params: Any = None
        self._handle: Any = None

    def open(self, torrent: str, save: str, seed: bool) -> None:
        self._params = lt.add_torrent_params()
        self._params.ti = lt.torrent_info(torrent)
        self._params.save_path = save
        flags = lt.torrent_flags
        self._params.flags &= ~(flags.auto_managed | flags.paused)
        if seed:
            self._handle = self._session.add_torrent(self._params)
            self._until_seeding()

    def go(self) -> dict[str, float]:
        started = time.monotonic()
        self._handle = self._session.add_torrent(self._params)
        self._until_seeding()
        done = time.monotonic()
        self._flush()
        return {"started": started, "done": done, "flushed": time.monotonic()}

    def _flush(self) -> None:
        """Wait until queued writes are done; the seeding state comes earlier."""
        self._handle.flush_cache()
        while True:
            self._session.wait_for_alert(_LOOK_MS)
            for alert in self._session.pop_alerts():
                if isinstance(alert, lt.cache_flushed_alert):
                    return

    def _until_seeding(self) -> None:
        seeding = lt.torrent_status.seeding
        while True:
            self._session.wait_for_alert(_LOOK_MS)
            for alert in self._session.pop_alerts():
                if alert.category() & lt.alert.category_t.error_notification:
                    print(alert.message(), file=sys.stderr, flush=True)
            if self._handle.status().state == seeding:
                return


def main() -> None:
    address, port, overrides = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
    peer = Peer(address, port, overrides)
    peer.open(**json.loads(sys.stdin.readline()))
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        print(json.dumps(peer.go()), flush=True)


if __name__ == "__main__":
    main()
