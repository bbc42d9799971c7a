"""The full-screen view on a real peer, in a terminal of its own."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import termios
import threading
from collections.abc import Iterator

import pytest

from tests.support.processes import PEER, Person, Swarm
from tests.support.waiting import PATIENCE_S, wait_for

pytest.importorskip("textual", reason="no textual: pip install 'mini-torrent[tui]', to test top")

TCP_ONLY = True


class Terminal:
    """A terminal of 80 by 24 without colours, in which `top` runs."""

    def __init__(self, person: Person, **variables: str) -> None:
        self._end, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.process = subprocess.Popen(
            [PEER, *person.words(["top"])],
            stdin=inner,
            stdout=inner,
            stderr=inner,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm", "NO_COLOR": "1", "LC_ALL": "C.UTF-8", **variables},
        )
        os.close(inner)
        self.drawn = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(self._end, 65536):
                self.drawn += data

    def press(self, keys: str) -> None:
        os.write(self._end, keys.encode())

    def shows(self, text: str) -> None:
        wait_for(lambda: text.encode() in self.drawn, f"{text!r} on the screen")

    def close(self) -> int:
        code = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        os.close(self._end)
        return code


@pytest.fixture
def slowly(alice: Person) -> Iterator[None]:
    alice.ok("limit", "--up", "200K")
    yield
    alice.ok("limit", "--up", "off")


def test_top_shows_and_controls_a_download(
    swarm: Swarm, alice: Person, bob: Person, slowly: None
) -> None:
    group = alice.group_with(bob)
    name = alice.share(swarm.file(9_000_000), group, "--piece-size", "64K")["name"]
    bob.ok("download-file", group, name, str(swarm.folder()), "--no-wait")
    terminal, other = Terminal(bob), Terminal(alice)
    try:
        terminal.shows(name)
        terminal.shows("alice")  # among the sources
        other.shows("uploading")
        other.press("q")
        assert other.close() == 0
        for keys, state in (("p", "paused"), ("r", "downloading"), ("cy", "")):
            terminal.press(keys)
            wait_for(lambda state=state: bob.state_of(group, name) == state, state or "its end")
        terminal.press("q")
        assert terminal.close() == 0
        assert b"Traceback" not in terminal.drawn
    finally:
        for one in (terminal, other):
            if one.process.poll() is None:
                one.process.kill()
                one.close()
