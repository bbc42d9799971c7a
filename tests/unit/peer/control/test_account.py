"""Commands about devices and passwords: ids, rows and result texts."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from common.crypto.keys import key_text
from common.errors import Refused
from common.ids import DeviceKey
from common.messages import control, tracker
from common.messages.refusals import Code
from peer.control import account
from peer.control.account import Account, find_device
from peer.control.views import device_rows
from tests.support.peer_fakes import FakeLink

OWN = DeviceKey(b"\x3f\x0c\x0c" + bytes(29))
PHONE = DeviceKey(b"\x3f\x0c\x0d" + bytes(29))
LAPTOP = DeviceKey(b"\xfb\xff" + bytes(30))
ALL = [OWN, PHONE, LAPTOP]
ROWS = [
    tracker.OwnDevice(OWN, 1_000, 9_000, True, "tcp://192.0.2.7:7000"),
    tracker.OwnDevice(PHONE, 2_000, 3_000, False, None),
]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("3f0c0c", OWN),
        ("3F0C0D0", PHONE),
        ("fbff", LAPTOP),
        (LAPTOP.hex(), LAPTOP),
        (key_text(LAPTOP), LAPTOP),
    ],
)
def test_a_device_is_named_by_its_beginning_or_by_its_whole_key(typed: str, meant: bytes) -> None:
    assert find_device(typed, ALL) == meant


@pytest.mark.parametrize(
    ("typed", "code", "words"),
    [
        ("3f0c", Code.USAGE, "2 of your devices begin with"),
        ("fbf", Code.USAGE, "too short"),
        ("aaaa", Code.UNKNOWN_DEVICE, "not logged in on a device"),
        ("", Code.UNKNOWN_DEVICE, "not logged in on a device"),
        ("lost laptop", Code.UNKNOWN_DEVICE, "not logged in on a device"),
        (key_text(OWN)[:20], Code.UNKNOWN_DEVICE, "not logged in on a device"),
        ("f" * 65, Code.UNKNOWN_DEVICE, "not logged in on a device"),
        ("\x1b[2J", Code.UNKNOWN_DEVICE, "not logged in on a device"),
    ],
)
def test_an_id_of_no_device_or_several_is_refused(typed: str, code: Code, words: str) -> None:
    with pytest.raises(Refused, match=words) as caught:
        find_device(typed, ALL)
    assert caught.value.code is code
    assert "\x1b" not in caught.value.message


def test_ids_are_long_enough_to_be_distinct() -> None:
    twin = DeviceKey(OWN[:5] + b"\x01" + bytes(26))
    rows = device_rows([tracker.OwnDevice(key, 1, 1) for key in (OWN, twin, LAPTOP)], OWN)
    assert sorted(row.id for row in rows) == ["3f0c0c000000", "3f0c0c000001", "fbff00000000"]
    rows = device_rows(ROWS, OWN)
    assert [(row.id, row.this, row.online) for row in rows] == [
        ("3f0c0c00", True, True),
        ("3f0c0d00", False, False),
    ]
    assert (rows[0].address, rows[1].address) == ("tcp://192.0.2.7:7000", None)
    assert rows[1].seen == "1970-01-01T00:00:03.000Z"


class Session:
    user = "alice"

    def replaced_by(self, user: str) -> str | None:
        return "bob is logged in here" if user == "replacing" else None

    """Counts how often a session was ended."""

    ended = 0

    async def end(self) -> None:
        self.ended += 1


def handled(command: Any, **answers: Any) -> tuple[control.Answer, FakeLink, Session]:
    link, session = FakeLink(ListDevices=tracker.OwnDevices(ROWS), **answers), Session()
    asked = Account(OWN, link, session)  # type: ignore[arg-type]
    return asyncio.run(asked.handle(command)), link, session


@pytest.mark.parametrize(
    ("reply", "keep", "text", "count"),
    [
        (tracker.PasswordChanged(0), False, "no other device was logged in", 0),
        (tracker.PasswordChanged(1), False, "1 other device was logged out", 1),
        (tracker.PasswordChanged(2), False, "2 other devices were logged out", 2),
        (tracker.PasswordChanged(0), True, "your other devices stay logged in", 0),
        (tracker.Done(), False, "your other devices were logged out", None),
    ],
)
def test_the_result_of_a_password_change_is_reported(
    reply: Any, keep: bool, text: str, count: int | None
) -> None:
    command = control.ChangePassword("old", "new password", keep)
    answer, link, _ = handled(command, ChangePassword=reply)
    assert answer == control.Done(
        f"password changed; {text}", {"user": "alice", "logged_out": count}
    )
    assert link.asked == [tracker.ChangePassword("old", "new password", keep)]


@pytest.mark.parametrize(
    "command",
    [
        control.ChangePassword("x" * 1025, "new password"),
        control.ChangePassword("old", "x" * 1025),
        control.Login("alice", "x" * 1025),
        control.CreateUser("alice", "x" * 1025),
    ],
)
def test_a_password_that_no_tracker_reads_is_not_sent(command: Any) -> None:
    with pytest.raises(Refused, match="at most 1,024 characters") as caught:
        handled(command)
    assert caught.value.code is Code.USAGE


@pytest.mark.parametrize("password", ["", "x", "hello", "пять5"])
def test_a_new_password_that_is_too_short_is_not_sent(password: str) -> None:
    for command in (control.CreateUser("alice", password), control.ChangePassword("old", password)):
        with pytest.raises(Refused, match="at least 6 characters") as caught:
            handled(command)
        assert caught.value.code is Code.USAGE


def test_a_login_waits_for_its_place_in_the_trackers_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a fleet that logs in at once two are hashed at a time; the others ask again."""
    monkeypatch.setattr(account, "PLACE_AGAIN_S", 0.001)
    busy = Refused(Code.BUSY, "too many logins at once")
    replies = [busy, busy, tracker.PasswordChanged(0)]
    command = control.ChangePassword("old password", "new password")
    _, link, _ = handled(command, ChangePassword=lambda _: replies.pop(0))
    assert len(link.asked) == 3
    monkeypatch.setattr(account, "PLACE_S", 0.0)
    with pytest.raises(Refused, match="too many"):
        handled(command, ChangePassword=busy)


def test_a_device_is_forgotten_by_its_whole_key_and_one_s_own_ends_the_session() -> None:
    answer, link, session = handled(control.ForgetDevice("3f0c0d"), ForgetDevice=tracker.Done())
    assert answer == control.Done(
        "device 3f0c0d00 is logged out",
        {"user": "alice", "id": "3f0c0d00", "device": key_text(PHONE)},
    )
    assert link.asked[-1] == tracker.ForgetDevice(PHONE)
    assert session.ended == 0
    answer, link, session = handled(control.ForgetDevice("3f0c0c"), ForgetDevice=tracker.Done())
    assert answer == control.Done(
        "logged out; this device no longer shares anything",
        {"user": "alice", "id": "3f0c0c00", "device": key_text(OWN)},
    )
    assert session.ended == 1


def test_a_login_that_ends_what_runs_is_asked_about_first() -> None:
    answer, link, _ = handled(control.Login("replacing", "pw"))
    assert answer == control.NeedsConsent("bob is logged in here")
    assert link.asked == []
