from __future__ import annotations

import pytest

from tracker.core.throttle import (
    ACCOUNT_FAILURES,
    ACCOUNT_NETWORK_FAILURES,
    ADDRESS_FAILURES,
    ADDRESS_LOGINS,
    CREATIONS,
    KNOWN_DEVICES_MAX,
    USER_LOGINS,
    Attempt,
    Attempted,
    LoginThrottle,
)

HOUR_S = 3600


def attempts(throttle: LoginThrottle, count: int, now: float, **who: object) -> int:
    """Return how many of ``count`` guesses at once are granted."""
    asked = {"user": "alice", "device": b"d", "address": "192.0.2.7", "trusted": False, **who}
    return sum(throttle.begin(**asked, now=now) == 0 for _ in range(count))  # type: ignore[arg-type]


def guessing(throttle: LoginThrottle, begin_s: int, end_s: int, addresses: list[str]) -> int:
    """Return the guesses granted to an attacker who tries every second, each with a fresh key."""
    return sum(
        attempts(throttle, 1, float(now), device=f"{now} {address}".encode(), address=address)
        for now in range(begin_s, end_s)
        for address in addresses
    )


def test_h34_guesses_at_an_account_are_slow_from_any_number_of_devices() -> None:
    throttle = LoginThrottle()
    granted = sum(attempts(throttle, 1, 0.0, device=bytes([n])) for n in range(100))
    assert granted == ACCOUNT_NETWORK_FAILURES.burst
    assert (
        guessing(throttle, 0, HOUR_S, ["192.0.2.7"]) == HOUR_S * ACCOUNT_NETWORK_FAILURES.per_s - 1
    )


def test_h34_guesses_at_an_account_are_slow_from_any_number_of_addresses() -> None:
    throttle = LoginThrottle()
    many = [f"192.0.2.{n}" for n in range(200)]
    granted = sum(attempts(throttle, 1, 0.0, device=b"0", address=address) for address in many)
    assert granted == 5  # a key has its budget wherever it is used
    granted += guessing(throttle, 0, 600, many)
    assert granted <= ACCOUNT_FAILURES.burst + 600 * ACCOUNT_FAILURES.per_s


def test_h46_guesses_from_other_networks_do_not_lock_a_user_out() -> None:
    throttle = LoginThrottle()
    few = [f"198.51.100.{n}" for n in range(11)]
    for hour in range(3):
        guessing(throttle, hour * HOUR_S, (hour + 1) * HOUR_S, few[: 1 + 5 * hour])
        now = (hour + 1.0) * HOUR_S
        assert throttle.begin("alice", f"new {hour}".encode(), "192.0.2.7", False, now) == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:2", True),  # as many as one likes come with a connection
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:192.0.2.7", "192.0.2.7", True),
        ("192.0.2.7", "192.0.2.8", False),  # IPv4 addresses of one network have several owners
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("", "", True),
        ("no address", "no address either", False),
    ],
)
def test_h46_addresses_of_one_network_share_a_budget(one: str, other: str, same: bool) -> None:
    throttle = LoginThrottle()
    for number in range(10):
        attempts(throttle, 1, 0.0, device=bytes([number]), address=one)
    assert attempts(throttle, 1, 0.0, device=b"other", address=other) == (not same)


def test_h46_a_device_that_logged_in_before_has_its_own_budget() -> None:
    throttle = LoginThrottle()
    assert not throttle.knows("alice", b"hers")
    throttle.begin("alice", b"hers", "192.0.2.7", False, 0.0)
    throttle.succeeded("alice", b"hers", "192.0.2.7", False, 0.0)
    assert throttle.knows("alice", b"hers")
    assert not throttle.knows("bob", b"hers")
    # Not even guesses from her very address, about any user, keep it out.
    for number in range(500):
        attempts(throttle, 1, 0.0, user=f"u{number % 50}", device=number.to_bytes(4, "big"))
    assert throttle.begin("alice", b"new", "192.0.2.7", throttle.knows("alice", b"new"), 0.0) > 0
    assert attempts(throttle, 100, 0.0, device=b"hers", trusted=True) == 5


def test_h46_devices_of_other_users_do_not_evict_known_devices() -> None:
    throttle = LoginThrottle()
    throttle.succeeded("alice", b"first", "", False, 0.0)
    for number in range(20_000):
        throttle.succeeded("eve", number.to_bytes(4, "big"), "", False, 0.0)
    assert throttle.knows("alice", b"first")
    for number in range(KNOWN_DEVICES_MAX):
        throttle.succeeded("alice", number.to_bytes(4, "big"), "", False, 0.0)
    assert not throttle.knows("alice", b"first")


def test_one_address_with_many_device_keys_is_slowed_too() -> None:
    throttle = LoginThrottle()
    granted = sum(
        attempts(throttle, 1, 0.0, user=f"u{n}", device=n.to_bytes(4, "big")) for n in range(500)
    )
    assert granted == ADDRESS_FAILURES.burst


def test_the_right_password_costs_nothing() -> None:
    throttle = LoginThrottle()
    for _ in range(100):
        assert throttle.begin("alice", b"d", "192.0.2.7", False, 0.0) == 0
        throttle.succeeded("alice", b"d", "192.0.2.7", False, 0.0)


