from __future__ import annotations

import random

import pytest

from tracker.core.hashing_queue import HashingQueue, QueueFull


def fill(queue: HashingQueue[str], address: str, key: str, count: int) -> int:
    """Return how many of ``count`` items got a place."""
    found = 0
    for number in range(count):
        try:
            queue.add(address, key, f"{key} {number}")
        except QueueFull:
            continue
        found += 1
    return found


def order(queue: HashingQueue[str]) -> list[str]:
    taken = []
    while len(queue):
        key, item = queue.take()
        queue.done(key)
        taken.append(item)
    return taken


def test_h57_a_user_has_two_places_waiting_and_running_together() -> None:
    queue: HashingQueue[str] = HashingQueue(32, 2)
    assert fill(queue, "here", "eve", 50) == 2
    key, _ = queue.take()
    assert fill(queue, "there", "eve", 50) == 0  # one running, one waiting, whatever the address
    queue.done(key)
    assert fill(queue, "there", "eve", 50) == 1


def test_h57_addresses_take_turns_and_so_do_the_users_at_one() -> None:
    queue: HashingQueue[str] = HashingQueue(32, 2)
    for name in ("eve", "mallory", "trudy"):
        fill(queue, "crowded", name, 2)
    fill(queue, "quiet", "alice", 1)
    assert order(queue) == [
        "eve 0",
        "alice 0",
        "mallory 0",
        "trudy 0",
        "eve 1",
        "mallory 1",
        "trudy 1",
    ]


def test_h57_the_least_recently_served_is_next() -> None:
    queue: HashingQueue[str] = HashingQueue(32, 2)
    fill(queue, "crowded", "eve", 2)
    queue.done(queue.take()[0])
    fill(queue, "crowded", "alice", 1)
    fill(queue, "crowded", "eve", 1)
    assert order(queue) == ["alice 0", "eve 1", "eve 0"]


def test_h57_a_full_queue_evicts_for_an_address_with_fewer_places() -> None:
    queue: HashingQueue[str] = HashingQueue(6, 2)
    for name in ("a", "b", "c"):
        assert fill(queue, "crowded", name, 2) == 2
    # Another address: the newest of a user at the one with most of them gives way, …
    assert queue.add("quiet", "alice", "alice 0") == "a 1"
    # … as for another user at the same address, while a user there has two places, …
    assert queue.add("crowded", "bob", "bob 0") == "b 1"
    assert queue.add("crowded", "dora", "dora 0") == "c 1"
    # … and no user loses a place to one with as many.
    with pytest.raises(QueueFull):
        queue.add("crowded", "emil", "emil 0")
    assert sorted(order(queue)) == ["a 0", "alice 0", "b 0", "bob 0", "c 0", "dora 0"]


def test_h57_whatever_comes_the_bounds_hold_and_nothing_is_lost() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    queue: HashingQueue[int] = HashingQueue(8, 2)
    waiting: dict[int, int] = {}  # item -> key
    at_work: list[int] = []
    for number in range(3_000):
        key = rng.randrange(12)
        held = sum(each == key for each in [*waiting.values(), *at_work])
        try:
            evicted = queue.add(f"address {key % 3}", key, number)
            assert held < 2
            waiting[number] = key
            if evicted is not None:
                del waiting[evicted]
        except QueueFull:
            assert held == 2 or len(waiting) == 8
        if waiting and rng.random() < 0.5:
            key, item = queue.take()
            assert waiting.pop(item) == key
            at_work.append(key)
        if at_work and rng.random() < 0.6:
            queue.done(at_work.pop(rng.randrange(len(at_work))))
        assert len(queue) == len(waiting) <= 8
    with pytest.raises(KeyError):
        while True:
            queue.done(queue.take()[0])
