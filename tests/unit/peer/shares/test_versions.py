"""Versions of a name on one device, beside the core of a real tracker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from common import manifest
from common.errors import Refused
from common.ids import ContentId, GroupId, UserId
from common.messages import control, events, tracker
from common.messages.base import Refusal
from common.messages.refusals import Code
from common.names import BadName
from peer.files.open_files import HandleCache
from peer.records import Manifests, Records, ShareRecord
from peer.serving.inventory import Inventory
from peer.shares.manager import Shares, Upload
from peer.tracker_client.group_replica import GroupReplica
from peer.tracker_client.link import Answer
from peer.workers import Workers
from tests.support.peer_fakes import until
from tests.support.tracker_harness import TrackerHarness
from tracker.core import commands
from tracker.core.context import Caller, TakePart
from tracker.core.records import ManifestSummary

LAB = GroupId("lab")


class Link:
    """Connection of one device to the core of a tracker."""

    def __init__(self, harness: TrackerHarness, user: str, bodies: dict[bytes, bytes]) -> None:
        self.device = harness.user(user)
        self.bodies = bodies
        self.connected = True

    async def reachable(self) -> None:
        pass

    async def manifest_part(self, group: str, content: bytes, offset: int) -> Answer[Any]:
        part = self.device.asks(tracker.GetManifest(group, content, offset))
        body = self.bodies[part.content]
        return Answer(tracker.ManifestPart(len(body), 0), body)

    async def request(self, command: Any, _: Any, data: bytes | None = None) -> Any:
        await asyncio.sleep(0)
        reply = self.device.asks(command)
        if isinstance(reply, TakePart):
            assert data is not None
            self._gathered(reply, data)
            reply = tracker.Done()
        if isinstance(reply, Refusal):
            raise Refused(reply.code, reply.message, reply.hint)
        return reply

    def _gathered(self, part: TakePart, body: bytes) -> None:
        made = manifest.decode(body, part.content)
        self.bodies[part.content] = body
        summary = ManifestSummary(
            part.content,
            len(body),
            made.size,
            made.file_count,
            made.piece_count,
            made.piece_length,
            made.algorithm.value,
            made.digest,
            1,
        )
        gathered = commands.ManifestGathered(part.user, summary, body)
        self.device.harness.decide(Caller(self.device.key), gathered)


class Groups:
    """The groups of a user, as the replica shows them."""

    def __init__(self, user: str, owner: str) -> None:
        self.user: UserId | None = UserId(user)
        self.known = True
        view = type("View", (), {"owner": UserId(owner)})()
        self.groups = {LAB: view}
        self.pending: set[GroupId] = set()

    async def sync(self) -> None:
        pass

    def topic_of(self, _: GroupId) -> bytes:
        return b"topic"

    has_left = GroupReplica.has_left


class Place:
    """A device with its shares."""

    def __init__(
        self, harness: TrackerHarness, folder: Path, user: str, bodies: dict[bytes, bytes]
    ) -> None:
        self.folder, self.home = folder / user, folder / user / "home"
        self.home.mkdir(parents=True)
        (self.home / "shares").mkdir()
        self.link = Link(harness, user, bodies)
        self.user = UserId(user)
        self.replica = Groups(user, "carol")
        self.notices: list[str] = []
        self.start()

    def start(self) -> None:
        self.inventory = Inventory()
        self.workers = Workers(1, "test")
        self.shares = Shares(
            self.home,
            self.link,  # type: ignore[arg-type]
            self.replica,  # type: ignore[arg-type]
            self.inventory,
            self.workers,
            HandleCache(),
            Manifests(self.home / "manifests"),
            self.notices.append,
        )

    def end(self) -> None:
        self.shares.close()
        self.workers.close()

    async def upload(self, data: bytes, file: str = "data", **options: Any) -> Upload:
        path = self.folder / file
        path.write_bytes(data)
        command = control.UploadFile(str(path), LAB, **{"name": "data", **options})
        return await self.shares.upload(command, lambda _: None)

    def records(self) -> list[tuple[int, str]]:
        found = Records(self.home / "shares", ShareRecord).load().values()
        return sorted((record.version, Path(record.place.path).name) for record in found)

    def offers(self) -> list[int]:
        return [row.version for row in self.link.device.does(tracker.MyOffers()).rows]

    def serves(self, content: bytes) -> bool:
        return self.inventory.find(LAB, ContentId(content)) is not None


Lab = tuple[Place, Place, TrackerHarness]


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    """Alice, who shares, and bob, who is a member, at a tracker; carol owns the group."""
    harness, bodies = TrackerHarness(), dict[bytes, bytes]()
    alice, bob = (Place(harness, tmp_path, user, bodies) for user in ("alice", "bob"))
    harness.group(LAB, harness.user("carol"), alice.link.device, bob.link.device)
    for place in (alice, bob):
        await place.shares.activate(place.user)
    try:
        yield alice, bob, harness
    finally:
        alice.end()
        bob.end()


def withdrawn(harness: TrackerHarness) -> events.Withdrawn:
    event = harness.events_of(LAB)[-1]
    assert isinstance(event, events.Withdrawn)
    return event


async def test_a_changed_file_is_shared_again_with_one_command(tmp_path: Path, lab: Lab) -> None:
    """Its earlier state lay at the same path, so that version has no offer of this device left."""
    alice, bob, _ = lab
    first = await alice.upload(b"one" * 9000)
    await bob.upload(b"one" * 9000)
    with pytest.raises(Refused) as refused:
        await alice.upload(b"two" * 9000)
    assert refused.value.code is Code.TAKEN
    path = tmp_path / "alice" / "data"
    assert str(refused.value.hint).endswith(
        f"mini-torrent upload-file --name data --replace {path} lab"
    )
    second = await alice.upload(b"two" * 9000, replace=True)
    assert (second.row.version, second.joined, second.again) == (2, False, False)
    assert alice.records() == [(2, "data")]
    assert (alice.offers(), bob.offers()) == ([2], [1])
    assert (alice.serves(first.row.content), bob.serves(first.row.content)) == (False, True)
    assert alice.serves(second.row.content)
    again = await alice.upload(b"two" * 9000, replace=True)
    assert (again.row.version, again.again) == (2, True)


async def test_an_earlier_version_elsewhere_is_served_beside_the_current_one(lab: Lab) -> None:
    alice, _, _ = lab
    first = await alice.upload(b"one" * 9000, "old")
    second = await alice.upload(b"two" * 9000, "new", replace=True)
    assert alice.records() == [(1, "old"), (2, "new")]
    assert alice.serves(first.row.content)
    # A restart opens and offers both, each under its number.
    alice.end()
    alice.start()
    await alice.shares.activate(alice.user)
    await alice.shares.reconcile()
    assert alice.offers() == [1, 2]
    assert alice.serves(first.row.content)
    assert alice.serves(second.row.content)
    await alice.shares.stop(LAB, "data@1")
    assert (alice.offers(), alice.records()) == ([2], [(2, "new")])
    await alice.shares.stop(LAB, "data")
    assert (alice.offers(), alice.records()) == ([], [])


async def test_a_member_who_joined_a_share_may_not_replace_it(lab: Lab) -> None:
    alice, bob, harness = lab
    await alice.upload(b"one" * 9000)
    await bob.upload(b"one" * 9000)
    for replace in (False, True):
        with pytest.raises(Refused) as refused:
            await bob.upload(b"evil" * 9000, replace=replace)
        assert refused.value.code is Code.TAKEN
        assert "--name data-2" in str(refused.value.hint)
    # The owner of the group may.
    bob.replica.groups[LAB].owner = bob.user
    harness.state.groups[LAB].owner = bob.user
    assert (await bob.upload(b"good" * 9000, replace=True)).row.version == 2


async def test_a_replacement_that_comes_too_late_is_refused_and_changes_nothing(lab: Lab) -> None:
    alice, _, harness = lab
    await alice.upload(b"one" * 9000, "one")
    request, phone = alice.link.request, harness.user("alice", "phone")

    async def overtaken(command: Any, kind: Any, data: bytes | None = None) -> Any:
        if isinstance(command, tracker.Offer) and command.replace:
            other = harness.content("other")
            phone.does(tracker.Offer("lab", "data", other, True))
            alice.link.request = request  # type: ignore[method-assign]
        return await request(command, kind, data)

    alice.link.request = overtaken  # type: ignore[assignment]
    with pytest.raises(Refused) as refused:
        await alice.upload(b"two" * 9000, "two", replace=True)
    assert refused.value.code is Code.CHANGED
    assert alice.records() == [(1, "one")]
    assert alice.offers() == [1]


async def test_a_withdrawal_ends_the_share_and_leaves_the_file(lab: Lab) -> None:
    alice, bob, harness = lab
    first = await alice.upload(b"one" * 9000)
    await bob.upload(b"one" * 9000)
    await alice.shares.withdraw(LAB, "data")
    for place in (alice, bob):
        await place.shares.withdrawn(LAB, withdrawn(harness))
        assert (place.records(), place.offers()) == ([], [])
        assert not place.serves(first.row.content)
        assert (place.folder / "data").exists()
    assert alice.notices == []
    assert bob.notices == ["data in lab is no longer shared: alice withdrew it from the group"]


async def test_f101_a_device_that_was_away_serves_no_withdrawn_share_again(lab: Lab) -> None:
    """The events of the withdrawals are lost to it; the tracker refuses its offers."""
    alice, bob, _ = lab
    contents = [(await alice.upload(b"one" * 9000)).row.content]
    await bob.upload(b"one" * 9000, "one")
    contents.append((await alice.upload(b"two" * 9000, replace=True)).row.content)
    await bob.upload(b"two" * 9000, "two")
    bob.end()
    await alice.shares.withdraw(LAB, "data")
    bob.start()
    await bob.shares.activate(bob.user)
    await bob.shares.reconcile()
    assert (bob.records(), bob.offers()) == ([], [])
    assert not any(map(bob.serves, contents))
    assert len(bob.notices) == 2


async def test_f102_an_earlier_version_is_offered_again_after_a_long_absence(lab: Lab) -> None:
    alice, bob, _ = lab
    await alice.upload(b"one" * 9000)
    await bob.upload(b"one" * 9000)
    await alice.upload(b"two" * 9000, replace=True)
    # The tracker loses the offer, as by a restored backup.
    bob.link.device.does(tracker.StopShare("lab", "data", 1))
    bob.end()
    bob.start()
    await bob.shares.activate(bob.user)
    await bob.shares.reconcile()
    assert (bob.offers(), bob.records()) == ([1], [(1, "data")])
    assert bob.link.device.does(tracker.FindShare("lab", "data")).row.version == 2


async def test_f103_a_lost_reply_to_a_replacement_leaves_no_offer_without_a_record(
    lab: Lab,
) -> None:
    alice, bob, _ = lab
    await alice.upload(b"one" * 9000, "one")
    await bob.upload(b"one" * 9000)
    request = alice.link.request

    async def lost(command: Any, kind: Any, data: bytes | None = None) -> Any:
        answer = await request(command, kind, data)
        if isinstance(command, tracker.Offer) and command.replace:
            alice.link.request = request  # type: ignore[method-assign]
            raise asyncio.CancelledError
        return answer

    alice.link.request = lost  # type: ignore[assignment]
    with pytest.raises(asyncio.CancelledError):
        await alice.upload(b"two" * 9000, "two", replace=True)
    await until(lambda: (alice.offers(), alice.records()) == ([1], [(1, "one")]))
    # The same command again makes it current after all.
    path = str(alice.folder / "two")
    again = control.UploadFile(path, LAB, "data", replace=True)
    row = (await alice.shares.upload(again, lambda _: None)).row
    assert (row.version, row.current) == (2, True)
    assert (alice.offers(), alice.records()) == ([1, 2], [(1, "one"), (2, "two")])


async def test_a_name_that_ends_as_a_version_is_refused_before_digesting(lab: Lab) -> None:
    alice, _, _ = lab
    with pytest.raises(BadName) as refused:
        await alice.upload(b"x", name="data@2")
    assert "--name data-2" in str(refused.value.hint)


async def test_a_changed_share_is_withdrawn_with_the_command_that_shares_it_again(
    tmp_path: Path, lab: Lab
) -> None:
    alice, _, _ = lab
    await alice.upload(b"one" * 9000)
    path = tmp_path / "alice" / "data"
    path.write_bytes(b"two" * 9001)
    await alice.shares._watcher.check_files()
    await until(lambda: alice.notices and not alice.offers())
    assert alice.notices[0].endswith(
        f"make it the next version: mini-torrent upload-file --replace {path} lab"
    )


async def test_files_that_a_download_is_replacing_are_no_changed_share(
    tmp_path: Path, lab: Lab
) -> None:
    """The periodic check may come between the rename and the record of the new version."""
    alice, _, _ = lab
    first = await alice.upload(b"one" * 9000)
    path = tmp_path / "alice" / "data"
    alice.shares.rest_at(str(path), ContentId(b"n" * 32))
    path.write_bytes(b"two" * 9000)
    await alice.shares._watcher.check_files()
    await alice.shares._watcher.on_changed(ContentId(first.row.content))
    await alice.shares.reconcile()
    assert (alice.notices, alice.records(), alice.offers()) == ([], [(1, "data")], [1])
    # The download was not completed, and the files are those of before.
    path.write_bytes(b"one" * 9000)
    alice.shares.end_rest_at(str(path))
    await alice.shares._watcher.check_files()
    await until(lambda: alice.serves(first.row.content))
    assert not alice.notices