def test_a_known_device_is_not_slowed_by_others() -> None:
    throttle = LoginThrottle()
    for number in range(100):
        attempts(throttle, 1, 0.0, device=bytes([number]))
    assert throttle.begin("alice", b"hers", "192.0.2.7", False, 0.0) > 0
    assert throttle.begin("alice", b"hers", "192.0.2.7", True, 0.0) == 0


def test_a_refused_attempt_does_not_lengthen_the_wait() -> None:
    throttle = LoginThrottle()
    attempts(throttle, 5, 0.0)
    first = throttle.begin("alice", b"d", "192.0.2.7", False, 0.0)
    attempts(throttle, 50, 1.0)
    assert throttle.begin("alice", b"d", "192.0.2.7", False, first) == 0


def test_the_creation_of_accounts_is_limited() -> None:
    throttle = LoginThrottle()
    made = sum(throttle.create(n.to_bytes(4, "big"), "192.0.2.7", 0.0) == 0 for n in range(1000))
    assert made == 200
    assert throttle.create(b"x", "192.0.2.8", 0.0) == 0


def logins(throttle: LoginThrottle, count: int, now: float, **who: object) -> int:
    """Return how many of ``count`` consecutive logins with the right password are granted."""
    done = 0
    for number in range(count):
        asked = {"user": "alice", "device": b"%d" % number, "address": "192.0.2.7"} | who
        if throttle.begin(**asked, trusted=False, now=now) == 0:  # type: ignore[arg-type]
            throttle.succeeded(**asked, trusted=False, now=now)  # type: ignore[arg-type]
            done += 1
    return done


def test_h57_right_passwords_cost_budget_and_a_fleet_has_enough() -> None:
    throttle = LoginThrottle()
    burst = round(USER_LOGINS.burst)
    assert burst >= 200
    assert logins(throttle, burst + 50, 0.0) == burst
    assert logins(throttle, 50, 10.0) == 10 * USER_LOGINS.per_s
    # It is paid by the user, wherever they are, and by no other user.
    assert logins(throttle, 5, 10.0, address="192.0.2.9") == 0
    assert logins(throttle, 5, 10.0, user="bob", address="192.0.2.9") == 5


def test_h57_logins_of_all_accounts_of_an_address_share_a_budget() -> None:
    throttle = LoginThrottle()
    done = sum(logins(throttle, 1, 0.0, user=f"u{number}") for number in range(500))
    assert done == ADDRESS_LOGINS.burst
    assert logins(throttle, 1, 0.0, user="alice", address="192.0.2.9") == 1


def test_h57_wrong_passwords_do_not_use_up_the_budget_of_right_ones() -> None:
    throttle = LoginThrottle()
    many = [f"192.0.2.{n}" for n in range(100)]
    guessing(throttle, 0, 60, many)
    throttle.succeeded("alice", b"hers", "198.51.100.1", True, 60.0)
    assert throttle.begin("alice", b"hers", "198.51.100.1", True, 60.0) == 0


def test_h57_an_attempt_without_a_place_costs_nothing() -> None:
    throttle = LoginThrottle()
    who = ("alice", b"d", "192.0.2.7", False, 0.0)
    for _ in range(20):
        assert throttle.begin(*who) == 0
        throttle.dropped(*who)


# -- several trackers ----------------------------------------------------------------------------


def spread(kind: Attempted, seconds: int, **who: object) -> int:
    """Return the attempts granted to who asks three trackers in turn, a few times a second."""
    throttles = [LoginThrottle() for _ in range(3)]
    asked = {"user": "alice", "device": b"d", "address": "192.0.2.7", "trusted": False, **who}
    granted = 0
    for at in range(seconds * 3):
        one, now = throttles[at % 3], at / 3.0
        if kind is Attempted.NEW:
            wait_s = one.create(asked["device"], asked["address"], now)  # type: ignore[arg-type]
        else:
            wait_s = one.begin(**asked, now=now)  # type: ignore[arg-type]
        if wait_s:
            continue
        granted += 1
        if kind is Attempted.RIGHT:
            one.succeeded(**asked, now=now)  # type: ignore[arg-type]
        for other in throttles:
            if other is not one:
                other.elsewhere(Attempt(kind, **asked), now)  # type: ignore[arg-type]
    return granted


def test_h157_guesses_at_several_trackers_count_at_all_of_them() -> None:
    expected = ACCOUNT_NETWORK_FAILURES.burst + 600 * ACCOUNT_NETWORK_FAILURES.per_s
    assert spread(Attempted.WRONG, 600) <= expected + 1


def test_h157_new_accounts_at_several_trackers_count_at_all_of_them() -> None:
    assert spread(Attempted.NEW, 600) <= CREATIONS.burst + 600 * CREATIONS.per_s + 1


def test_right_passwords_at_several_trackers_count_at_all_of_them() -> None:
    assert USER_LOGINS.burst < spread(Attempted.RIGHT, 600) <= USER_LOGINS.burst + 601


def test_a_device_that_logged_in_at_another_tracker_is_known() -> None:
    one = LoginThrottle()
    assert not one.knows("alice", b"d")
    one.elsewhere(Attempt(Attempted.RIGHT, "alice", b"d", "192.0.2.7", False), 0.0)
    assert one.knows("alice", b"d")
    one.elsewhere(Attempt(Attempted.WRONG, "alice", b"e", "192.0.2.7", False), 0.0)
    assert not one.knows("alice", b"e")
