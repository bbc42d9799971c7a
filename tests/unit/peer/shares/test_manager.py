"""Shares: records, inventory and the tracker's list agree after every fault."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from common import manifest
from common.digests import Algorithm
from common.errors import (
    MiniTorrentError,
    Refused,
    RemoteProtocolError,
    StorageError,
    TransportError,
)
from common.ids import ContentId, GroupId, UserId
from common.messages import control, tracker
from common.messages.refusals import Code
from peer import records
from peer.files import sharing
from peer.files.open_files import HandleCache
from peer.records import Manifests, Records, ShareRecord
from peer.serving.inventory import Inventory
from peer.shares import (
    agreement,
    expiry,
    joining,
    manager,
    offers,
    open_shares,
    share_records,
    watching,
)
from peer.shares.manager import Shares, Upload
from peer.tracker_client.link import Answer
from peer.workers import Workers
from tests.support.peer_fakes import FakeLink, Membership, turns, until

ALICE, BOB = UserId("alice"), UserId("bob")
FILMS, MUSIC = GroupId("films"), GroupId("music")


class Town:
    """A device's shares, and a tracker that lists what is offered."""

    def __init__(self, home: Path) -> None:
        self.home, self.files = home / "home", home
        self.home.mkdir()
        self.listed: dict[tuple[str, str], bytes] = {}
        self.known: dict[bytes, Callable[[str], tracker.FileRow]] = {}
        self.manifests: dict[bytes, bytes] = {}
        self.notices: list[str] = []
        self.link = FakeLink(
            Offer=self._offer,
            PutManifest=self._put,
            StopShare=self._stop,
            FindShare=self._find,
            GetManifest=self._manifest,
            MyOffers=lambda command: tracker.OfferRows(
                [
                    tracker.OfferRow(group, name, c)
                    for (group, name), c in sorted(self.listed.items())
                ]
            ),
        )
        self.replica = Membership(ALICE, FILMS, MUSIC)
        self.start()

    def start(self) -> None:
        """Start, as after a restart of the peer."""
        self.inventory = Inventory()
        self.workers = Workers(1, "test")
        (self.home / "shares").mkdir(exist_ok=True)
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

    def _offer(self, command: tracker.Offer) -> Any:
        if command.content not in self.known:
            return Refused(Code.NEED_MANIFEST, "send it")
        self.listed[(command.group, command.name)] = command.content
        return tracker.Offered(self.known[command.content](command.name), False)

    def _put(self, command: tracker.PutManifest) -> tracker.Done:
        self.learn(self.link.data, command.content)
        return tracker.Done()

    def learn(self, encoded: bytes, content: bytes) -> None:
        """The tracker has the manifest of a content."""
        made = manifest.decode(encoded, ContentId(content))
        facts = made.size, made.file_count, made.piece_count, made.piece_length
        self.known[content] = lambda name: tracker.FileRow(
            name, content, *facts, str(made.algorithm), made.digest, 1, 0, []
        )

    def _find(self, command: tracker.FindShare) -> Any:
        content = self.listed.get((command.group, command.name))
        if content is None:
            return Refused(Code.UNKNOWN_SHARE, "not shared")
        return tracker.ShareFound(self.known[content](command.name), b"t" * 16, 1, [])

    def _manifest(self, command: tracker.GetManifest) -> Any:
        encoded = self.manifests.get(command.content)
        if encoded is None or command.content not in self.listed.values():
            return Refused(Code.UNKNOWN_SHARE, "not shared")
        part = encoded[command.offset :]
        return Answer(tracker.ManifestPart(len(encoded), command.offset), part)

    def _stop(self, command: tracker.StopShare) -> Any:
        if self.listed.pop((command.group, command.name), None) is None:
            return Refused(Code.UNKNOWN_SHARE, "not shared")
        return tracker.Done()

    async def share(self, name: str, group: str = FILMS, data: bytes | None = None) -> Path:
        path = self.files / name
        path.write_bytes(data if data is not None else name.encode() * 1000)
        await self.upload(path, group)
        return path

    async def upload(self, path: Path, group: str = FILMS, **more: Any) -> Upload:
        command = control.UploadFile(str(path), group, **more)
        return await self.shares.upload(command, lambda progress: None)

    def served(self) -> set[tuple[str, str]]:
        """The served contents, by the tracker's list."""
        return {
            place
            for place, content in self.listed.items()
            if self.inventory.find(GroupId(place[0]), ContentId(content)) is not None
        }


