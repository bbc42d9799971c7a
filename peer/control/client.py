"""Client of the control socket, for the command line.

Owns `ControlClient`, which sends one command at a time and never waits
for a peer that does not run. Why no asyncio: a command line must answer at once. Not here: the
peer's end (see peer.control.server), the place of the socket (see common.host.control_socket).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, TypeAlias

import msgspec
import zmq

from common import limits
from common.errors import ConfigError, NoPeerRunning, Refused
from common.hints import hint, shell_hint
from common.host.control_socket import find_endpoint
from common.host.home import lock_holder, process_of
from common.messages import control
from common.names import quoted
from common.net.codec import SIGNATURE, pack
from common.net.sockets import Private, make_socket

SILENCE_S = 20.0  # without a message a peer is taken for frozen; it sends one every 2 s
SILENCE_TOLD_S = 3.0  # after this silence the user is told of the wait
HELLO_S = 1.5  # a peer of an older release may not answer an unknown message
TURN_MS = 200
FAREWELL_S = 1.0
GREETING = b"greeting"  # a request id that no command has
OLDEST = "0.1.0 or older"  # releases that do not name themselves

Ended: TypeAlias = (
    control.Failed
    | control.Done
    | control.Welcome
    | control.NeedsConsent
    | control.DoneAll
    | control.Begun
    | control.PageOpened
    | control.StatusIs
    | control.Groups
    | control.Users
    | control.Invited
    | control.Invites
    | control.Redeemed
    | control.Devices
    | control.Files
    | control.ShareInfo
    | control.Downloads
    | control.LimitsAre
    | control.ShareRows
    | control.SourceRows
    | control.PieceMapIs
    | control.QrCodeIs
    | control.SpaceIs
    | control.MetricsAre
    | control.FilePart
    | control.Checks
    | control.Verified
    | control.Holders
    | control.Copies
    | control.Follows
    | control.Uploaded
    | control.Planned
    | control.Downloaded
)
"""The result of a command."""

Message: TypeAlias = Ended | control.Progress | control.Happened

_decoder: msgspec.msgpack.Decoder[control.Answer] = msgspec.msgpack.Decoder(control.Answer)


class CommandFailed(Refused):
    """The peer refused a command, or failed at it."""

    def __init__(self, failed: control.Failed) -> None:
        super().__init__(failed.code, failed.message, failed.hint)
        self._exit_code = failed.exit_code

    @property
    def exit_status(self) -> int:
        return self._exit_code


class OtherRelease(NoPeerRunning):
    """The running peer is of another release than this command line."""

    def __init__(self, home: Path, release: str) -> None:
        super().__init__(
            f"the peer of {home} runs version {release}, this command line another one",
            hint("restart it", "down", then=("up",)),
        )


class Stopped(Exception):
    """The caller stopped the client from another thread."""


# -- asking -------------------------------------------------------------------------------------


class ControlClient:
    """Connection to the running peer of ``home``.

    Raises `NoPeerRunning` if none runs, if it ends meanwhile, and if it is frozen.
    """

    def __init__(self, home: Path, on_silence: Callable[[], None] | None = None) -> None:
        self._home = home
        self._on_silence = on_silence
        self._pid = holder_of(home)
        self._context: zmq.Context[Any] = zmq.Context(io_threads=1)
        self._socket = make_socket(
            self._context,
            zmq.DEALER,
            Private(),
            message_bytes_max=limits.CONTROL_BYTES_MAX,
        )
        self._socket.connect(find_endpoint(home))
        self._asked = 0
        self._known = False
        self._stopped = False

    def stop(self) -> None:
        """Make what is asked now, or later, raise `Stopped` soon. For another thread."""
        self._stopped = True

    def request(self, command: control.Command, *, stop_work: bool = False) -> Generator[Message]:
        """Iterate over the peer's messages about ``command``; the last one is the result.

        Leaving the iterator early, by an exception or Ctrl-C, hangs up: the peer stops waiting,
        and with ``stop_work`` it also cancels the work.
        """
        if not self._known and not isinstance(command, control.Down):
            self._greet()  # `down` ends a peer of any release
        self._asked += 1
        request_id = self._asked.to_bytes(limits.REQUEST_ID_BYTES, "big")
        self._socket.send_multipart(_packed(request_id, command))
        ended = False
        try:
            while not ended:
                message = self._next(request_id)
                ended = not isinstance(message, control.Progress | control.Happened)
                yield message
        except NoPeerRunning:
            ended = True
            raise
        finally:
            if not ended:
                self._hang_up(request_id, stop_work)

    def _greet(self) -> None:
        """Raise `OtherRelease` unless the peer has the same messages."""
        self._socket.send_multipart(pack(GREETING, control.Hello()))
        began = monotonic()
        answer = None
        while answer is None and monotonic() - began < HELLO_S:
            if self._socket.poll(TURN_MS):
                answer = self._receive(GREETING)
            else:
                self._check_alive(0.0)
        if answer is None:
            self._probe()
            return
        if not isinstance(answer, control.Welcome):
            raise OtherRelease(self._home, OLDEST)
        if answer.form != control.FORM:
            raise OtherRelease(self._home, answer.release)
        self._known = True

    def _probe(self) -> None:
        """Tell an old release from a frozen peer, after a greeting without an answer.

        Why: an old release answers only commands that it knows; a frozen peer answers none."""
        self._socket.send_multipart(pack(GREETING, control.Status()))
        received_at = monotonic()
        while True:
            if not self._socket.poll(TURN_MS):
                self._check_alive(monotonic() - received_at)
                continue
            answer = self._receive(GREETING)
            if isinstance(answer, control.Welcome) and answer.form == control.FORM:
                self._known = True
                return
            if answer is not None:
                raise OtherRelease(self._home, OLDEST)

    def result(self, command: control.Command) -> Ended:
        """Return the result. Raises `CommandFailed` if the peer refused or failed."""
        for message in self.request(command):
            if isinstance(message, control.Failed):
                raise CommandFailed(message)
            if not isinstance(message, control.Progress | control.Happened):
                return message
        raise NoPeerRunning(f"the peer of {self._home} sent no answer")

    def _next(self, request_id: bytes) -> Message:
        received_at = monotonic()
        while not self._stopped:
            if self._socket.poll(TURN_MS):
                message = self._receive(request_id)
                received_at = monotonic()
                if message is not None and not isinstance(message, control.Alive):
                    return message
            else:
                self._check_alive(monotonic() - received_at)
        raise Stopped

    def _receive(self, request_id: bytes) -> control.Answer | None:
        frames = self._socket.recv_multipart(zmq.DONTWAIT)
        if len(frames) < 2 or frames[1] != request_id:
            return None
        if len(frames) != 3 or frames[0] != SIGNATURE:
            raise OtherRelease(self._home, OLDEST)
        try:
            return _decoder.decode(frames[2])
        except (msgspec.MsgspecError, UnicodeDecodeError):
            if self._known:
                raise
            raise OtherRelease(self._home, OLDEST) from None

    def _check_alive(self, silent_s: float) -> None:
        if lock_holder(self._home) != self._pid:
            raise NoPeerRunning(
                f"the peer of {self._home} has ended",
                hint(f"its log {self._home / 'peer.log'} may say why; start it again", "up"),
            )
        if silent_s > SILENCE_TOLD_S and self._on_silence is not None:
            told, self._on_silence = self._on_silence, None
            told()
        if silent_s > SILENCE_S:
            raise NoPeerRunning(
                f"the peer of {self._home} (PID {self._pid}) does not answer",
                shell_hint("end it, then start it again with `up`", "kill", str(self._pid)),
            )

    def _hang_up(self, request_id: bytes, stop_work: bool) -> None:
        """Hang up and wait for the answer. Why: closing a socket drops unsent messages."""
        try:
            self._socket.send_multipart(
                pack(request_id, control.HangUp(stop_work=stop_work)), zmq.DONTWAIT
            )
            deadline = monotonic() + FAREWELL_S
            while (left_s := deadline - monotonic()) > 0 and self._socket.poll(int(left_s * 1e3)):
                message = self._receive(request_id)
                if not isinstance(
                    message, control.Progress | control.Happened | control.Alive | None
                ):
                    return
        except (zmq.ZMQError, NoPeerRunning):
            return

    def close(self) -> None:
        """Close the connection. Never waits."""
        self._socket.close(linger=0)
        self._context.term()

    def __enter__(self) -> ControlClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _packed(request_id: bytes, command: control.Command) -> list[Any]:
    try:
        return pack(request_id, command)
    except UnicodeEncodeError as error:
        # A path whose bytes are not UTF-8, as the shell passes it.
        raise ConfigError(
            f"the name is not valid UTF-8: {quoted(str(error.object))}",
            shell_hint("rename the file", "mv", str(error.object), "NAME"),
        ) from error


def holder_of(home: Path) -> int:
    """The process id of the peer that runs for ``home``; raises `NoPeerRunning`."""
    pid = process_of(home, "choose another --home")
    if pid is None:
        raise NoPeerRunning(f"no peer runs for {home}", hint("start it", "up"))
    return pid
