"""Feed of the full-screen view: asks the peer on threads, and carries its commands out.

Owns: two connections to the peer, one for looks and commands, one for events, each used by a thread
of its own. Results are reported by callbacks, on these threads. Not here: texts (see
peer.cli.top.transfers), the screen (see peer.cli.top.app).
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

from common.errors import MiniTorrentError, NoPeerRunning
from common.messages import control
from peer.cli.top.transfers import Snapshot, Transfer, transfers_of
from peer.control.client import Ended, Message, Stopped

REFRESH_S = 1.0  # between two snapshots
RETRY_S = 2.0  # between two attempts to watch events, while no user is logged in
END_S = 1.0  # for the threads to end

T = TypeVar("T")


class Client(Protocol):
    """One connection to a peer."""

    def request(self, command: control.Command) -> Generator[Message]:
        """Iterate over the messages about a command."""

    def result(self, command: control.Command) -> Ended:
        """Return the result of a command. Raises `MiniTorrentError`."""

    def stop(self) -> None:
        """Make the others raise `Stopped`, from another thread."""


Connect = Callable[[], AbstractContextManager[Client]]


class Screen(Protocol):
    """Receiver of the feed. All methods are called on threads of the feed."""

    def take_snapshot(self, snapshot: Snapshot) -> None:
        """Show the state of now."""

    def take_event(self, event: control.Happened) -> None:
        """Show an event of a group."""

    def take_result(self, text: str, failed: bool) -> None:
        """Show how a command ended."""

    def take_end(self, error: MiniTorrentError) -> None:
        """Leave: the peer has ended, or does not answer."""


class Feed:
    """The feed of one screen. `start` and `close` are called by the screen's thread."""

    def __init__(self, connect: Connect, screen: Screen, refresh_s: float = REFRESH_S) -> None:
        self._connect = connect
        self._screen = screen
        self._refresh_s = refresh_s
        self._commands: queue.SimpleQueue[control.Command | None] = queue.SimpleQueue()
        self._chosen: Transfer | None = None
        self._ended = threading.Event()
        self._clients: list[Client] = []
        self._threads = [
            threading.Thread(target=self._connected, args=[work], name="top", daemon=True)
            for work in (self._refresh, self._watch)
        ]

    def start(self) -> None:
        """Begin to report."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End both threads."""
        self._ended.set()
        self._commands.put(None)
        for client in list(self._clients):
            client.stop()
        for thread in self._threads:
            thread.join(END_S)

    def choose(self, transfer: Transfer | None) -> None:
        """Report the sources and pieces of this transfer from now on, the first time at once."""
        before, self._chosen = self._chosen, transfer
        if transfer is not None and (before is None or before.key != transfer.key):
            self._commands.put(None)

    def run(self, command: control.Command) -> None:
        """Carry a command out, behind those before it."""
        self._commands.put(command)

    # -- snapshots and commands -----------------------------------------------------------------

    def _refresh(self, client: Client) -> None:
        while not self._ended.is_set():
            self._screen.take_snapshot(self._snapshot(client))
            with contextlib.suppress(queue.Empty):
                if (command := self._commands.get(timeout=self._refresh_s)) is not None:
                    self._carry_out(client, command)

    def _carry_out(self, client: Client, command: control.Command) -> None:
        try:
            answer = client.result(command)
        except NoPeerRunning:
            raise
        except MiniTorrentError as error:
            self._screen.take_result(error.message, True)
        else:
            self._screen.take_result(getattr(answer, "text", ""), False)

    def _snapshot(self, client: Client) -> Snapshot:
        status = client.result(control.Status())
        assert isinstance(status, control.StatusIs)
        if status.user is None:
            return Snapshot(status, problem="no user is logged in on this device")
        try:
            downloads = _answer(client, control.ShowDownloads(), control.Downloads)
            shares = _answer(client, control.ListShares(), control.ShareRows)
        except NoPeerRunning:
            raise
        except MiniTorrentError as error:
            return Snapshot(status, problem=error.message)
        transfers = transfers_of(downloads.rows, shares.rows)
        chosen = self._now(transfers)
        if chosen is None:
            return Snapshot(status, transfers)
        if chosen.state != control.DOWNLOADING:
            return Snapshot(status, transfers, of=chosen.key)
        try:
            where = chosen.group, chosen.path
            sources = _answer(client, control.WhySlow(*where), control.SourceRows)
            pieces = _answer(client, control.PieceMap(*where), control.PieceMapIs)
        except NoPeerRunning:
            raise
        except MiniTorrentError:  # it ended just now
            return Snapshot(status, transfers, of=chosen.key)
        return Snapshot(status, transfers, tuple(sources.rows), tuple(pieces.cells), of=chosen.key)

    def _now(self, transfers: tuple[Transfer, ...]) -> Transfer | None:
        chosen = self._chosen
        return next((one for one in transfers if chosen and one.key == chosen.key), None)

    # -- events ---------------------------------------------------------------------------------

    def _watch(self, client: Client) -> None:
        while not self._ended.is_set():
            for message in client.request(control.Watch()):
                if isinstance(message, control.Happened):
                    self._screen.take_event(message)
            self._ended.wait(RETRY_S)  # no user is logged in

    def _connected(self, work: Callable[[Client], None]) -> None:
        """Do ``work`` with a connection; its end by the peer ends the screen."""
        try:
            with self._connect() as client:
                self._clients.append(client)
                if not self._ended.is_set():
                    work(client)
        except Stopped:
            pass
        except MiniTorrentError as error:
            if not self._ended.is_set():
                self._screen.take_end(error)


def _answer(client: Client, command: control.Command, kind: type[T]) -> T:
    found = client.result(command)
    assert isinstance(found, kind)
    return found
