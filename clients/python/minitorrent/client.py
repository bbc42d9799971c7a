"""Client of one peer: its commands as methods with typed results."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from minitorrent.errors import Error, NotRunning
from minitorrent.transport import Transport, default_socket, path_of, problem
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
    from_document,
)

OnProgress = Callable[[Progress], object]
RECONNECT_S = 1.0


def connect(
    home: str | os.PathLike[str] | None = None,
    *,
    socket: str | os.PathLike[str] | None = None,
    timeout_s: float = 60.0,
) -> Peer:
    """Connect to the peer of ``home``, or the one whose API listens at ``socket``.

    ``timeout_s`` bounds each short command. Raises `NotRunning` if no peer answers.
    """
    path = Path(socket) if socket is not None else default_socket(home)
    peer = Peer(Transport(path, timeout_s))
    peer.status()
    return peer


class Peer:
    """A running peer of this machine. Methods raise `Error`. Threads may share a `Peer`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is held open between two commands."""

    def command(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Send any request of the API and return its document; ``path`` as in docs/api.md."""
        return self._transport.request(method, path, body)

    # -- looking --------------------------------------------------------------------------------

    def status(self) -> Status:
        """Return the state of the peer."""
        return from_document(Status, self.command("GET", "/status"))

    def groups(self) -> list[Group]:
        """Return all groups."""
        return [from_document(Group, row) for row in self.command("GET", "/groups")]

    def members(self, group: str) -> list[User]:
        """Return the members of a group."""
        rows = self.command("GET", path_of("groups", group, "members"))
        return [from_document(User, row) for row in rows]

    def files(self, group: str) -> list[File]:
        """Return the shares of a group."""
        rows = self.command("GET", path_of("groups", group, "files"))
        return [from_document(File, row) for row in rows]

    def downloads(self) -> list[Download]:
        """Return the downloads of this peer."""
        return [from_document(Download, row) for row in self.command("GET", "/downloads")]

    def sources(self, group: str, name: str) -> list[Source]:
        """Return the sources of a running download, with the reason why each is slow."""
        rows = self.command("GET", path_of("groups", group, "downloads", name, "sources"))
        return [from_document(Source, row) for row in rows]

    # -- sharing and fetching -------------------------------------------------------------------

    def share(
        self,
        path: str | os.PathLike[str],
        group: str,
        *,
        on_progress: OnProgress | None = None,
        **options: Any,
    ) -> Shared:
        """Share a file or folder, and return when the group lists it.

        ``options``: further keys of the operation ``UploadFile``, such as ``name``, ``digest``
        (blake3, sha256 or sha1) or ``yes`` (also hidden files).
        """
        body = {"path": os.path.abspath(path), **options}
        found = self._run(path_of("groups", group, "files"), body, on_progress)
        return from_document(Shared, found)

    def download(
        self,
        group: str,
        name: str,
        dest: str | os.PathLike[str] = ".",
        *,
        on_progress: OnProgress | None = None,
        **options: Any,
    ) -> Downloaded:
        """Download a share to ``dest``, a folder or a new path; return when it is verified.

        An exception in ``on_progress`` ends the wait; the download goes on. ``options``: further
        keys of the operation ``DownloadFile``, such as ``pick`` or ``timeout_s``.
        """
        body = {"dest": _absolute(dest), **options}
        found = self._run(path_of("groups", group, "files", name, "download"), body, on_progress)
        return from_document(Downloaded, found)

    def start_download(
        self, group: str, name: str, dest: str | os.PathLike[str] = ".", **options: Any
    ) -> str:
        """Begin a download without waiting; return the path where it will be."""
        body = {"dest": _absolute(dest), "wait": False, **options}
        found = self.command("POST", path_of("groups", group, "files", name, "download"), body)
        return str(found["path"])

    def await_download(
        self,
        group: str,
        path: str | os.PathLike[str],
        *,
        timeout_s: float | None = None,
        on_progress: OnProgress | None = None,
    ) -> Downloaded:
        """Wait for a download that was begun before. At ``timeout_s`` the code is timed-out."""
        body = {"path": os.path.abspath(path), "timeout_s": timeout_s}
        found = self._run(path_of("groups", group, "downloads"), body, on_progress)
        return from_document(Downloaded, found)

    def pause(self, group: str, name: str) -> None:
        """Pause a download."""
        self._download(group, name, "pause")

    def resume(self, group: str, name: str) -> None:
        """Resume a download."""
        self._download(group, name, "resume")

    def cancel(self, group: str, name: str) -> None:
        """Cancel a download and delete its partial data."""
        self._download(group, name, "cancel")

    def stop_share(self, group: str, name: str) -> None:
        """Stop sharing from this device."""
        self.command("POST", path_of("groups", group, "files", name, "stop-share"))

    def _download(self, group: str, name: str, command: str) -> None:
        self.command("POST", path_of("groups", group, "downloads", name, command))

    def _run(self, path: str, body: dict[str, Any], on_progress: OnProgress | None) -> Any:
        for event, _, document in self._transport.stream("POST", path, body):
            if event == "progress" and on_progress is not None:
                on_progress(from_document(Progress, document))
            elif event == "problem":
                raise problem(document)
            elif event == "result":
                return document
        raise NotRunning(str(self._transport.path), "the peer ended")

    # -- events ---------------------------------------------------------------------------------

    def events(
        self, group: str | None = None, *, last_id: str = "", reconnect: bool = True
    ) -> Iterator[Event]:
        """Yield the events of ``group``, or of all groups, as they happen, without end.

        After an interruption the stream goes on behind the last event. If events in between are no
        longer kept, an event ``gap`` comes first. Without ``reconnect``, the end of the peer raises
        `NotRunning`.
        """
        path = "/events" if group is None else f"/events?group={path_of(group)[1:]}"
        while True:
            try:
                for name, last, document in self._transport.stream("GET", path, last_id=last_id):
                    last_id = last or last_id
                    yield _event(name, last, document)
                if not reconnect:
                    raise NotRunning(str(self._transport.path), "the peer ended")
            except NotRunning:
                if not reconnect:
                    raise
            except Error as error:
                if error.code != "busy" or not reconnect:
                    raise
            time.sleep(RECONNECT_S)


def _event(name: str, event_id: str, document: dict[str, Any]) -> Event:
    known = {key: document.pop(key, "") for key in ("group", "time")}
    document.pop("event", None)
    return Event(event_id, name, seq=int(document.pop("seq", 0)), details=document, **known)


def _absolute(path: str | os.PathLike[str]) -> str:
    """The path made absolute. A slash at its end stays: it asks for a folder."""
    text = os.fspath(path)
    return os.path.abspath(text) + ("/" if text.endswith("/") and text != "/" else "")
