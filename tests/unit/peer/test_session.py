"""Session: order of activation and deactivation at login, logout and the tracker's return."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from common.errors import Refused, TransportError
from common.ids import GroupId, UserId
from common.messages import events
from common.messages.refusals import Code
from peer import session as module
from peer.session import Session
from tests.support.peer_fakes import turns, until

ALICE = UserId("alice")
FILMS = GroupId("films")


class Recorder:
    """A part of a peer that keeps what is done to it; ``fails`` names what raises once."""

    def __init__(self, name: str, log: list[str], fails: dict[str, Exception]) -> None:
        self._name, self._log, self._fails = name, log, fails

    def __getattr__(self, verb: str) -> Any:
        what = f"{self._name}.{verb}"

        class Call:
            def __await__(self) -> Any:
                yield from asyncio.sleep(0).__await__()
                if (error := recorder._fails.pop(what, None)) is not None:
                    raise error

        recorder = self

        def call(*words: Any) -> Call:
            self._log.append(what)
            return Call()

        return call


class Stage:
    """A session amid parts that only remember."""

    def __init__(self, user: UserId | None = None) -> None:
        self.log: list[str] = []
        self.fails: dict[str, Exception] = {}
        self.replica = SimpleNamespace(
            user=user, known=True, set_user=self._set_user, sync=self._sync
        )
        names = ("lease", "tickets", "shares", "downloads", "server", "follows")
        parts = {name: Recorder(name, self.log, self.fails) for name in names}
        self.session = Session(self.replica, **parts)  # type: ignore[arg-type]

    def _set_user(self, user: UserId | None) -> None:
        self.replica.user = user

    async def _sync(self) -> None:
        self.log.append("replica.sync")

    async def ends(self, last: str) -> list[str]:
        await until(lambda: last in self.log, last)
        await self.session.wait_ready(10.0)
        return self.log


ACTIVATION = [
    "replica.sync",
    "lease.announce",
    "shares.activate",
    "downloads.activate",
    "downloads.link_up",
    "shares.reconcile",
    "follows.activate",
]
DEACTIVATION = ["follows.deactivate", "shares.deactivate", "downloads.deactivate", "tickets.clear"]


async def test_a_login_brings_everything_back_in_order() -> None:
    stage = Stage()
    await stage.session.begin(ALICE)
    assert stage.log == ["tickets.clear", *ACTIVATION]


async def test_the_trackers_return_activates_everything_and_listings_wait_for_it() -> None:
    stage = Stage(ALICE)
    stage.session.link_up()
    assert stage.log == []
    await stage.session.wait_ready(10.0)
    assert stage.log == ACTIVATION


async def test_a_listing_does_not_wait_for_ever() -> None:
    stage = Stage(ALICE)
    stage.replica.sync = asyncio.Event().wait
    stage.session.link_up()
    await stage.session.wait_ready(0.01)
    stage.session.close()


async def test_a_link_without_a_user_ends_everything() -> None:
    stage = Stage(None)
    stage.session.link_up()
    log = await stage.ends("tickets.clear")
    assert log == DEACTIVATION


async def test_a_refusal_for_now_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    stage = Stage(ALICE)
    stage.fails["lease.announce"] = Refused(Code.BUSY, "too many at once")
    stage.session.link_up()
    await stage.session.wait_ready(10.0)
    assert stage.log == [*ACTIVATION[:2], *ACTIVATION]


async def test_a_lost_link_is_left_to_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.0)
    stage = Stage(ALICE)
    stage.fails["lease.announce"] = TransportError("away")
    stage.session.link_up()
    await stage.session.wait_ready(10.0)
    assert stage.log == ACTIVATION[:2]
    stage.session.link_up()
    await stage.session.wait_ready(10.0)
    assert stage.log == [*ACTIVATION[:2], *ACTIVATION]


async def test_a_logout_during_the_return_wins() -> None:
    stage = Stage(ALICE)
    stage.session.link_up()
    await stage.session.end()
    await stage.session.wait_ready(10.0)
    assert stage.log[-4:] == DEACTIVATION
    assert "shares.activate" not in stage.log[-3:]


async def test_a_login_that_is_refused_a_part_for_now_gets_it_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    stage = Stage()
    stage.fails["lease.announce"] = Refused(Code.BUSY, "too many at once")
    await stage.session.begin(ALICE)
    assert stage.log == ["tickets.clear", *ACTIVATION[:2], *ACTIVATION]


async def test_a_login_goes_on_after_its_caller_is_gone() -> None:
    stage = Stage()
    told = asyncio.Event()
    stage.replica.sync = told.wait
    asking = asyncio.create_task(stage.session.begin(ALICE))
    await turns()
    asking.cancel()
    told.set()
    await stage.ends("shares.reconcile")
    assert asking.cancelled()
    assert stage.log == ["tickets.clear", *ACTIVATION[1:]]


@pytest.mark.parametrize("known", [False, True])
async def test_a_change_of_groups_after_a_logout_is_ignored(known: bool) -> None:
    stage = Stage(ALICE)
    stage.session.groups_changed()
    stage.replica.user = ALICE if not known else None
    stage.replica.known = known
    await turns()
    assert stage.log == []
    stage.replica.user, stage.replica.known = ALICE, True
    stage.session.groups_changed()
    await turns()
    assert stage.log == [
        "follows.groups_changed",
        "downloads.groups_changed",
        "shares.groups_changed",
    ]


@pytest.mark.parametrize("farewell", [events.Left, events.Removed])
async def test_a_leaving_user_is_no_longer_served(farewell: Any) -> None:
    stage = Stage(ALICE)
    stage.session.entry(events.LogEntry("films", 1, 1, 2, farewell("Bob", 2)))
    assert stage.log == ["follows.entry", "server.drop_user"]
    stage.session.entry(events.LogEntry("films", 2, 1, 3, farewell("Alice", 3)))
    log = await stage.ends("shares.left_group")
    assert log[3:] == ["server.drop_user", "tickets.drop", "shares.left_group"]
    stage.session.entry(events.LogEntry("films", 3, 1, 3, events.Joined("carol")))
    assert stage.log[6:] == ["follows.entry"]


async def test_a_logged_out_device_is_no_longer_served() -> None:
    stage = Stage(ALICE)
    stage.session.entry(events.LogEntry("films", 1, 1, 2, events.Device("Bob", b"d" * 32, True)))
    assert stage.log == ["follows.entry"]
    stage.session.entry(events.LogEntry("films", 2, 1, 2, events.Device("Bob", b"d" * 32, False)))
    assert stage.log[1:] == ["follows.entry", "server.drop_user"]


async def test_a_logout_from_elsewhere_ends_everything() -> None:
    stage = Stage(ALICE)
    stage.session.logged_out("no user is logged in on this device")
    stage.replica.user = None
    assert stage.session.logout_notice == "alice was logged out of this device, from elsewhere"
    log = await stage.ends("tickets.clear")
    assert log == DEACTIVATION


async def test_a_login_right_after_a_logout_from_elsewhere_wins() -> None:
    stage = Stage(ALICE)
    stage.session.logged_out("no user is logged in on this device")
    stage.replica.user = None
    await stage.session.begin(ALICE)
    await turns()
    assert stage.session.logout_notice is None
    assert stage.log == ["tickets.clear", *ACTIVATION]


async def test_a_logout_with_a_lost_reply_counts_as_done_here() -> None:
    stage = Stage(ALICE)
    # A new connection, on which the tracker says that no user is logged in …
    stage.session.logged_out("no user is logged in on this device")
    stage.replica.user = None
    stage.session.link_up()
    await stage.ends("tickets.clear")
    assert stage.session.logout_notice is not None
    # … and then the answer to the logout, which was asked again.
    await stage.session.end()
    assert stage.session.logout_notice is None


async def test_leaving_a_group_voluntarily() -> None:
    stage = Stage(ALICE)
    await stage.session.left_group(FILMS)
    assert stage.log == ["tickets.drop", "shares.left_group"]
