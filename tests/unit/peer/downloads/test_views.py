"""Rows and progress of a download: its rate, or the reason why nothing arrives."""

from __future__ import annotations

import pytest

from common.errors import Refused
from common.ids import DeviceKey
from common.messages import control, events, tracker
from common.messages.base import Source
from common.messages.refusals import Code
from peer.downloads.job import DownloadJob
from peer.downloads.views import progress_of, source_rows
from peer.files.errors import DiskFull, IOFailed
from tests.support.peer_fakes import until
from tests.unit.peer.downloads.test_lifecycle import FILMS, PIECE, Stage

BOB, CAROL = DeviceKey(b"b" * 32), DeviceKey(b"c" * 32)
UNSHARED = Refused(Code.UNKNOWN_SHARE, "this content is not shared in films")


def listed(device: DeviceKey, complete: bool = True) -> Source:
    return Source(device, "bob", "tcp://127.0.0.1:5000", complete)


async def going(stage: Stage, held: int) -> DownloadJob:
    """A download that runs, with the first pieces held."""
    stage.remembers(held)
    downloads = await stage.start()
    job = downloads._jobs["film"]
    await until(lambda: job.transfer)
    return job


def row_of(stage: Stage) -> control.DownloadRow:
    (row,) = stage.downloads.rows()
    return row


async def give(
    stage: Stage, job: DownloadJob, device: DeviceKey, data: bytes | None = None
) -> None:
    """Let ``device`` send a requested piece, or ``data`` in its place."""
    assert job.transfer is not None
    job.transfer.on_opened(device, None)
    sources = job.transfer._core._sources
    source = sources.get(device)
    assert source is not None
    await until(lambda: source.in_flight)
    index = next(iter(source.in_flight))
    sent = stage.piece(index) if data is None else data[: len(stage.piece(index))]
    before = (job.transfer.progress().held_pieces, job.transfer.progress().corrupt_pieces)
    job.transfer.on_pieces(device, index, 1, memoryview(sent))
    await until(
        lambda: (
            job.transfer
            and before
            != (job.transfer.progress().held_pieces, job.transfer.progress().corrupt_pieces)
        )
    )


@pytest.mark.parametrize("pieces", [6])
async def test_the_row_says_that_every_source_is_banned_until_a_good_one_comes(
    stage: Stage,
) -> None:
    job = await going(stage, 1)
    assert job.transfer is not None
    job.transfer.sources([listed(BOB)])
    await give(stage, job, BOB)
    row = row_of(stage)
    assert (row.reason, len(row.sources)) == (None, 1)
    assert row.rate_bytes_per_s > 0
    await give(stage, job, BOB, b"wrong" * PIECE)
    row = row_of(stage)
    assert row.reason == "every source sent wrong pieces and is banned"
    assert (row.state, row.rate_bytes_per_s, row.eta_s, row.sources) == (
        "downloading",
        0.0,
        None,
        [],
    )
    assert progress_of(job, job.record.user).note == row.reason
    job.transfer.sources([listed(CAROL)])
    assert row_of(stage).reason is None
    assert progress_of(job, job.record.user).note == "no source answers yet"
    job.transfer.on_opened(CAROL, None)
    assert (row_of(stage).reason, len(row_of(stage).sources)) == (None, 1)
    assert progress_of(job, job.record.user).note is None


@pytest.mark.parametrize("back", ["event", "answer"])
async def test_the_row_of_an_unshared_download_says_so_until_it_is_shared(
    stage: Stage, back: str
) -> None:
    job = await going(stage, 1)
    downloads = stage.downloads
    assert job.transfer is not None
    job.transfer.sources([listed(BOB)])
    assert row_of(stage).reason is None
    stage.link.answers["GetSources"] = UNSHARED
    gone = events.PeerUpdate(FILMS, stage.content, [], [BOB])
    downloads.peers_changed(gone)
    await until(lambda: row_of(stage).reason == "it is no longer shared")
    row = row_of(stage)
    assert (row.state, row.rate_bytes_per_s, row.eta_s, row.sources) == (
        "downloading",
        0.0,
        None,
        [],
    )
    assert progress_of(job, job.record.user).note == row.reason
    # A device that fetches it itself shares nothing.
    downloads.peers_changed(
        events.PeerUpdate(FILMS, stage.content, [listed(CAROL, complete=False)])
    )
    assert row_of(stage).reason == row.reason
    if back == "event":
        downloads.peers_changed(events.PeerUpdate(FILMS, stage.content, [listed(BOB)]))
    else:
        stage.link.answers["GetSources"] = tracker.Sources([])
        await downloads._lifecycle.transfers.learn_sources(job)
    assert row_of(stage).reason is None


