"""Selection of a tracker: order, preference and the rules for another one."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.crypto.keys import new_pair
from common.link import Tracker
from peer.tracker_client.selection import ALLOW_ANY_S, TrackerSelector, WrongTracker

ONE, TWO = (Tracker(f"tcp://192.0.2.{number}:5000", new_pair().public) for number in (1, 2))


def test_the_preferred_tracker_comes_first_also_after_a_restart(tmp_path: Path) -> None:
    memory = tmp_path / "tracker"
    selector = TrackerSelector([ONE, TWO], memory)
    assert (selector.preferred, selector.in_order()) == (None, [ONE, TWO])
    selector.pin(TWO)
    assert TrackerSelector([ONE, TWO], memory).in_order() == [TWO, ONE]
    assert TrackerSelector([ONE], memory).preferred is None


def test_a_damaged_memory_prefers_no_tracker(tmp_path: Path) -> None:
    memory = tmp_path / "tracker"
    memory.write_bytes(b"\xff")
    assert TrackerSelector([ONE, TWO], memory).in_order() == [ONE, TWO]


def test_a_memory_that_cannot_be_written_does_not_stop_a_login(tmp_path: Path) -> None:
    selector = TrackerSelector([ONE, TWO], tmp_path / "absent" / "tracker")
    selector.pin(TWO)
    assert selector.preferred == TWO


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
