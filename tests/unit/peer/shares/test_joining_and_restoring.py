"""Shares: the same bytes of several members, failures half-way, and losses of a disk."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from common import manifest
from common.digests import Algorithm
from common.errors import Refused, StorageError
from common.ids import ContentId
from common.messages import tracker
from common.messages.refusals import Code
from peer.files import sharing
from peer.records import Manifests, Records
from tests.support.peer_fakes import until
from tests.unit.peer.shares.test_manager import ALICE, FILMS, Town

# -- the same bytes ---------------------------------------------------------------------------


async def of_another(town: Town, name: str, data: bytes, **options: Any) -> bytes:
    """Another member shares ``data`` in films; return its content id."""
    path = town.files / "of another"
    path.write_bytes(data)
    path.chmod(options.pop("mode", 0o644))
    os.utime(path, options.pop("at", (7, 7)))
    made = sharing.digest(str(path), **options).manifest
    encoded = manifest.encode(made)
    content = manifest.manifest_id(encoded)
    town.listed[(FILMS, name)] = content
    town.learn(encoded, content)
    town.manifests[content] = encoded
    return content


@pytest.mark.parametrize(
    ("options", "asked", "note"),
    [
        ({"piece_length": 1 << 14}, {}, None),
        ({}, {"piece_length": 1 << 14}, "pieces of 256 KiB, not of 16 KiB"),
        ({"algorithm": Algorithm.SHA256}, {}, "verified by sha256"),
        ({}, {"digest": "sha1"}, "verified by blake3, not by sha1"),
        ({"mode": 0o755}, {}, "1 file is marked executable"),
        ({"at": (9, 9)}, {}, "times of modification differ"),
        ({"times": False}, {}, "without times"),
        ({}, {"times": False}, None),
        ({"times": False}, {"times": False}, None),
        ({"at": (9, 9)}, {"times": False}, "times of modification differ"),
    ],
)
async def test_the_same_bytes_join_and_differences_are_noted(
    town: Town, options: dict[str, Any], asked: dict[str, Any], note: str | None
) -> None:
    data = b"the same bytes" * 5000
    content = await of_another(town, "film", data, **options)
    path = town.files / "film"
    path.write_bytes(data)
    os.utime(path, (7, 7))
    done = await town.upload(path, **asked)
    assert town.listed[(FILMS, "film")] == content
    assert town.served() == {("films", "film")}
    served = town.inventory.get(ContentId(content))
    assert served is not None
    last = served.manifest.piece_count - 1
    assert served.manifest.verifies(last, served.reader.read_run(last, 1))
    assert [note for note in done.notes if "joined as it was shared first" not in note] == []
    assert (note is None) == (not done.notes)
    assert note is None or note in done.notes[0]


@pytest.mark.parametrize("data", [b"other bytes!!", b"longer than the others"])
async def test_other_bytes_under_a_name_in_use_are_refused_and_not_listed(
    town: Town, data: bytes
) -> None:
    content = await of_another(town, "film", b"some bytes!!!")
    with pytest.raises(Refused) as refused:
        await town.share("film", data=data)
    assert refused.value.code is Code.TAKEN
    assert str(refused.value.hint).endswith(
        f"mini-torrent upload-file --name film-2 {town.files / 'film'} films"
    )
    assert town.listed == {("films", "film"): content}
    assert not town.shares.contents()


async def test_two_members_who_share_the_same_at_once_join(town: Town) -> None:
    offer = town.link.answers["Offer"]

    def overtaken(command: tracker.Offer) -> Any:
        if len(town.link.asked_for(tracker.Offer)) == 1:
            town.listed.update(theirs)
            return Refused(Code.TAKEN, "another content")
        return offer(command)

    await of_another(town, "film", b"the same bytes")
    theirs = dict(town.listed)
    town.listed.clear()
    town.link.answers["Offer"] = overtaken
    await town.share("film", data=b"the same bytes")
    assert town.listed == theirs
    assert town.served() == {("films", "film")}


async def test_touched_files_are_shared_again_at_once(town: Town) -> None:
    path = await town.share("film")
    before = dict(town.listed)
    for content in town.listed.values():
        town.manifests[content] = Manifests(town.home / "manifests").get(ContentId(content))  # type: ignore[assignment]
    os.utime(path, (11, 11))
    await town.upload(path)
    assert town.listed == before
    assert town.served() == {("films", "film")}


# -- the unexpected -----------------------------------------------------------------------------


@pytest.mark.parametrize("error", [OverflowError, asyncio.CancelledError, StorageError])
async def test_a_share_without_a_record_is_never_listed(
    monkeypatch: pytest.MonkeyPatch, town: Town, error: type[BaseException]
) -> None:
    def fail(*_: object) -> None:
        raise error("no")

    monkeypatch.setattr(Records, "put", fail)
    with pytest.raises(error):
        await town.share("film")
    await until(lambda: not town.listed, "the withdrawal")


@pytest.mark.parametrize("time_s", [32503680000, 1 << 40, -1, -(1 << 33), 0])
async def test_any_time_of_modification_can_be_shared(town: Town, time_s: int) -> None:
    path = town.files / "film"
    path.write_bytes(b"x" * 1000)
    os.utime(path, (time_s, time_s))
    await town.upload(path)
    assert town.served() == {("films", "film")}
    town.end()
    town.start()
    await town.shares.activate(ALICE)
    assert town.served() == {("films", "film")}


async def test_hidden_and_private_files_are_confirmed_first(town: Town) -> None:
    path = town.files / "secret"
    path.write_bytes(b"x")
    path.chmod(0o600)
    with pytest.raises(Refused, match="1 file that only its owner may read") as refused:
        await town.upload(path)
    assert refused.value.code is Code.UNCONFIRMED
    assert not town.listed
    await town.upload(path, yes=True)
    assert town.served() == {("films", "secret")}


# -- what a disk loses --------------------------------------------------------------------------


def damage(path: Path, how: str) -> None:
    if how == "removed":
        path.unlink()
    else:
        path.write_bytes(b"" if how == "emptied" else path.read_bytes()[:-3] + b"abc")


@pytest.mark.parametrize("source", ["tracker", "files", "copy of another's manifest"])
@pytest.mark.parametrize("how", ["emptied", "damaged", "removed"])
async def test_f80_a_share_whose_manifest_the_disk_lost_comes_back(
    town: Town, how: str, source: str
) -> None:
    if source.startswith("copy"):
        await of_another(town, "film", b"film" * 1000, piece_length=1 << 15, at=(3, 3))
    await town.share("film")
    (kept,) = (town.home / "manifests").iterdir()
    if source == "tracker":
        town.manifests[town.listed[(FILMS, "film")]] = kept.read_bytes()
    elif source != "tracker":
        town.manifests.clear()
    if source != "tracker":
        town.listed.clear()  # an older backup, say
    town.end()
    damage(kept, how)
    town.start()
    await town.shares.activate(ALICE)
    await town.shares.reconcile()
    await until(lambda: town.served() == {("films", "film")} == set(town.listed))
    assert not town.notices


async def test_f80_without_its_manifest_a_folder_that_grew_is_not_shared(town: Town) -> None:
    folder = town.files / "folder"
    folder.mkdir()
    (folder / "a").write_bytes(b"a")
    await town.upload(folder)
    (kept,) = (town.home / "manifests").iterdir()
    town.end()
    damage(kept, "emptied")
    (folder / "new").write_bytes(b"not meant for others")
    town.start()
    await town.shares.activate(ALICE)
    await until(lambda: town.notices, "a notice")
    assert "share it again" in str(town.notices) or "manifest" in str(town.notices)
    await until(lambda: not town.listed, "the withdrawal")
