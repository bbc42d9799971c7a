"""Login throttle: budgets for password guesses, right passwords and new accounts.

Owns: the budgets. Not here: how many passwords are hashed at once (see tracker.core.hashing_queue).

Each account, each device key, each network, and each account at one network has a budget of
failures that refills slowly. The budget of one network at an account is small and that of all is
large, so an attacker does not keep a user from logging in from another network. A device that is
logged in needs no password. A device that logged in before has a budget of its own. Right passwords
have budgets too, of the account and of the address: each costs the tracker a hash.
"""

from __future__ import annotations

import enum
import ipaddress
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

from common.token_bucket import KeyedTokenBuckets, Rate

# Guesses at one account: about 700 a day from one network, 8,700 from all. Twelve networks
# can use up all of these, and so keep its user from logging in from a new network.
ACCOUNT_NETWORK_FAILURES = Rate(burst=5, per_s=1 / 120)
ACCOUNT_FAILURES = Rate(burst=100, per_s=1 / 10)
DEVICE_FAILURES = Rate(burst=5, per_s=1 / 30)
# Many people may share one address, so it bears more; device keys cost an attacker nothing.
ADDRESS_FAILURES = Rate(burst=50, per_s=1 / 2)
# Right passwords cost a hash each as well. Enough for a user's fleet of 100 devices twice over, and
# for the fleets of two users behind one address; in the long run a tenth of a core for one account.
USER_LOGINS = Rate(burst=200, per_s=1)
ADDRESS_LOGINS = Rate(burst=400, per_s=2)
# Accounts made from one device or address: enough to set up a lab, too few to fill a disk.
CREATIONS = Rate(burst=200, per_s=1 / 60)
KNOWN_DEVICES_MAX = 10  # devices of each user that logged in before
KNOWN_USERS_MAX = 10_000
IPV6_NETWORK_BITS = 64  # the smallest network that a connection is given


class Attempted(enum.Enum):
    """Kind of an attempt: a right or a wrong password, or a new account."""

    RIGHT = "right"
    WRONG = "wrong"
    NEW = "new"


@dataclass(frozen=True, slots=True)
class Attempt:
    """Attempt at one tracker, which counts at all of them. Fields as for `LoginThrottle.begin`."""

    kind: Attempted
    user: str
    device: bytes
    address: str
    trusted: bool


class LoginThrottle:
    """Grants attempts to log in and to create accounts.

    A token is taken before an attempt, so that many attempts at once gain nothing. After a right
    password it is returned, and a token of another budget is taken: guesses of others must not use
    up the logins of the user.

    ``trusted``: the device is logged in as that user, or was (`knows`). Only the budget of the
    device counts then, because no other user has its key.
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
        """Return the buckets that a right password is paid from."""
        network = network_of(address)
        logins: list[tuple[KeyedTokenBuckets, Hashable]] = [(self._user_logins, user)]
        if network and not trusted:
            logins.append((self._address_logins, network))
        return logins

    def knows(self, user: str, device: bytes) -> bool:
        """Whether ``device`` logged in as ``user`` before."""
        return device in self._known.get(user, ())

    def begin(self, user: str, device: bytes, address: str, trusted: bool, now: float) -> float:
        """Begin an attempt. Return 0, or the seconds to wait for the next one."""
        concerned = self._concerned(user, device, address, trusted)
        needed = concerned + self._logins(user, address, trusted)
        wait = max(buckets.wait_s(key, now) for buckets, key in needed)
        if wait == 0:
            for buckets, key in concerned:
                buckets.take(key, now)
        return wait

    def dropped(self, user: str, device: bytes, address: str, trusted: bool, now: float) -> None:
        """Cancel an attempt: it got no place in the queue, or lost it."""
        for buckets, key in self._concerned(user, device, address, trusted):
            buckets.give_back(key, now)

    def succeeded(self, user: str, device: bytes, address: str, trusted: bool, now: float) -> None:
        """Pay for an attempt with a right password."""
        for buckets, key in self._concerned(user, device, address, trusted):
            buckets.give_back(key, now)
        for buckets, key in self._logins(user, address, trusted):
            buckets.take(key, now)
        # Bounded for each user too: frequent logins of a user evict only devices of that user.
        mine = self._known.setdefault(user, OrderedDict())
        mine[device] = None
        mine.move_to_end(device)
        if len(mine) > KNOWN_DEVICES_MAX:
            mine.popitem(last=False)
        self._known.move_to_end(user)
        if len(self._known) > KNOWN_USERS_MAX:
            self._known.popitem(last=False)

    def elsewhere(self, attempt: Attempt, now: float) -> None:
        """Count an attempt at another tracker, as far as budgets are left here."""
        who = (attempt.user, attempt.device, attempt.address, attempt.trusted)
        if attempt.kind is Attempted.NEW:
            for key in _creators(attempt.device, attempt.address):
                self._creations.take(key, now)
            return
        for buckets, key in self._concerned(*who):
            buckets.take(key, now)
        if attempt.kind is Attempted.RIGHT:
            self.succeeded(*who, now)

    def create(self, device: bytes, address: str, now: float) -> float:
        """Begin to create an account. Return 0, or the seconds to wait."""
        keys = _creators(device, address)
        wait = max(self._creations.wait_s(key, now) for key in keys)
        if wait == 0:
            for key in keys:
                self._creations.take(key, now)
        return wait


def _creators(device: bytes, address: str) -> list[Hashable]:
    return [device, *([network_of(address)] if address else [])]


def network_of(address: str) -> str:
    """Return the addresses that one attacker controls: an IPv4 address, or an IPv6 network."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(ip), IPV6_NETWORK_BITS), strict=False))