async def test_a_share_is_recorded_served_and_listed(town: Town) -> None:
    await town.share("film")
    await town.share("song", MUSIC)
    assert town.served() == {("films", "film"), ("music", "song")}
    assert len(town.shares) == 2
    await town.shares.stop("films", "FILM")
    assert town.served() == set(town.listed) == {("music", "song")}
    with pytest.raises(Refused):
        await town.shares.stop("films", "film")


async def test_the_records_lead_after_a_restart(town: Town) -> None:
    for name in ("kept", "forgotten", "gone"):
        await town.share(name)
    del town.listed[("films", "forgotten")]  # a tracker from an older backup
    town.listed[("music", "never")] = b"n" * 32  # by another machine with the same key
    town.end()
    town.start()
    (town.files / "gone").unlink()
    await town.shares.activate(ALICE)
    await town.shares.reconcile()
    left = {("films", "kept"), ("films", "forgotten")}
    others = {("music", "never")}
    await until(lambda: town.notices and town.served() == left)
    await until(lambda: set(town.listed) == left | others)
    assert "gone" in town.notices[0]


async def test_a_tracker_that_has_lost_the_manifest_gets_it_again(town: Town) -> None:
    await town.share("film")
    town.listed.clear()
    town.known.clear()
    await town.shares.reconcile()
    assert town.served() == {("films", "film")}


async def test_the_shares_of_other_users_rest(town: Town) -> None:
    await town.share("film")
    await town.shares.deactivate()
    assert (len(town.shares), town.served()) == (0, set())
    await town.shares.activate(BOB)
    assert len(town.shares) == 0
    await town.shares.activate(ALICE)
    assert town.served() == {("films", "film")}


async def test_shares_in_a_group_that_the_user_left_are_forgotten(town: Town) -> None:
    await town.share("film")
    await town.share("song", MUSIC)
    del town.replica.groups[FILMS]
    del town.listed[("films", "film")]
    await town.shares.groups_changed()
    town.replica.groups[FILMS] = None
    await town.shares.groups_changed()
    assert town.served() == set(town.listed) == {("music", "song")}


async def test_a_logout_leaves_no_group(town: Town) -> None:
    await town.share("film")
    town.replica.user, town.replica.known, town.replica.groups = None, False, {}
    await town.shares.groups_changed()
    # Logged in again, and the tracker has not told yet in which groups.
    town.replica.user = ALICE
    await town.shares.activate(ALICE)
    assert town.served() == {("films", "film")}


async def test_shares_do_not_return_in_a_later_group_of_the_same_name(town: Town) -> None:
    path = await town.share("film")
    await town.share("song", MUSIC)
    town.end()
    town.listed.clear()
    town.replica.topics[FILMS] = b"another"
    town.start()
    await town.shares.activate(ALICE)
    await town.shares.reconcile()
    assert town.served() == set(town.listed) == {("music", "song")}
    digested = sharing.digest_scanned(sharing.scan(str(path)), Algorithm.BLAKE3, 1 << 16)
    encoded = manifest.encode(digested.manifest)
    content = manifest.manifest_id(encoded)
    record = ShareRecord(ALICE, FILMS, "film", content, digested.place, b"topic")
    await town.shares.adopt_download(record, digested.manifest, encoded)
    assert set(town.listed) == {("music", "song")}


async def end_of_alice(town: Town, heir: UserId | None) -> None:
    await town.shares.deactivate()
    town.replica.user = heir


@pytest.mark.parametrize("heir", [None, BOB])
async def test_an_upload_is_not_credited_to_a_user_who_logs_in_meanwhile(
    monkeypatch: pytest.MonkeyPatch, town: Town, heir: UserId | None
) -> None:
    digest = joining.digest

    async def slowly(*words: Any) -> Any:
        digested = await digest(*words)
        await end_of_alice(town, heir)
        if heir is not None:
            await town.shares.activate(heir)
        return digested

    monkeypatch.setattr(joining, "digest", slowly)
    with pytest.raises(Refused) as refused:
        await town.share("film")
    assert refused.value.code is Code.NOT_LOGGED_IN
    assert not town.listed
    assert not town.shares.contents()


@pytest.mark.parametrize("heir", [None, BOB])
async def test_a_download_is_shared_in_the_name_of_its_user(
    town: Town, heir: UserId | None
) -> None:
    path = town.files / "film"
    path.write_bytes(b"x" * 1000)
    digested = sharing.digest_scanned(sharing.scan(str(path)), Algorithm.BLAKE3, 1 << 16)
    encoded = manifest.encode(digested.manifest)
    await end_of_alice(town, heir)
    if heir is not None:
        await town.shares.activate(heir)
    content = manifest.manifest_id(encoded)
    record = ShareRecord(ALICE, FILMS, "film", content, digested.place, b"topic")
    await town.shares.adopt_download(record, digested.manifest, encoded)
    assert (len(town.shares), town.listed) == (0, {})
    town.replica.user = ALICE
    await town.shares.activate(ALICE)
    await town.shares.reconcile()
    assert town.served() == {("films", "film")}


