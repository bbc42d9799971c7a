"""Batches of changes that are taken back leave the mirror as it was, dictionaries in order."""

from __future__ import annotations

import copy
import os
import random
from typing import Any

import pytest
from msgspec import Struct

from common import limits
from common.ids import GroupId, UserId
from common.messages.operator import Registration
from tests.support.random_commands import random_command
from tests.support.tracker_harness import TrackerHarness
from tracker.core.budgets import Budget, Budgets
from tracker.core.changes.accounts import AccountDisabled, PasswordReplaced, RegistrationSet
from tracker.core.changes.base import Change
from tracker.core.changes.groups import LogTrimmed, RekeyPending, RequestMade
from tracker.core.records import Share
from tracker.core.share_names import ShareNames
from tracker.core.state import State
from tracker.core.undo import UndoLog
from tracker.core.unshared_manifests import UnsharedManifests

# Dictionaries of the mirror that nothing reads in order.
UNORDERED = {"devices", "bindings", "manifests", "offers_of", "shared_again", "names_of", "by_id"}
UNORDERED |= {
    "offers",
    "shares",
    "manifest_bytes",
    "_encoded",
    "devices_of",
    "groups_of",
    "requests_of",
}


def picture(value: Any, name: str = "") -> Any:
    """Return all of a mirror as plain values; empty tables of users count as absent."""
    if isinstance(value, dict):
        items = [(key, picture(each)) for key, each in value.items()]
        return dict(items) if name in UNORDERED else items
    if isinstance(value, State | ShareNames | UnsharedManifests):
        return {
            key: picture(each, key)
            for key, each in vars(value).items()
            if key not in ("undo", "budgets", "_device_rows")
        }
    if isinstance(value, Struct):
        return {key: picture(getattr(value, key), key) for key in value.__struct_fields__}
    if hasattr(value, "__slots__") and hasattr(value, "__dataclass_fields__"):
        names = [each for each in value.__dataclass_fields__ if each != "request_buckets"]
        return {key: picture(getattr(value, key), key) for key in names}
    if isinstance(value, list):
        return [(each.group, each.id) if isinstance(each, Share) else each for each in value]
    return copy.copy(value) if isinstance(value, set) else value


def left(budgets: Budgets, harness: TrackerHarness) -> dict[Any, float]:
    """Return what each user has left of each budget, rounded; full ones count as absent."""
    levels = {
        (budget, key): (round(bucket.level(harness.now.wall_ms / 1000), 6), bucket._burst)
        for budget in Budget
        for key, bucket in budgets._left[budget]._buckets.items()
    }
    return {key: level for key, (level, burst) in levels.items() if level < burst}


def test_f140_a_batch_that_is_taken_back_leaves_the_mirror_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Random batches; every other one is taken back, and is then made again and kept."""
    seed = int(os.environ.get("MINI_TORRENT_SEED", random.randrange(1 << 32)))
    print(f"MINI_TORRENT_SEED={seed}")
    monkeypatch.setattr(limits, "MANIFESTS_SHOWN_MAX", 6)
    monkeypatch.setattr(limits, "LOG_ENTRIES_MAX", 30)
    monkeypatch.setattr(limits, "LOG_ENTRIES_KEPT", 10)
    monkeypatch.setattr(limits, "TOMBSTONE_LIFE_S", 600)
    rng, harness = random.Random(seed), TrackerHarness(seed)
    undone = 0
    for _ in range(300):
        before = picture(harness.state)
        budgets = copy.deepcopy(harness.state.budgets)
        made = len(harness.changes)
        harness.state.begin()
        for _ in range(rng.choice([1, 3, 20])):
            random_command(harness, rng)
            if rng.random() < 0.3:  # a question during the batch fills a cache
                for group in harness.state.groups.values():
                    harness.state.device_rows(group)
        changes = harness.changes[made:]
        after = picture(harness.state)
        harness.state.take_back()
        assert picture(harness.state) == before
        assert left(harness.state.budgets, harness) == left(budgets, harness)
        for group in harness.state.groups.values():
            rows = harness.state.device_rows(group)
            harness.state._device_rows.clear()
            assert rows == harness.state.device_rows(group)
        undone += len(changes)
        for change in changes:
            change.apply(harness.state)
        assert picture(harness.state) == after
    assert undone > 1_000


@pytest.mark.parametrize(
    "change",
    [
        PasswordReplaced(UserId("alice"), "another"),
        AccountDisabled(UserId("alice"), True),
        RegistrationSet(Registration.CLOSED),
        RekeyPending(GroupId("lab")),
        LogTrimmed(GroupId("lab"), 1),
    ],
    ids=lambda change: type(change).__name__,
)
def test_a_single_change_is_taken_back(change: Change) -> None:
    """Those that random commands make seldom, or in pairs that cancel out."""
    harness = TrackerHarness()
    harness.group("lab", harness.user("alice"))
    before = picture(harness.state)
    harness.state.begin()
    change.apply(harness.state)
    assert picture(harness.state) != before
    harness.state.take_back()
    assert picture(harness.state) == before


def test_a_request_that_is_taken_back_costs_no_attempt() -> None:
    harness = TrackerHarness()
    group = harness.state.groups[harness.group("lab", harness.user("alice"))]
    for _ in range(3 * limits.REQUEST_BURST):
        harness.state.begin()
        RequestMade(group.id, UserId("eve"), harness.now.wall_ms).apply(harness.state)
        harness.state.take_back()
    assert group.request_buckets.wait_s(UserId("eve"), harness.now.wall_ms / 1000) == 0


def test_a_dictionary_gets_back_its_order() -> None:
    undo, table = UndoLog(), dict(zip("abcdef", range(6), strict=True))
    undo.begin()
    for key in "bf":
        undo.removal(table, key)
        del table[key]
    for key in "bgc":
        undo.item(table, key)
        table[key] = 9
    undo.removal(table, "c")
    del table["c"]
    undo.take_back()
    assert list(table.items()) == list(zip("abcdef", range(6), strict=True))


def test_a_batch_that_is_kept_stays_when_the_next_one_is_taken_back() -> None:
    undo, table = UndoLog(), {"a": 1}
    undo.begin()
    undo.item(table, "a")
    table["a"] = 2
    undo.keep()
    undo.begin()
    undo.item(table, "b")
    table["b"] = 3
    undo.take_back()
    assert table == {"a": 2}
    with pytest.raises(AssertionError, match="open"):
        undo.begin()
        undo.begin()
