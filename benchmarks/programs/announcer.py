"""BitTorrent tracker (BEP 3 and 23 over HTTP) for clients that find peers only by a tracker.

It keeps one swarm in memory and answers with all other peers. It prints one JSON line when it
listens, and one for each announce: address, port and bytes left.
"""

from __future__ import annotations

import json
import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from benchmarks.torrents import bencode

# Shortest pause between two announces; some clients have a longer minimum of their own.
_INTERVAL_S = 1


class Announcer(BaseHTTPRequestHandler):
    """Handler of `GET /announce?port=…&left=…`."""

    protocol_version = "HTTP/1.1"
    swarm: dict[tuple[str, int], None] = {}  # noqa: RUF012  (shared by all requests on purpose)

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query, encoding="latin-1")
        peer = self.client_address[0], int(query["port"][0])
        others = [other for other in tuple(self.swarm) if other != peer]
        if query.get("event") == ["stopped"]:
            self.swarm.pop(peer, None)
        else:
            self.swarm[peer] = None
        compact = b"".join(
            socket.inet_aton(address) + port.to_bytes(2, "big") for address, port in others
        )
        answer = bencode({"interval": _INTERVAL_S, "min interval": _INTERVAL_S, "peers": compact})
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
        _print_json({"address": peer[0], "port": peer[1], "left": int(query["left"][0])})

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: announces are reported on standard output."""


def main() -> None:
    server = ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Announcer)
    server.daemon_threads = True
    _print_json({"ready": True})
    server.serve_forever()


def _print_json(fact: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(fact) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
