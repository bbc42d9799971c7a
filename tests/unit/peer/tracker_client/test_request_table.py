"""Request table: ids, matching of replies, repetition and failure, without a socket."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import zmq

from common.errors import Refused, RemoteProtocolError, TransportError
from common.messages import tracker
from common.messages.base import Refusal
from common.messages.refusals import Code
from common.net.codec import MAGIC, VERSION, VersionMismatch, pack
from common.net.pump import Sent
from peer.tracker_client.request_table import RequestTable


class Wire:
    """Connection of a table: it records sent frames, and ``outcome`` is that of each send."""

    def __init__(self) -> None:
        self.sent: list[list[Any]] = []
        self.outcome: Sent | None = Sent.YES
        self.table = RequestTable(self.send, lambda: TransportError("unreachable"), 7)

    def send(self, frames: list[Any]) -> Sent | None:
        if self.outcome is Sent.YES:
            self.sent.append(frames)
        return self.outcome

    def ids(self) -> list[bytes]:
        return [frames[1] for frames in self.sent]

    def reply(self, at: int, reply: Any, data: bytes | None = None) -> None:
        self.receive(pack(self.sent[at][1], reply, data))

    def receive(self, frames: list[bytes]) -> None:
        self.table.on_reply([zmq.Frame(frame) for frame in frames])

    def request(self, command: Any, answer: Any = tracker.Done, timeout_s: float = 60.0) -> Any:
        return asyncio.ensure_future(self.table.request(command, answer, None, timeout_s))


@pytest.fixture
def wire() -> Wire:
    return Wire()


async def started() -> None:
    await asyncio.sleep(0)


async def test_replies_in_another_order_reach_their_requests(wire: Wire) -> None:
    first = wire.request(tracker.Login("bob", "secret"), tracker.LoggedIn)
    other = wire.request(tracker.Login("eve", "secret"), tracker.LoggedIn)
    await started()
    wire.reply(1, tracker.LoggedIn("eve"))
    wire.reply(0, tracker.LoggedIn("bob"))
    assert (await first).reply == tracker.LoggedIn("bob")
    assert (await other).reply == tracker.LoggedIn("eve")
    assert wire.table.pending() == []


async def test_the_data_frame_comes_with_the_reply(wire: Wire) -> None:
    asked = wire.request(
        tracker.GetManifest("films", bytes(32)), (tracker.ManifestPart, tracker.Done)
    )
    await started()
    wire.reply(0, tracker.ManifestPart(4, 0), b"data")
    assert (await asked).data == b"data"


async def test_a_refusal_and_an_unexpected_reply_are_raised(wire: Wire) -> None:
    refused, confused = wire.request(tracker.Depart()), wire.request(tracker.Depart())
    await started()
    wire.reply(0, Refusal(Code.TAKEN, "taken", "choose another"))
    wire.reply(1, tracker.LoggedIn("bob"))
    with pytest.raises(Refused) as caught:
        await refused
    assert (caught.value.code, caught.value.hint) == (Code.TAKEN, "choose another")
    with pytest.raises(RemoteProtocolError, match="answered Depart with LoggedIn"):
        await confused


async def test_without_a_connection_a_request_waits_and_is_sent_again_under_its_id(
    wire: Wire,
) -> None:
    wire.outcome = None
    asked = wire.request(tracker.Depart())
    await started()
    assert wire.sent == []
    wire.outcome = Sent.YES
    wire.table.resend()
    wire.table.resend()
    assert len(set(wire.ids())) == 1
    wire.reply(0, tracker.Done())
    wire.reply(1, tracker.Done())  # a second reply to the same request is ignored
    assert (await asked).reply == tracker.Done()


@pytest.mark.parametrize("outcome", [Sent.FULL, Sent.GONE])
async def test_a_request_that_cannot_be_sent_fails_at_once(wire: Wire, outcome: Sent) -> None:
    wire.outcome = outcome
    with pytest.raises(TransportError, match="unreachable"):
        await wire.request(tracker.Depart())
    assert wire.table.pending() == []


async def test_only_the_given_requests_fail(wire: Wire) -> None:
    lost = wire.request(tracker.Depart())
    await started()
    before = wire.table.pending()
    later = wire.request(tracker.Depart())
    await started()
    wire.table.fail(before)
    with pytest.raises(TransportError):
        await lost
    wire.reply(1, tracker.Done())
    assert (await later).reply == tracker.Done()
    wire.table.fail(before)  # a request that has ended stays so


async def test_a_timeout_leaves_no_pending_request(wire: Wire) -> None:
    with pytest.raises(TimeoutError):
        await wire.request(tracker.Depart(), timeout_s=0.001)
    assert wire.table.pending() == []
    wire.reply(0, tracker.Done())  # too late: ignored


async def test_a_malformed_reply_fails_its_request_and_no_other(wire: Wire) -> None:
    damaged, other = wire.request(tracker.Depart()), wire.request(tracker.Depart())
    await started()
    wire.receive([wire.sent[0][0], wire.sent[0][1], b"\xc1"])
    wire.receive([b"no message"])
    with pytest.raises(RemoteProtocolError, match="cannot be read") as caught:
        await damaged
    assert caught.value.hint == "what was asked may have been done"
    wire.reply(1, tracker.Done())
    assert (await other).reply == tracker.Done()


async def test_a_reply_in_another_version_is_raised_as_such(wire: Wire) -> None:
    asked = wire.request(tracker.Depart())
    await started()
    _, request_id, body = pack(wire.sent[0][1], tracker.Done())
    wire.receive([MAGIC + bytes([VERSION + 1]), request_id, body])
    with pytest.raises(VersionMismatch):
        await asked
