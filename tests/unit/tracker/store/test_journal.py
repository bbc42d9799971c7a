"""Journal codec: golden bytes of every kind of change, and what cannot be read."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.change_samples import BOB, CONTENT, DEVICE, SAMPLES
from tests.support.paths import GOLDEN
from tests.unit.common.messages.test_wire_golden import hold
from tracker.core.changes.base import UNTAGGED, Change
from tracker.core.changes.shares import ManifestShown, ManifestStored
from tracker.store.journal import FORMAT, SINCE, UnreadableJournal, decode, encode, format_of
from tracker.store.statements.base import write_change
from tracker.store.statements.writing import KINDS

LAST_OF_FORMAT_1 = 41


def test_every_kind_of_change_has_a_tag_and_a_sample() -> None:
    kinds = {kind.__name__ for kind in (*KINDS.values(), *UNTAGGED)}
    assert kinds == {kind.__name__ for kind in Change.__subclasses__()}
    assert [type(sample) for sample in SAMPLES] == list(KINDS.values())


def test_a_new_kind_of_change_has_a_new_format() -> None:
    """An earlier release that serves beside this one must never meet it (see journal.SINCE)."""
    late = {tag: SINCE.get(tag, 1) for tag in KINDS if tag > LAST_OF_FORMAT_1}
    assert [tag for tag, format_ in late.items() if not 1 < format_ <= FORMAT] == []
    assert set(SINCE) == set(late)


def test_a_commit_has_the_lowest_format_of_its_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = SAMPLES[:2]
    assert format_of(SAMPLES) == 1
    monkeypatch.setitem(SINCE, next(iter(KINDS)), 3)
    assert [format_of(each) for each in ([], [second], [second, first])] == [1, 1, 3]
    assert format_of([ManifestShown(BOB, CONTENT)]) == 1


def test_every_kind_of_change_has_its_statements() -> None:
    kinds, without = (*KINDS.values(), *UNTAGGED), write_change.dispatch(Change)
    assert [kind for kind in kinds if write_change.dispatch(kind) is without] == []


def test_every_kind_of_change_has_its_golden_bytes(update_golden: bool) -> None:
    lines = [f"{type(sample).__name__} {encode([sample], []).hex()}" for sample in SAMPLES]
    hold(GOLDEN / f"journal-{FORMAT}.txt", lines, update_golden)


def test_a_commit_is_read_as_it_was_written() -> None:
    assert decode(FORMAT, encode(SAMPLES, [DEVICE])) == (tuple(SAMPLES), (DEVICE,))
    assert decode(FORMAT, encode([], [])) == ((), ())


def test_bodies_of_manifests_and_facts_of_one_process_are_left_out() -> None:
    stored = next(each for each in SAMPLES if isinstance(each, ManifestStored))
    body = encode([replace(stored, body=b"x" * 1_000), ManifestShown(BOB, CONTENT)], [])
    assert decode(FORMAT, body) == ((stored,), ())


def test_fields_appended_by_a_later_release_are_ignored() -> None:
    changes, nudged = msgspec.msgpack.decode(encode(SAMPLES, [DEVICE]))
    longer = msgspec.msgpack.encode([[[*each, "more"] for each in changes], nudged, {}])
    assert decode(FORMAT, longer) == (tuple(SAMPLES), (DEVICE,))


@pytest.mark.parametrize(
    ("format_", "body", "said"),
    [
        (FORMAT + 1, encode([], []), "a tracker of a later release wrote it"),
        (FORMAT, b"", "malformed"),
        (FORMAT, encode([], [])[:-1], "malformed"),
        (FORMAT, msgspec.msgpack.encode([[[999, 1]], []]), "malformed"),
        (FORMAT, msgspec.msgpack.encode([[[4, 7]], []]), "malformed"),
    ],
)
def test_a_journal_that_cannot_be_read_is_named(format_: int, body: bytes, said: str) -> None:
    with pytest.raises(UnreadableJournal, match=said):
        decode(format_, body)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_named(body: bytes) -> None:
    try:
        decode(FORMAT, body)
    except UnreadableJournal:
        pass