@pytest.mark.parametrize("pieces", [6])
async def test_a_paused_download_gets_nothing_from_any_source(stage: Stage) -> None:
    job = await going(stage, 1)
    assert job.transfer is not None
    job.transfer.sources([listed(BOB)])
    await give(stage, job, BOB)
    row = row_of(stage)
    assert row.rate_bytes_per_s > 0
    assert row.eta_s is not None
    await stage.downloads.pause("films", "film")
    row = row_of(stage)
    assert (row.state, row.rate_bytes_per_s, row.eta_s, row.sources) == (
        "paused",
        0.0,
        None,
        [],
    )
    assert (row.verified_bytes, row.reason) == (2 * PIECE, "paused by the user")


async def test_a_failed_download_shows_its_held_bytes(stage: Stage) -> None:
    job = await going(stage, 3)
    assert job.transfer is not None
    job.transfer.fail(IOFailed("the disk is broken"))
    await until(lambda: job.record.state == "F")
    row = row_of(stage)
    assert (row.state, row.verified_bytes, row.rate_bytes_per_s, row.eta_s) == (
        "failed",
        3 * PIECE,
        0.0,
        None,
    )


@pytest.mark.parametrize("state", ["P", "F"])
async def test_a_resting_download_shows_its_held_bytes_after_a_restart(
    stage: Stage, state: str
) -> None:
    stage.remembers(4, state=state, by_user=True)
    await stage.start()
    await until(lambda: row_of(stage).verified_bytes == len(stage.data))
    assert row_of(stage).state == {"P": "paused", "F": "failed"}[state]
    assert not stage.open_files()


async def test_a_resting_download_without_a_part_holds_nothing(stage: Stage) -> None:
    stage.remembers(4, state="F")
    stage.path.with_suffix(".part").unlink()
    downloads = await stage.start()
    await downloads._lifecycle.parts.load_held_bytes(downloads._jobs["film"])
    assert row_of(stage).verified_bytes == 0


async def test_a_silent_tracker_does_not_make_a_share_unshared(stage: Stage) -> None:
    job = await going(stage, 1)
    stage.link.connected = False
    await stage.downloads._lifecycle.transfers.learn_sources(job)
    assert row_of(stage).reason is None
    assert progress_of(job, job.record.user).note == "no device that has it is online"


async def test_two_sources_of_one_user_are_told_apart_by_their_devices(stage: Stage) -> None:
    job = await going(stage, held=1)
    assert job.transfer is not None
    job.transfer.sources([listed(BOB), listed(CAROL)])
    assert [(row.user, row.id) for row in source_rows(job)] == [
        ("bob", BOB.hex()[:8]),
        ("bob", CAROL.hex()[:8]),
    ]


@pytest.mark.parametrize("pieces", [6])
async def test_the_verdict_on_a_source_says_whether_it_sends(stage: Stage) -> None:
    job = await going(stage, 1)
    assert job.transfer is not None

    def verdicts() -> list[str]:
        return [row.verdict for row in source_rows(job)]

    job.transfer.sources([listed(BOB)])
    assert verdicts() == ["opening"]
    job.transfer.on_opened(BOB, None)
    assert verdicts() == ["open, waiting"]
    await give(stage, job, BOB)
    assert verdicts() == ["open, good"]
    job.transfer.sources([listed(CAROL)])
    job.transfer.on_opened(CAROL, b"\0")  # nothing that could be requested
    assert verdicts()[1] == "open, idle"


@pytest.mark.parametrize(
    ("why", "note", "advice"),
    [
        ("no source", "no device that has it is online", "continues by itself"),
        ("silent", "no source answers yet", "can be reached"),
        ("a full disk", "no room", "tried again every 5 s"),
        ("logged out", "alice was logged out", "when alice logs in again"),
        ("unshared", "it is no longer shared", "shares it again"),
    ],
)
async def test_a_waiting_command_shows_a_reason_and_advice(
    stage: Stage, why: str, note: str, advice: str
) -> None:
    job = await going(stage, 1)
    user: str | None = job.record.user
    assert job.transfer is not None
    match why:
        case "silent":
            job.transfer.sources([listed(BOB)])
        case "a full disk":
            job.transfer._writer.pause_for(DiskFull("no room"))
        case "logged out":
            user = None
        case "unshared":
            job.unshared = True
    told = progress_of(job, user)
    assert note in str(told.note)
    assert advice in str(told.advice)