async def test_an_offer_that_cannot_be_recorded_is_taken_back(
    monkeypatch: pytest.MonkeyPatch, town: Town
) -> None:
    def full(*_: object) -> None:
        raise StorageError("no room")

    await town.share("before")
    monkeypatch.setattr(Records, "put", full)
    with pytest.raises(StorageError):
        await town.share("film")
    with pytest.raises(StorageError):
        await town.share("before")
    assert set(town.listed) == {("films", "before")}


async def test_the_files_are_checked_again_after_nonsense_from_the_tracker(
    monkeypatch: pytest.MonkeyPatch, town: Town
) -> None:
    monkeypatch.setattr(watching, "CHECK_INTERVAL_S", 0.01)
    path = await town.share("film")
    other = await town.share("other")
    away = other.rename(town.home / "away")
    town.end()
    town.start()
    await town.shares.activate(ALICE)  # without the other file: it is looked for again
    answer = town.link.answers["MyOffers"]
    town.link.answers["MyOffers"] = RemoteProtocolError("nonsense")
    watch = asyncio.create_task(town.shares.watch_files())
    asked = len(town.link.asked)
    await until(lambda: len(town.link.asked) > asked)
    town.link.answers["MyOffers"] = answer
    away.rename(other)
    path.unlink()
    await until(lambda: ("films", "film") not in town.listed, "the notice of what changed")
    assert not watch.done()
    watch.cancel()


@pytest.mark.parametrize("changed", [True, False])
async def test_a_touched_file_is_digested_before_another_byte_leaves(
    town: Town, changed: bool
) -> None:
    path = await town.share("film")
    path.write_bytes(b"another content" if changed else path.read_bytes())
    content = ContentId(town.listed[("films", "film")])
    town.inventory.changed(content)
    assert town.served() == set()
    if changed:
        await until(lambda: not town.listed)
        assert "film" in town.notices[0]
        assert len(town.shares) == 0
    else:
        await until(lambda: town.served())
        assert town.notices == []


@pytest.mark.parametrize("error", [Refused(Code.TAKEN, "another"), MiniTorrentError("odd")])
async def test_files_that_the_tracker_refuses_are_not_shared(town: Town, error: Exception) -> None:
    town.link.answers["Offer"] = error
    with pytest.raises(type(error)):
        await town.share("film")
    assert (len(town.shares), town.shares.contents()) == (0, set())


async def test_a_comparison_during_an_upload_does_not_withdraw_it(town: Town) -> None:
    await town.share("first")
    comparing: list[asyncio.Task[None]] = []
    offer = town.link.answers["Offer"]

    def offer_and_compare(command: tracker.Offer) -> Any:
        answer = offer(command)
        if isinstance(answer, tracker.Offered):
            comparing.append(asyncio.create_task(town.shares.reconcile()))
        return answer

    town.link.answers["Offer"] = offer_and_compare
    await town.share("film")
    await asyncio.gather(*comparing)
    assert town.served() == set(town.listed) == {("films", "first"), ("films", "film")}


async def test_a_comparison_during_a_stop_does_not_offer_it_again(town: Town) -> None:
    await town.share("film")
    stop = town.link.answers["StopShare"]
    comparing: list[asyncio.Task[None]] = []

    async def stop_and_compare(command: tracker.StopShare) -> Any:
        answer = stop(command)
        comparing.append(asyncio.create_task(town.shares.reconcile()))
        await turns(50)
        return answer

    town.link.answers["StopShare"] = stop_and_compare
    await town.shares.stop("films", "film")
    await asyncio.gather(*comparing)
    assert town.listed == {}


async def test_nothing_is_digested_for_a_tracker_that_is_away(
    monkeypatch: pytest.MonkeyPatch, town: Town
) -> None:
    monkeypatch.setattr("peer.shares.joining.digest", None)
    town.link.connected = False
    with pytest.raises(TransportError):
        await town.share("film")


async def test_a_share_that_the_tracker_does_not_list_can_be_stopped(town: Town) -> None:
    await town.share("film")
    town.listed.clear()  # its name was given to another content, say
    await town.shares.stop("films", "film")
    assert (town.served(), len(town.shares)) == (set(), 0)
    with pytest.raises(Refused):
        await town.shares.stop("films", "film")


