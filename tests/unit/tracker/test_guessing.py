from __future__ import annotations

from tracker.guessing import ACCOUNT_FAILURES, ADDRESS_FAILURES, Buckets, Guesses, Rate


def attempts(guesses: Guesses, count: int, now: float, **who: object) -> int:
    """How many of ``count`` guesses at once are granted."""
    asked = {"user": "alice", "device": b"d", "address": "192.0.2.7", "trusted": False, **who}
    return sum(guesses.begin(**asked, now=now) == 0 for _ in range(count))  # type: ignore[arg-type]


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    buckets = Buckets(Rate(burst=3, per_s=2))
    assert [buckets.take("k", 0.0) for _ in range(4)] == [True, True, True, False]
    assert buckets.wait_s("k", 0.0) == 0.5
    assert buckets.take("k", 0.5)
    assert not buckets.take("k", 0.6)
    assert buckets.take("other", 0.6)


def test_a_clock_that_stands_still_or_a_full_bucket_gives_no_more() -> None:
    buckets = Buckets(Rate(burst=2, per_s=1))
    assert [buckets.take("k", 1e6) for _ in range(3)] == [True, True, False]


def test_buckets_are_bounded_and_forget_the_one_unused_longest() -> None:
    buckets = Buckets(Rate(burst=1, per_s=0.001), buckets_max=2)
    for key in ("a", "b", "c"):
        assert buckets.take(key, 0.0)
    assert buckets.take("a", 0.0)
    assert not buckets.take("c", 0.0)


def test_h34_an_account_is_guessed_at_slowly_from_however_many_devices() -> None:
    guesses = Guesses()
    granted = sum(
        attempts(guesses, 1, 0.0, device=bytes([n]), address=f"192.0.2.{n}") for n in range(100)
    )
    assert granted == ACCOUNT_FAILURES.burst
    an_hour_later = sum(
        attempts(guesses, 1, 3600.0 + n, device=bytes([n]), address=f"192.0.2.{n}")
        for n in range(100)
    )
    assert an_hour_later < 10


def test_one_address_with_ever_new_keys_is_slowed_too() -> None:
    guesses = Guesses()
    granted = sum(
        attempts(guesses, 1, 0.0, user=f"u{n}", device=n.to_bytes(4, "big")) for n in range(500)
    )
    assert granted == ADDRESS_FAILURES.burst


def test_the_right_password_costs_nothing() -> None:
    guesses = Guesses()
    for _ in range(100):
        assert guesses.begin("alice", b"d", "192.0.2.7", False, 0.0) == 0
        guesses.succeeded("alice", b"d", "192.0.2.7", False, 0.0)


def test_a_device_that_was_let_in_before_is_not_slowed_by_others() -> None:
    guesses = Guesses()
    attempts(guesses, 100, 0.0, device=b"attacker", address="198.51.100.1")
    assert guesses.begin("alice", b"hers", "192.0.2.7", False, 0.0) > 0
    assert guesses.begin("alice", b"hers", "192.0.2.7", True, 0.0) == 0


def test_a_refused_attempt_does_not_lengthen_the_wait() -> None:
    guesses = Guesses()
    attempts(guesses, 5, 0.0)
    first = guesses.begin("alice", b"d", "192.0.2.7", False, 0.0)
    attempts(guesses, 50, 1.0)
    assert guesses.begin("alice", b"d", "192.0.2.7", False, first) == 0


def test_accounts_are_not_made_without_end() -> None:
    guesses = Guesses()
    made = sum(guesses.create(n.to_bytes(4, "big"), "192.0.2.7", 0.0) == 0 for n in range(1000))
    assert made == 200
    assert guesses.create(b"x", "192.0.2.8", 0.0) == 0
