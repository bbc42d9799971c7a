from __future__ import annotations

import random

import pytest

from tracker.core.hashing_queue import HashingQueue, QueueFull


def fill(turns: HashingQueue[str], address: str, lane: str, count: int) -> int:
    """Return how many of ``count`` items got a place."""
    found = 0
    for number in range(count):
        try:
            turns.add(address, lane, f"{lane} {number}")
        except QueueFull:
            continue
        found += 1
    return found


def order(turns: HashingQueue[str]) -> list[str]:
    taken = []
    while len(turns):
        lane, item = turns.take()
        turns.done(lane)
        taken.append(item)
    return taken


def test_h57_a_user_has_two_places_waiting_and_running_together() -> None:
    turns: HashingQueue[str] = HashingQueue(32, 2)
    assert fill(turns, "here", "eve", 50) == 2
    lane, _ = turns.take()
    assert fill(turns, "there", "eve", 50) == 0  # one at work, one waiting, from whatever address
    turns.done(lane)
    assert fill(turns, "there", "eve", 50) == 1


def test_h57_addresses_take_turns_and_so_do_the_users_at_one() -> None:
    turns: HashingQueue[str] = HashingQueue(32, 2)
    for name in ("eve", "mallory", "trudy"):
        fill(turns, "crowded", name, 2)
    fill(turns, "quiet", "alice", 1)
    assert order(turns) == [
        "eve 0",
        "alice 0",
        "mallory 0",
        "trudy 0",
        "eve 1",
        "mallory 1",
        "trudy 1",
    ]


def test_h57_the_least_recently_served_is_next() -> None:
    turns: HashingQueue[str] = HashingQueue(32, 2)
    fill(turns, "crowded", "eve", 2)
    turns.done(turns.take()[0])
    fill(turns, "crowded", "alice", 1)
    fill(turns, "crowded", "eve", 1)
    assert order(turns) == ["alice 0", "eve 1", "eve 0"]


def test_h57_a_full_queue_evicts_for_an_address_with_fewer_places() -> None:
    turns: HashingQueue[str] = HashingQueue(6, 2)
    for name in ("a", "b", "c"):
        assert fill(turns, "crowded", name, 2) == 2
    # Another address: the newest of a user at the one with most of them gives way, …
    assert turns.add("quiet", "alice", "alice 0") == "a 1"
    # … so it is for another user at that very address, while somebody has two places there, …
    assert turns.add("crowded", "bob", "bob 0") == "b 1"
    assert turns.add("crowded", "dora", "dora 0") == "c 1"
    # … and nobody makes way for as much as they have themselves.
    with pytest.raises(QueueFull):
        turns.add("crowded", "emil", "emil 0")
    assert sorted(order(turns)) == ["a 0", "alice 0", "b 0", "bob 0", "c 0", "dora 0"]


def test_h57_whatever_comes_the_bounds_hold_and_nothing_is_lost() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    turns: HashingQueue[int] = HashingQueue(8, 2)
    waiting: dict[int, int] = {}  # item -> lane
    at_work: list[int] = []
    for number in range(3_000):
        lane = rng.randrange(12)
        held = sum(each == lane for each in [*waiting.values(), *at_work])
        try:
            evicted = turns.add(f"address {lane % 3}", lane, number)
            assert held < 2
            waiting[number] = lane
            if evicted is not None:
                del waiting[evicted]
        except QueueFull:
            assert held == 2 or len(waiting) == 8
        if waiting and rng.random() < 0.5:
            lane, item = turns.take()
            assert waiting.pop(item) == lane
            at_work.append(lane)
        if at_work and rng.random() < 0.6:
            turns.done(at_work.pop(rng.randrange(len(at_work))))
        assert len(turns) == len(waiting) <= 8
    with pytest.raises(KeyError):
        while True:
            turns.done(turns.take()[0])