async def test_a_content_has_one_manifest_for_all_members(town: Town) -> None:
    for name, group in (("film", FILMS), ("copy", MUSIC)):
        path = town.files / name
        path.write_bytes(b"the same bytes")
        os.utime(path, (5, 5))
        await town.upload(path, group)
    assert len(set(town.listed.values())) == 1
    (content,) = set(town.listed.values())
    encoded = Manifests(town.home / "manifests").get(ContentId(content))
    assert encoded is not None
    assert manifest.decode(encoded, ContentId(content)).size == 14


# -- thousands of them --------------------------------------------------------------------------


class Looked:
    """A share that counts the accesses to it."""

    looks = 0

    def __init__(self, record: ShareRecord) -> None:
        self.record, self.checking, self.told = record, False, None
        self._open: Any = SimpleNamespace(close=lambda: None)

    @property
    def open(self) -> Any:
        Looked.looks += 1
        return self._open

    @open.setter
    def open(self, opened: Any) -> None:
        self._open = opened


def many(town: Town, count: int, group: str) -> None:
    """Add open shares without files."""
    for number in range(count):
        content = number.to_bytes(32, "big")
        record = ShareRecord(ALICE, group, f"f{number}", content, None)  # type: ignore[arg-type]
        key = town.shares._records.key_of(record)
        town.shares._open._shares[key] = Looked(record)  # type: ignore[assignment]
        town.shares._records._all[key] = record
        town.shares._open._open[group, content] += 1


@pytest.mark.parametrize("how", ["logout", "leave-group", "removed while away"])
async def test_f76_thousands_of_shares_end_in_linear_time_and_in_turns(
    monkeypatch: pytest.MonkeyPatch, town: Town, how: str
) -> None:
    count, syncs, ticks = 3_000, 0, 0

    def sync(path: Path) -> None:
        nonlocal syncs
        syncs += 1

    many(town, count, FILMS)
    monkeypatch.setattr(records, "sync_directory", sync)
    Looked.looks = 0
    match how:
        case "logout":
            ending = asyncio.create_task(town.shares.deactivate())
        case "leave-group":
            ending = asyncio.create_task(town.shares.left_group(FILMS))
        case _:
            monkeypatch.setattr(town.replica, "has_left", lambda *_: True)
            ending = asyncio.create_task(town.shares._forget_left_groups())
    while not ending.done():
        await asyncio.sleep(0)
        ticks += 1
    await ending
    assert len(town.shares) == 0
    assert not town.shares._open._open
    # A few looks at each, and not one at all others for each of them.
    assert Looked.looks <= 5 * count
    assert syncs <= 1 + count // share_records.REMOVED_AT_A_TIME
    assert ticks >= count // open_shares.AT_A_TIME


async def test_f76_offers_wait_for_a_busy_tracker(
    monkeypatch: pytest.MonkeyPatch, town: Town
) -> None:
    monkeypatch.setattr(offers, "BUSY_S", 0.0)
    await town.share("a")
    town.listed.clear()
    busy = iter([True, True, False])
    offer = town.link.answers["Offer"]
    town.link.answers["Offer"] = lambda command: (
        Refused(Code.BUSY, "too many commands") if next(busy, False) else offer(command)
    )
    await town.shares.reconcile()
    assert set(town.listed) == {(FILMS, "a")}
    assert town.notices == []


async def test_h63_offers_of_another_machine_with_this_key_are_left_alone(town: Town) -> None:
    """A copy of a machine knows only the shares from before the copy was made."""
    await town.share("before")
    town.listed[("films", "since")] = b"s" * 32
    town.listed[("films", "before")] = b"a" * 32  # withdrawn there, and another one shared
    await town.shares.reconcile()
    assert town.listed[("films", "since")] == b"s" * 32


async def test_a_failed_withdrawal_is_owed_over_a_restart(town: Town) -> None:
    path = await town.share("film")
    town.link.connected = False
    path.unlink()
    await town.shares._watcher.check_files()
    owed = town.home / "withdrawals"
    await until(lambda: list(owed.glob("*.record")))
    await until(lambda: not list((town.home / "shares").glob("*.record")))
    assert ("films", "film") in town.listed
    town.end()
    town.start()
    town.link.connected = True
    await town.shares.activate(ALICE)
    await town.shares.reconcile()
    assert town.listed == {}
    assert list(owed.glob("*.record")) == []


