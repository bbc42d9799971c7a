"""Selection of a tracker among several.

Owns: the order of attempts, the preferred key, the addresses of its trackers, and the rules for
another key. Trackers with one key share all accounts and groups, so any of them serves any user:
their order is random, and the one used last comes last. Trackers with different keys have
accounts of their own. Why a preferred one: with another our user would appear logged out, and all
shares and downloads would end. Its key is stored in a file.

Limits: a tracker names the addresses of further trackers with its key (`learn`). They replace those
that it named before, and are tried beside the listed ones, which stay. Not here: their check (see
``peer.tracker_client.claims``).
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from common import limits
from common.crypto.keys import key_text
from common.errors import ConfigError, StorageError, TransportError
from common.host.atomic_files import atomic_write
from common.link import Link, Tracker, links_of, parse_link

log = logging.getLogger(__name__)

ALLOW_ANY_S = 30.0  # after a login or a new account was asked for, any tracker is used
MOVE_AGAIN_S = 60.0  # a tracker that asks us to leave is obeyed once in that time
ADDRESSES = "tracker-addresses"  # file with the learned addresses, beside that with the key


class WrongTracker(TransportError):
    """Tracker that serves, and does not know the user whom the preferred one knows."""


class TrackerSelector:
    """Selector among ``trackers``, which are listed by the user.

    ``memory`` is the file with the preferred key; times are monotonic seconds.
    """

    def __init__(
        self,
        trackers: Sequence[Tracker],
        memory: Path | None = None,
        logged_in: Callable[[], bool] = lambda: False,
        rng: random.Random | None = None,
    ) -> None:
        self._listed = links_of(trackers)
        self._memory = memory
        self._logged_in = logged_in
        self._rng = rng or random.Random()
        self._preferred_key = _read(memory)
        self._learned = _learned(memory)
        self._used: Tracker | None = None
        self._any_until = float("-inf")
        self._moved_at = float("-inf")

    @property
    def preferred(self) -> Link | None:
        """The trackers that knew our user last; None if they are not listed."""
        for link in self._listed:
            if key_text(link.key) == self._preferred_key:
                return self._with_learned(link)
        return None

    def known(self, where: Tracker) -> Link:
        """Return the known addresses of the key of ``where``, as many as a link takes.

        That of ``where`` is the first, and listed ones precede learned ones.
        """
        for link in self._listed:
            if link.key == where.key:
                every = dict.fromkeys([where.endpoint, *self._with_learned(link).endpoints])
                return Link(tuple(every)[: limits.TRACKER_ADDRESSES_MAX], where.key)
        return Link((where.endpoint,), where.key)

    def in_order(self) -> list[list[Tracker]]:
        """Return the trackers by key, the preferred key first.

        Those of one key are in random order, the one used last at the end.
        """
        links = sorted(self._listed, key=lambda link: self.is_foreign(link.first))
        return [self._shuffled(self._with_learned(link)) for link in links]

    def is_foreign(self, where: Tracker) -> bool:
        """Whether trackers with another key than that of ``where`` are preferred."""
        preferred = self.preferred
        return preferred is not None and preferred.key != where.key

    def use(self, where: Tracker) -> None:
        """Note a connection to ``where``: after its end the others with its key come first."""
        self._used = where

    def may_move(self, where: Tracker, now: float) -> bool:
        """Whether to leave ``where`` for another tracker with its key, as it asks us to.

        Why not always: trackers that all ask for it would keep a peer moving.
        """
        if len(self.known(where).endpoints) < 2 or now - self._moved_at < MOVE_AGAIN_S:
            return False
        self._moved_at = now
        return True

    def learn(self, where: Tracker, endpoints: Sequence[str]) -> None:
        """Remember ``endpoints`` as those of all trackers with the key of ``where``."""
        learned = Link(tuple(endpoints[: limits.TRACKER_ADDRESSES_MAX]), where.key)
        if not learned.endpoints or learned == self._learned:
            return
        self._learned = learned
        if self._memory is not None:
            try:
                atomic_write(self._memory.with_name(ADDRESSES), learned.text.encode())
            except StorageError as error:
                log.warning("the addresses of the trackers were not recorded: %s", error)

    def allow_any(self, now: float) -> None:
        """Allow any tracker for a while: the user logs in or makes an account."""
        self._any_until = now + ALLOW_ANY_S

    def check(self, where: Tracker, knows_user: bool, now: float) -> None:
        """Raise `WrongTracker` if ``where`` must not be used now.

        That is so while a user of the preferred tracker is logged in: their transfers go on without
        a tracker. A tracker that knows a user of this device can always be used.
        """
        allowed = knows_user or not self._logged_in() or now < self._any_until
        if not allowed and self.is_foreign(where):
            raise WrongTracker(f"the tracker at {where.endpoint} does not know our user")

    def pin(self, where: Tracker) -> None:
        """Prefer the key of ``where`` from now on: it knows our user."""
        self._any_until = float("-inf")
        key = key_text(where.key)
        if key == self._preferred_key:
            return
        self._preferred_key = key
        if self._memory is not None:
            try:
                atomic_write(self._memory, key.encode())
            except StorageError as error:
                log.warning("which tracker to try first was not recorded: %s", error)

    def _with_learned(self, link: Link) -> Link:
        if self._learned is None or self._learned.key != link.key:
            return link
        return Link(tuple(dict.fromkeys(link.endpoints + self._learned.endpoints)), link.key)

    def _shuffled(self, link: Link) -> list[Tracker]:
        trackers = link.trackers
        self._rng.shuffle(trackers)
        return sorted(trackers, key=lambda where: where == self._used)


def _read(memory: Path | None) -> str | None:
    if memory is None:
        return None
    try:
        return memory.read_text("ascii")
    except (OSError, ValueError):
        return None


def _learned(memory: Path | None) -> Link | None:
    """Return the learned addresses of an earlier run; None if there are none, or damaged ones."""
    if memory is None:
        return None
    try:
        return parse_link(memory.with_name(ADDRESSES).read_text("ascii"))
    except (OSError, ValueError, ConfigError):
        return None
