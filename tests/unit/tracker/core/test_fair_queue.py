from __future__ import annotations

import pytest

from tracker.core.fair_queue import FairQueue


def order(*added: str) -> str:
    """Return a queue of these items; the first letter of each is its key."""
    queue = FairQueue[str]()
    for each in added:
        queue.add(each[0], each)
    return " ".join(queue.take() for _ in range(len(queue)))


@pytest.mark.parametrize(
    ("added", "taken"),
    [
        ("a1 a2 a3 b1", "a1 b1 a2 a3"),
        ("a1 b1 a2 c1 b2 a3", "a1 b1 c1 a2 b2 a3"),
        ("a1 a2 a3", "a1 a2 a3"),
    ],
)
def test_keys_take_turns_and_keep_their_order(added: str, taken: str) -> None:
    assert order(*added.split()) == taken


def test_a_late_key_waits_for_at_most_one_item_of_each_other() -> None:
    queue = FairQueue[str]()
    for number in range(5):
        queue.add("a", f"a{number}")
        queue.add("b", f"b{number}")
    assert [queue.take(), queue.take(), queue.take()] == ["a0", "b0", "a1"]
    queue.add("c", "c0")
    assert [queue.take(), queue.take(), queue.take()] == ["b1", "a2", "c0"]


def test_a_served_key_leaves_no_memory() -> None:
    queue = FairQueue[str]()
    for number in range(100):
        queue.add(number, "x")
        queue.take()
    assert (len(queue), len(queue._queues)) == (0, 0)
    with pytest.raises(KeyError, match="nothing"):
        queue.take()
