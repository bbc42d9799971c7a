"""Count of copies on other devices, from the tracker's rows."""

from __future__ import annotations

import time

from common.globs import matches
from common.ids import DeviceKey
from common.messages.tracker import HolderRow, HolderState
from peer.follows.copies import judge, shown

HOLDS, FETCHING, FOLLOWS, AWAY = HolderState
OWN = DeviceKey(b"0" * 32)


def device(
    number: int, state: HolderState, *, copy: bool = False, globs: list[str] | None = None
) -> HolderRow:
    """A device; it follows the group if it has ``globs``."""
    follows = globs is not None
    return HolderRow(bytes([number]) * 32, "u", state, 0, 1, copy, follows, globs or [])


def test_copies_on_other_devices_count_also_when_they_are_away() -> None:
    rows = [
        HolderRow(OWN, "me", HOLDS, 3, 1, True),
        device(1, HOLDS, copy=True),
        device(2, AWAY, copy=True),
        device(3, AWAY, globs=[]),
        device(4, FETCHING),
    ]
    found = judge(rows, "film", OWN, 2)
    assert found.done
    assert (found.copies, len(found.came), found.missing) == (2, 2, ())
    more = judge(rows, "film", OWN, 3, {rows[1].device})
    assert not more.done
    assert [row.device[0] for row in more.came] == [2]
    assert [row.device[0] for row in more.missing] == [3, 4]


def test_all_means_the_other_followers_whose_patterns_match() -> None:
    rows = [
        HolderRow(OWN, "me", HOLDS, 3, 1, True, True),
        device(1, HOLDS, copy=True, globs=[]),
        device(2, FOLLOWS, globs=["*.iso"]),
        device(3, FETCHING),
        device(4, AWAY, globs=["f*"]),
    ]
    found = judge(rows, "film", OWN, None)
    assert (found.wanted, found.done) == (2, False)
    assert [row.device[0] for row in found.missing] == [4]
    assert judge(rows, "x.txt", OWN, None).done
    assert judge(rows[:1], "film", OWN, None).wanted == 0


def test_followers_of_other_names_are_not_shown() -> None:
    rows = [device(1, FOLLOWS, globs=["*.iso"]), device(2, FOLLOWS, globs=[]), device(3, FETCHING)]
    assert [row.device[0] for row in shown(rows, "film")] == [2, 3]
    assert [row.device[0] for row in shown(rows, "film.ISO")] == [1, 2, 3]


def test_h109_a_hostile_pattern_is_matched_in_linear_time() -> None:
    """Backtracking would take longer than the universe has existed."""
    globs = ["*a" * 50, "*?" * 50, "[!a]*" * 20, "a*" * 50 + "b"]
    began = time.process_time()
    assert not matches(["a*" * 49 + "b"], "a" * 255)
    assert matches(globs, "a" * 255)
    assert time.process_time() - began < 10.0
