"""Selection of a tracker: order, preference and the rules for another one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random

import pytest

from common import limits
from common.crypto.keys import new_pair
from common.link import Link, Tracker, parse_link
from peer.tracker_client.selection import (
    ADDRESSES,
    ALLOW_ANY_S,
    MOVE_AGAIN_S,
    TrackerSelector,
    WrongTracker,
)

ONE, TWO = (Tracker(f"tcp://192.0.2.{number}:5000", new_pair().public) for number in (1, 2))


def test_the_preferred_tracker_comes_first_also_after_a_restart(tmp_path: Path) -> None:
    memory = tmp_path / "tracker"
    selector = TrackerSelector([ONE, TWO], memory)
    assert (selector.preferred, selector.in_order()) == (None, [[ONE], [TWO]])
    selector.pin(TWO)
    assert TrackerSelector([ONE, TWO], memory).in_order() == [[TWO], [ONE]]
    assert TrackerSelector([ONE], memory).preferred is None


def test_a_damaged_memory_prefers_no_tracker(tmp_path: Path) -> None:
    memory = tmp_path / "tracker"
    memory.write_bytes(b"\xff")
    assert TrackerSelector([ONE, TWO], memory).in_order() == [[ONE], [TWO]]


def test_a_memory_that_cannot_be_written_does_not_stop_a_login(tmp_path: Path) -> None:
    selector = TrackerSelector([ONE, TWO], tmp_path / "absent" / "tracker")
    selector.pin(TWO)
    assert selector.preferred == Link((TWO.endpoint,), TWO.key)


def test_another_tracker_is_wrong_while_a_user_is_logged_in() -> None:
    logged_in = True
    selector = TrackerSelector([ONE, TWO], logged_in=lambda: logged_in)
    selector.check(TWO, False, 0.0)  # none is preferred yet
    selector.pin(ONE)
    selector.check(ONE, False, 0.0)
    selector.check(TWO, True, 0.0)
    with pytest.raises(WrongTracker):
        selector.check(TWO, False, 0.0)
    logged_in = False
    selector.check(TWO, False, 0.0)


def test_a_login_allows_any_tracker_for_a_while_until_one_is_pinned() -> None:
    selector = TrackerSelector([ONE, TWO], logged_in=lambda: True)
    selector.pin(ONE)
    selector.allow_any(100.0)
    selector.check(TWO, False, 99.0 + ALLOW_ANY_S)
    with pytest.raises(WrongTracker):
        selector.check(TWO, False, 100.0 + ALLOW_ANY_S)
    selector.allow_any(200.0)
    selector.pin(ONE)
    with pytest.raises(WrongTracker):
        selector.check(TWO, False, 200.0)


# -- several trackers with one key ---------------------------------------------------------------

SAME = [Tracker(f"tcp://192.0.2.{number}:5000", ONE.key) for number in range(1, 5)]


def test_trackers_with_one_key_are_tried_in_random_order() -> None:
    first: Counter[Tracker] = Counter()
    for seed in range(200):
        (order,) = TrackerSelector(SAME, rng=Random(seed)).in_order()
        assert sorted(order, key=lambda where: where.endpoint) == SAME
        first[order[0]] += 1
    assert min(first[where] for where in SAME) > 20, first


def test_f145_the_tracker_used_last_is_tried_after_the_others() -> None:
    selector = TrackerSelector([TWO, *SAME], rng=Random(1))
    for where in SAME * 5:
        selector.use(where)
        other, order = selector.in_order()
        assert (other, order[-1]) == ([TWO], where)


def test_no_tracker_with_the_preferred_key_is_foreign() -> None:
    selector = TrackerSelector([TWO, *SAME], logged_in=lambda: True)
    selector.pin(SAME[2])
    for where in SAME:
        assert not selector.is_foreign(where)
        selector.check(where, False, 0.0)
    assert selector.is_foreign(TWO)
    assert [order[0].key for order in selector.in_order()] == [ONE.key, TWO.key]


def test_learned_trackers_are_used_also_after_a_restart(tmp_path: Path) -> None:
    memory = tmp_path / "tracker"
    selector = TrackerSelector([ONE, TWO], memory)
    selector.learn(ONE, [SAME[0].endpoint, SAME[1].endpoint])
    selector.learn(ONE, [SAME[0].endpoint, SAME[2].endpoint])
    for each in (selector, TrackerSelector([ONE, TWO], memory)):
        assert set(each.in_order()[0]) == {ONE, SAME[2]}
        assert each.in_order()[1] == [TWO]
        assert each.known(SAME[2]).endpoints == (SAME[2].endpoint, ONE.endpoint)
    selector.learn(ONE, [])  # one that knows no others takes nothing away
    assert set(selector.in_order()[0]) == {ONE, SAME[2]}
    assert TrackerSelector([TWO], memory).in_order() == [[TWO]]
    (tmp_path / ADDRESSES).write_bytes(b"mini-torrent://\xff")
    assert TrackerSelector([ONE, TWO], memory).in_order() == [[ONE], [TWO]]


def test_h155_a_tracker_names_no_addresses_without_end() -> None:
    selector = TrackerSelector([ONE])
    selector.learn(ONE, [f"tcp://192.0.2.{number}:5000" for number in range(2, 200)])
    assert len(selector.in_order()[0]) == limits.TRACKER_ADDRESSES_MAX + 1


def test_h155_a_link_of_listed_and_learned_trackers_can_be_read() -> None:
    """It is that of an invitation."""
    listed = [Tracker(f"tcp://t{number}.example.org:5000", ONE.key) for number in range(3)]
    selector = TrackerSelector(listed)
    endpoints = [f"tcp://192.0.2.{number}:5000" for number in range(limits.TRACKER_ADDRESSES_MAX)]
    selector.learn(ONE, endpoints)
    known = selector.known(listed[1])
    assert parse_link(known.text) == known
    assert known.endpoints[:3] == tuple(listed[at].endpoint for at in (1, 0, 2))
    assert len(selector.in_order()[0]) == 3 + limits.TRACKER_ADDRESSES_MAX, "all are tried"


def test_h156_trackers_that_send_a_peer_away_move_it_once_in_a_while() -> None:
    selector = TrackerSelector(SAME)
    assert selector.may_move(SAME[0], 100.0)
    assert not selector.may_move(SAME[1], 99.0 + MOVE_AGAIN_S)
    assert selector.may_move(SAME[1], 100.0 + MOVE_AGAIN_S)
    assert not TrackerSelector([ONE]).may_move(ONE, 100.0)
