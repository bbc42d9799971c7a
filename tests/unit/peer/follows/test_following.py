"""Memory of one follow of a group in which names come and go."""

from __future__ import annotations

import asyncio
import random
from types import SimpleNamespace
from typing import Any, cast

import pytest

from common import limits
from common.errors import TransportError
from common.messages import events
from peer.follows import following
from peer.follows.following import Following, FollowServices
from peer.follows.records import FollowRecord


def _following() -> Following:
    none_of = SimpleNamespace(
        all=list, active=dict, records_in=lambda group: (), marks={}, settle=None
    )
    services = FollowServices(
        link=cast(Any, none_of),
        shares=cast(Any, none_of),
        downloads=cast(Any, none_of),
        workers=cast(Any, none_of),
        records=cast(Any, none_of),
        manifests=cast(Any, none_of),
        notify=lambda text: None,
        followers=lambda group: 0,
        rng=random.Random(1),
    )
    record = FollowRecord(
        user="alice",
        group="lab",
        path=b"/nowhere",
        folder=cast(Any, None),
        globs=[],
        keep_versions=0,
        topic=b"t" * 16,
        since_ms=0,
    )
    return Following(record, services, list)


def _shared(name: str) -> events.Shared:
    return events.Shared("bob", name, name.encode().ljust(32), 1, 1, "blake3", b"d" * 32, 1)


def test_h145_names_that_come_and_go_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000.0
    monkeypatch.setattr(following, "monotonic", lambda: now)

    async def scenario() -> None:
        nonlocal now
        follow = _following()
        for number in range(100):
            share = _shared(f"{number}")
            follow.entry(share)
            follow._pause(share.name, follow.listed[share.name], following.Away("no disk"))
            follow.entry(events.Unshared("bob", share.name, share.content, 1))
        facts = await follow._facts()
        assert facts.listed == {}
        now += following.PAUSE_MAX_S
        await follow._facts()
        assert not follow._gone
        assert not follow._pauses

    asyncio.run(scenario())


def test_h145_a_tracker_cannot_list_without_end_by_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SHARES_PER_GROUP_MAX", 3)

    async def scenario() -> None:
        follow = _following()
        for number in range(10):
            follow.entry(_shared(f"{number}"))
        assert set(follow.listed) == {"0", "1", "2"}
        follow.entry(events.Unshared("bob", "1", b"c" * 32, 1))
        follow.entry(_shared("new"))
        assert set(follow.listed) == {"0", "2", "new"}

    asyncio.run(scenario())


def test_h145_a_busy_group_does_not_keep_a_follow_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """The work of a look is followed by a pause of many times its length, whatever happens."""
    clock, pauses = 0.0, list[float]()

    async def scenario() -> None:
        follow = _following()
        follow._known = True

        async def step() -> None:
            nonlocal clock
            follow._review.set()  # something happens all the time
            await follow._plan_anew()

        def long_work(facts: Any) -> following.Plan:
            nonlocal clock
            clock += 0.25
            return following.Plan((), ())

        async def sleep(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 3:
                follow.cancel()

        monkeypatch.setattr(following, "monotonic", lambda: clock)
        monkeypatch.setattr(following.plan, "plan", long_work)
        monkeypatch.setattr(following.asyncio, "sleep", sleep)
        monkeypatch.setattr(follow, "_step", step)
        await follow._run()

    asyncio.run(scenario())
    assert pauses == [2.5, 2.5, 2.5]


def test_a_cancelled_download_is_not_begun_before_that_is_on_record() -> None:
    """A look that saw neither the download nor the record begins nothing."""
    begun: list[str] = []

    async def scenario() -> None:
        follow, written = _following(), asyncio.Event()
        services = cast(Any, follow._services)

        async def mark(record: Any) -> None:
            await written.wait()
            services.records.marks[follow.record.key] = {record.name: record}

        async def begin(group: str, name: str, *rest: Any) -> None:
            begun.append(name)
            raise TransportError("this is far enough")

        services.records.mark, services.downloads.begin = mark, begin
        share = following.Listed("film", 1, b"c" * 32)
        recording = asyncio.ensure_future(follow.dismiss("film", 1, b"c" * 32))
        await follow._fetch(share, "/nowhere/film")
        written.set()
        await recording
        await follow._fetch(share, "/nowhere/film")
        assert not begun
        with pytest.raises(TransportError):
            await follow._fetch(following.Listed("film", 2, b"d" * 32), "/nowhere/film")
        assert begun == ["film"]

    asyncio.run(scenario())
