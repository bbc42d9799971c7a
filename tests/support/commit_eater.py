"""Line between a tracker and its database that loses a COMMIT, or the answer to it."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
import threading
from pathlib import Path

from tests.support.postgres import Server

SOCKET = ".s.PGSQL.5432"


class CommitEater:
    """A socket that leads to ``server``. ``eat`` lets it lose the next COMMIT, once.

    The connection ends with it. ``eaten``: how many were lost. ``round_trips``: how often the
    server was spoken to after its last word.
    """

    def __init__(self, server: Server) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="eat"))
        self.eaten = 0
        self.round_trips = 0
        self._is_asked = False
        self._target = str(server.folder / SOCKET)
        self._eats: str | None = None
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.folder / SOCKET))
        self._listener.listen(16)
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, url: str) -> str:
        """Return the way to the same database through this line."""
        return f"{url.partition('?')[0]}?host={self.folder}"

    def eat(self, what: str) -> None:
        """Lose the next ``commit``, or the ``answer`` to it."""
        self._eats = what

    def close(self) -> None:
        self._listener.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._target)
            dropped = threading.Event()
            for work in (self._up, self._down):
                threading.Thread(target=work, args=(client, server, dropped), daemon=True).start()

    def _up(self, client: socket.socket, server: socket.socket, dropped: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65_536):
                self.round_trips += not self._is_asked
                self._is_asked = True
                if self._eats is not None and b"COMMIT\0" in data:
                    what, self._eats = self._eats, None
                    self.eaten += 1
                    dropped.set()
                    if what == "commit":
                        break
                server.sendall(data)
        _end(client, server)

    def _down(self, client: socket.socket, server: socket.socket, dropped: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65_536):
                self._is_asked = False
                if dropped.is_set():
                    break
                client.sendall(data)
        _end(client, server)


def _end(*ends: socket.socket) -> None:
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
