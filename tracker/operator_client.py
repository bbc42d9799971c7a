"""Client of a running tracker's operator socket, for the command line.

Owns: one command and its answer. Not here: the tracker's end (see tracker.service.operator_socket).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import msgspec
import zmq

from common import limits
from common.errors import MiniTorrentError, Refused
from common.hints import shell_hint, tracker_hint
from common.host.clock import monotonic
from common.host.control_socket import find_endpoint
from common.host.home import lock_holder, process_of
from common.messages import operator as messages
from common.messages.refusals import Code
from common.net.codec import SIGNATURE, pack
from common.net.sockets import Private, make_socket

SILENCE_S = 60.0  # a tracker with a slow disk may take long for a change
TURN_MS = 100
REQUEST_ID = b"operator"

A = TypeVar("A", bound=messages.Answer)
_decoder: msgspec.msgpack.Decoder[messages.Answer] = msgspec.msgpack.Decoder(messages.Answer)


class NoTrackerRunning(MiniTorrentError):
    """No tracker runs for this home."""

    exit_code = 3
    code = Code.NO_TRACKER


def holder_of(home: Path) -> int:
    """Return the process id of the tracker of ``home``. Raise `NoTrackerRunning`."""
    pid = process_of(home, "run as that user")
    if pid is None:
        raise NoTrackerRunning(f"no tracker runs for {home}", tracker_hint("start it", "start"))
    return pid


def request(
    home: Path, question: messages.Command, answer: type[A], silence_s: float = SILENCE_S
) -> A:
    """Return the answer of the tracker of ``home``. Raise `Refused`, `NoTrackerRunning`."""
    pid = holder_of(home)
    context: zmq.Context[Any] = zmq.Context(io_threads=1)
    socket = make_socket(context, zmq.DEALER, Private(), message_bytes_max=limits.CONTROL_BYTES_MAX)
    try:
        socket.connect(find_endpoint(home))
        socket.send_multipart(pack(REQUEST_ID, question))
        began = monotonic()
        while not socket.poll(TURN_MS):
            if lock_holder(home) != pid:
                raise NoTrackerRunning(
                    f"the tracker of {home} has ended", tracker_hint("start it again", "start")
                )
            if monotonic() - began > silence_s:
                raise Refused(
                    Code.BUSY,
                    f"the tracker (PID {pid}) does not answer",
                    shell_hint("end it, then start it again", "kill", str(pid)),
                )
        found = _read(socket.recv_multipart(zmq.DONTWAIT))
    finally:
        socket.close(linger=0)
        context.term()
    if isinstance(found, messages.Failed):
        raise Refused(found.code, found.message, found.hint)
    if not isinstance(found, answer):
        raise _other_release()
    return found


def _read(frames: list[bytes]) -> messages.Answer:
    if len(frames) != 3 or frames[0] != SIGNATURE or frames[1] != REQUEST_ID:
        raise _other_release()
    try:
        return _decoder.decode(frames[2])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise _other_release() from None


def _other_release() -> Refused:
    return Refused(
        Code.VERSION,
        "the running tracker and this command are of different releases",
        tracker_hint("restart it: stop it, then start it", "stop"),
    )
