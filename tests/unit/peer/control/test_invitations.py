"""Invitations at the peer: the link for others, and answers of a tracker that lies."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from common.errors import IntegrityError, Refused, RemoteProtocolError
from common.ids import DeviceKey, UserId
from common.invitation import Invitation, id_of, key_of, parse_invitation
from common.link import Link, Tracker
from common.messages import control, tracker
from peer.control.invitations import InvitationCommands

KEY = DeviceKey(bytes(range(32)))
HERE = Tracker("tcp://127.0.0.1:5000", KEY)


class FakeLink:
    """A link to a tracker at ``where`` that gives prepared replies."""

    def __init__(self, where: Tracker, reply: Any) -> None:
        self.where = where
        self.known = Link((where.endpoint,), where.key)
        self.asked: list[Any] = []
        self._reply = reply

    async def reachable(self) -> None:
        pass

    async def request(self, command: Any, answer: Any) -> Any:
        self.asked.append(command)
        return self._reply(command)


class FakeAccount:
    """Logs in by an invitation."""

    def __init__(self, link: FakeLink) -> None:
        self._link = link
        self.entered_as: list[str] = []

    async def request_with_retry(self, command: Any, answer: Any) -> Any:
        return await self._link.request(command, answer)

    async def entered(self, user: str) -> None:
        self.entered_as.append(user)


async def _synced() -> None:
    pass


def run(command: Any, reply: Any, where: Tracker = HERE, user: str | None = "alice") -> Any:
    link = FakeLink(where, reply)
    account = FakeAccount(link)
    replica = SimpleNamespace(user=None if user is None else UserId(user), sync=_synced)
    commands = InvitationCommands(link, replica, account)  # type: ignore[arg-type]
    answer = asyncio.run(commands.handle(command))
    return SimpleNamespace(answer=answer, link=link, account=account)


def made(command: tracker.Invite, endpoint: str = "tcp://192.0.2.7:5000") -> tracker.Invited:
    row = tracker.InvitationRow(id_of(command.key), "alice", 1, 2, command.uses, 0)
    return tracker.Invited(row, endpoint)


@pytest.mark.parametrize(
    ("known", "claimed", "link_names", "local"),
    [
        ("tcp://127.0.0.1:5000", "tcp://192.0.2.7:5000", "192.0.2.7:5000", False),
        ("tcp://198.51.100.1:5000", "tcp://192.0.2.7:5000", "198.51.100.1:5000", False),
        ("tcp://127.0.0.1:5000", "tcp://127.0.0.1:5000", "127.0.0.1:5000", True),
        ("tcp://127.0.0.1:5000", "tcp://nonsense", "127.0.0.1:5000", True),
        ("tcp://127.0.0.1:5000", "ipc:///tmp/x", "127.0.0.1:5000", True),
    ],
)
def test_the_link_is_for_other_machines_where_that_is_known(
    known: str, claimed: str, link_names: str, local: bool
) -> None:
    where = Tracker(known, KEY)
    ran = run(control.Invite("lab"), lambda command: made(command, claimed), where)
    assert ran.answer.link.startswith(f"mini-torrent://{link_names}/")
    assert ran.answer.local is local
    invitation = parse_invitation(ran.answer.link)
    assert invitation.tracker.key == KEY, "no claim leads to another tracker"
    [asked] = ran.link.asked
    assert asked.key == key_of(invitation.proof)
    assert invitation.secret not in asked.key


@pytest.mark.parametrize("what", ["id", "uses"])
def test_another_invitation_than_the_one_asked_for_is_not_shown(what: str) -> None:
    def lies(command: tracker.Invite) -> tracker.Invited:
        row = made(command).row
        wrong = ("x" * 8, row.uses) if what == "id" else (row.id, 99)
        return tracker.Invited(
            tracker.InvitationRow(wrong[0], "alice", 1, 2, wrong[1], 0), HERE.endpoint
        )

    with pytest.raises(IntegrityError):
        run(control.Invite("lab"), lies)


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (tracker.Redeemed("lab", "mallory", "alice"), IntegrityError),
        (tracker.Redeemed("la\x1bb", "bob", "alice"), RemoteProtocolError),
        (tracker.Redeemed("lab", "bob", "al ice"), RemoteProtocolError),
    ],
)
def test_a_false_reply_to_a_join_logs_no_user_in(
    reply: tracker.Redeemed, error: type[Exception]
) -> None:
    link = Invitation(Link((HERE.endpoint,), KEY), bytes(18)).link
    with pytest.raises(error):
        run(control.Redeem(link, "bob", "password"), lambda _: reply, user=None)


def test_h116_a_proof_is_sent_to_the_tracker_of_the_link_alone() -> None:
    elsewhere = Invitation(Link((HERE.endpoint,), DeviceKey(b"x" * 32)), bytes(18))
    sent: list[Any] = []
    with pytest.raises(Refused, match="another tracker"):
        run(control.Redeem(elsewhere.link), sent.append)
    assert sent == []


@pytest.mark.parametrize(
    "command",
    [
        control.Invite("lab", 0),
        control.Invite("lab", 1 << 40),
        control.Invite("lab", 1, 0),
        control.Invite("lab", 1, 1 << 40),
        control.RevokeInvite("lab", ""),
        control.RevokeInvite("lab", "x" * 500),
    ],
)
def test_values_out_of_bounds_are_not_sent(command: Any) -> None:
    sent: list[Any] = []
    with pytest.raises(Refused):
        run(command, sent.append)
    assert sent == []
