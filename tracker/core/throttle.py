"""How fast passwords may be tried, and commands be sent.

Owns token buckets with an injected clock, and the rule that slows guesses: for each account, each
device key, each network, and each account at one place there is a budget of failures that refills
slowly. What one place may fail at an account is little, and what all may is much more: who guesses
does not keep its user from logging in at another place. A device that is logged in needs no
password, and one that was let in before has a budget of its own. Right passwords have budgets too,
of the account and of the address: each costs the tracker a hash.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

BUCKETS_MAX = 10_000  # remembered at a time; the one unused longest is forgotten first


@dataclass(frozen=True, slots=True)
class Rate:
    """``burst`` at once, and ``per_s`` a second in the long run."""

    burst: float
    per_s: float


class KeyedTokenBuckets:
    """A token bucket for each of many keys, in bounded memory."""

    def __init__(self, rate: Rate, buckets_max: int = BUCKETS_MAX) -> None:
        self._rate = rate
        self._max = buckets_max
        self._levels: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def _level(self, key: Hashable, now: float) -> float:
        level, at = self._levels.get(key, (self._rate.burst, now))
        return min(self._rate.burst, level + max(0.0, now - at) * self._rate.per_s)

    def wait_s(self, key: Hashable, now: float, tokens: float = 1.0) -> float:
        """Seconds until there are so many tokens; 0 when there are."""
        missing = tokens - self._level(key, now)
        return max(0.0, missing / self._rate.per_s)

    def take(self, key: Hashable, now: float, tokens: float = 1.0) -> bool:
        """Take so many tokens if there are."""
        level = self._level(key, now)
        taken = level >= tokens
        self._put(key, level - tokens if taken else level, now)
        return taken

    def give_back(self, key: Hashable, now: float) -> None:
        """Return a token that was taken."""
        self._put(key, min(self._rate.burst, self._level(key, now) + 1.0), now)

    def _put(self, key: Hashable, level: float, now: float) -> None:
        self._levels[key] = (level, now)
        self._levels.move_to_end(key)
        if len(self._levels) > self._max:
            self._levels.popitem(last=False)


# Guesses at one account: about 700 a day from one network, 8,700 from all. Twelve networks
# can use up all of these, and so keep its user from logging in from a new network.
ACCOUNT_NETWORK_FAILURES = Rate(burst=5, per_s=1 / 120)
ACCOUNT_FAILURES = Rate(burst=100, per_s=1 / 10)
DEVICE_FAILURES = Rate(burst=5, per_s=1 / 30)
# Many people may share one address, so it bears more; device keys cost an attacker nothing.
ADDRESS_FAILURES = Rate(burst=50, per_s=1 / 2)
# Right passwords cost a hash each as well: a user's fleet of 100 devices twice over, and the fleets
# of two users behind one address. In the long run a tenth of a core for one account.
USER_LOGINS = Rate(burst=200, per_s=1)
ADDRESS_LOGINS = Rate(burst=400, per_s=2)
# Accounts made from one device or address: enough to set up a lab, too few to fill a disk.
CREATIONS = Rate(burst=200, per_s=1 / 60)
KNOWN_DEVICES_MAX = 10  # of each user, remembered as let in
IPV6_NETWORK_BITS = 64  # the least that a connection is given: who has one has all addresses in it


class LoginThrottle:
    """Grants attempts. A token is taken beforehand, so that many at once gain nothing.

    A right password takes its own token instead, afterwards: guesses of others must not use up what
    the user has for logging in. How many are tried at once is bounded by
    ``tracker.core.hashing_queue``.

    ``trusted``: the device is logged in as that user, or `knows` says that it was. Its own budget
    is all that counts then, since its key is nobody else's.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[str, OrderedDict[bytes, None]] = OrderedDict()
        self._accounts = KeyedTokenBuckets(ACCOUNT_FAILURES)
        self._account_networks = KeyedTokenBuckets(ACCOUNT_NETWORK_FAILURES)
        self._devices = KeyedTokenBuckets(DEVICE_FAILURES)
        self._addresses = KeyedTokenBuckets(ADDRESS_FAILURES)
        self._creations = KeyedTokenBuckets(CREATIONS)
        self._user_logins = KeyedTokenBuckets(USER_LOGINS)
        self._address_logins = KeyedTokenBuckets(ADDRESS_LOGINS)

    def _concerned(
        self, user: str, device: bytes, address: str, trusted: bool
    ) -> list[tuple[KeyedTokenBuckets, Hashable]]:
        concerned: list[tuple[KeyedTokenBuckets, Hashable]] = [(self._devices, device)]
        if trusted:
            return concerned
        network = network_of(address)
        concerned += [(self._accounts, user), (self._account_networks, (user, network))]
        if network:
            concerned.append((self._addresses, network))
        return concerned

    def _logins(
        self, user: str, address: str, trusted: bool
    ) -> list[tuple[KeyedTokenBuckets, Hashable]]:
        """What a right password costs."""
        network = network_of(address)
        logins: list[tuple[KeyedTokenBuckets, Hashable]] = [(self._user_logins, user)]
        if network and not trusted:
            logins.append((self._address_logins, network))
        return logins

    def knows(self, user: str, device: bytes) -> bool:
        """Whether ``device`` was let in as ``user`` by a password before."""
        return device in self._known.get(user, ())

    def begin(self, user: str, device: bytes, address: str, trusted: bool, now: float) -> float:
        """Begin an attempt: 0, or the seconds to wait before the next one is granted."""
        concerned = self._concerned(user, device, address, trusted)
        needed = concerned + self._logins(user, address, trusted)
        wait = max(buckets.wait_s(key, now) for buckets, key in needed)
        if wait == 0:
            for buckets, key in concerned:
                buckets.take(key, now)
        return wait

    def dropped(self, user: str, device: bytes, address: str, trusted: bool, now: float) -> None:
        """The attempt was not made: it found no network, or lost it."""
        for buckets, key in self._concerned(user, device, address, trusted):
            buckets.give_back(key, now)

    def succeeded(self, user: str, device: bytes, address: str, trusted: bool, now: float) -> None:
        """The attempt was no guess."""
        for buckets, key in self._concerned(user, device, address, trusted):
            buckets.give_back(key, now)
        for buckets, key in self._logins(user, address, trusted):
            buckets.take(key, now)
        # Bounded for each user as well: who may log in often forgets nothing but their own devices.
        mine = self._known.setdefault(user, OrderedDict())
        mine[device] = None
        mine.move_to_end(device)
        if len(mine) > KNOWN_DEVICES_MAX:
            mine.popitem(last=False)
        self._known.move_to_end(user)
        if len(self._known) > BUCKETS_MAX:
            self._known.popitem(last=False)

    def create(self, device: bytes, address: str, now: float) -> float:
        """Begin to make an account: 0, or the seconds to wait."""
        keys: list[Hashable] = [device, *([network_of(address)] if address else [])]
        wait = max(self._creations.wait_s(key, now) for key in keys)
        if wait == 0:
            for key in keys:
                self._creations.take(key, now)
        return wait


def network_of(address: str) -> str:
    """What one attacker has all of: an address, or for IPv6 the network that it is in."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(ip), IPV6_NETWORK_BITS), strict=False))