@pytest.mark.parametrize("code", [Code.READ_ONLY, Code.KEY_IN_USE, Code.NOT_LOGGED_IN])
async def test_a_refused_withdrawal_is_owed(town: Town, code: Code) -> None:
    path = await town.share("film")
    stop = town.link.answers["StopShare"]
    town.link.answers["StopShare"] = Refused(code, "not now")
    path.unlink()
    await town.shares._watcher.check_files()
    await until(lambda: town.link.asked_for(tracker.StopShare))
    await until(lambda: not list((town.home / "shares").glob("*.record")))
    town.link.answers["StopShare"] = stop
    await town.shares.reconcile()
    assert town.listed == {}
    assert list((town.home / "withdrawals").glob("*.record")) == []


@pytest.mark.parametrize("code", [Code.UNKNOWN_SHARE, Code.UNKNOWN_GROUP])
async def test_a_withdrawal_of_an_unlisted_offer_is_settled(town: Town, code: Code) -> None:
    path = await town.share("film")
    town.link.answers["StopShare"] = Refused(code, "there is none")
    path.unlink()
    await town.shares._watcher.check_files()
    await until(lambda: town.link.asked_for(tracker.StopShare))
    await until(lambda: not list((town.home / "withdrawals").glob("*.record")))
    assert town.shares._agreement._owed.keys_of(ALICE) == []


FOR_NOW = [Code.BUSY, Code.SLOW_DOWN, Code.READ_ONLY]


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((offers, "BUSY_S"), (agreement, "AGAIN_S")):
        monkeypatch.setattr(module, name, 0.0)


def refused_once(town: Town, command: str, code: Code) -> None:
    """The tracker refuses a command, until it has been given up once."""
    answer, left = town.link.answers[command], offers.TRIES + 1 if code is Code.BUSY else 1

    def refuse(command: Any) -> Any:
        nonlocal left
        left -= 1
        return answer(command) if left < 0 else Refused(code, "not now")

    town.link.answers[command] = refuse


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize("code", FOR_NOW)
@pytest.mark.parametrize("command", ["MyOffers", "Offer"])
async def test_f76_shares_refused_for_now_are_offered_later(
    town: Town, code: Code, command: str
) -> None:
    await town.share("a")
    await town.share("b")
    town.listed.clear()
    refused_once(town, command, code)
    await town.shares.reconcile()
    await until(lambda: set(town.listed) == {(FILMS, "a"), (FILMS, "b")})
    assert town.notices == []


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize("code", FOR_NOW)
async def test_a_withdrawal_refused_for_now_is_made_later(town: Town, code: Code) -> None:
    path = await town.share("film")
    refused_once(town, "StopShare", code)
    path.unlink()
    await town.shares._watcher.check_files()
    await until(lambda: not town.listed)


async def test_one_comparison_waits_at_a_time_and_ends_with_a_logout(town: Town) -> None:
    await town.share("film")
    town.link.answers["MyOffers"] = Refused(Code.SLOW_DOWN, "not now")
    for _ in range(3):
        await town.shares.reconcile()
    (waiting,) = town.shares._tasks._tasks
    await town.shares.deactivate()
    await until(waiting.done)
    assert waiting.cancelled()
    await town.shares.reconcile()
    assert not town.shares._tasks._tasks


# -- shares with an end -------------------------------------------------------------------------


async def test_f116_a_share_that_ends_while_the_tracker_is_away_ends_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch, town: Town
) -> None:
    now = 1_000_000
    monkeypatch.setattr(manager, "wall_ms", lambda: now)
    monkeypatch.setattr(expiry, "wall_ms", lambda: now)
    asked: list[Any] = []

    def withdraw(command: tracker.Withdraw) -> Any:
        asked.append(command)
        return Refused(Code.NOT_OWNER, "another user shared it first")

    path = town.files / "film"
    path.write_bytes(b"film")
    await town.upload(path, expires_s=60.0)
    now += 59_999
    await town.shares._expiry.end_due()
    assert town.served() == {("films", "film")}
    now += 1
    town.link.connected = False
    await town.shares._expiry.end_due()
    assert town.served() == set()
    assert (FILMS, "film") in town.listed
    town.end()
    town.start()
    await town.shares.activate(ALICE)
    assert town.served() == set()
    town.link.connected = True
    town.link.answers["Withdraw"] = withdraw
    await town.shares._expiry.end_due()
    assert asked == [tracker.Withdraw("films", "film", 1)]
    assert (FILMS, "film") not in town.listed
    assert any("has expired" in notice for notice in town.notices)
    assert town.shares.versions_of(ALICE, FILMS, "film") == []
    assert path.exists()
