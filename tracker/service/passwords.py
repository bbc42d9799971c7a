"""Passwords: argon2id on a small pool of threads, never on the event loop.

Owns: the parameters and the threads. Not here: the queue (see tracker.core.hashing_queue), the
throttle (see tracker.core.throttle) and accounts. For an unknown user a hash of the same cost is
checked.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import nacl.exceptions
from nacl.pwhash import argon2id

from common import limits
from common.errors import Refused
from common.host.clock import monotonic
from common.messages.refusals import Code
from tracker.core.context import Caller, CheckPassword, HashPassword, ReplacePassword
from tracker.core.hashing_queue import HashingQueue, QueueFull
from tracker.core.throttle import Attempt, Attempted, LoginThrottle, network_of

MEMORY_BYTES = 64 * limits.MIB
PASSES = 3
REFUSAL_S = 0.25  # delay of a refusal, so that immediate repetitions do not load a core
_NICENESS = 10  # users who are logged in come before logins


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Waiting:
    """Queued work for a thread, and the future of its result."""

    work: Callable[[], Any] = field(repr=False)
    future: asyncio.Future[Any]


class Passwords:
    """Hashes and checks passwords. Its methods raise `Refused` with ``busy`` or ``slow-down``."""

    def __init__(self, threads: int | None = None) -> None:
        self._throttle = LoginThrottle()
        self.on_attempt: Callable[[Attempt], None] = lambda attempt: None
        """Called with each attempt that other trackers have to count too."""
        self._queue: HashingQueue[_Waiting] = HashingQueue(
            limits.PASSWORD_QUEUE_MAX, limits.PASSWORD_PLACES_EACH
        )
        self._running: set[asyncio.Future[None]] = set()
        self._closing = False
        self._idle = threads or max(1, (os.cpu_count() or 1) // 2)
        self._pool = ThreadPoolExecutor(self._idle, "passwords", initializer=_lower_priority)
        # Checked for unknown users: made with the same parameters.
        self._unknown_user_hash = self._pool.submit(hash_password, os.urandom(16).hex())

    async def hash(self, caller: Caller, order: HashPassword) -> str:
        """Return the hash of a new account's password, with its salt and parameters."""
        return await _refused_late(self._hash(caller, order))

    async def _hash(self, caller: Caller, order: HashPassword) -> str:
        network = network_of(caller.address)
        _refuse_if(self._throttle.create(caller.device, caller.address, monotonic()))
        self.on_attempt(Attempt(Attempted.NEW, "", caller.device, caller.address, False))
        # One queue key for all new accounts of an address: names and device keys cost nothing.
        return await self._in_turn(network, ("new", network), lambda: hash_password(order.password))

    async def check(self, caller: Caller, order: CheckPassword) -> bool:
        """Whether the password is right."""
        return await _refused_late(self._check(caller, order))

    async def _check(self, caller: Caller, order: CheckPassword) -> bool:
        trusted = order.trusted or self._throttle.knows(order.user, caller.device)
        who = (order.user, caller.device, caller.address, trusted)
        network = network_of(caller.address)
        # All devices of a user that logged in before share a queue key, which guesses cannot use.
        # Others share one for each address: a flood of guesses takes no place of other addresses.
        key = ("known", order.user) if trusted else ("unknown", order.user, network)
        _refuse_if(self._throttle.begin(*who, monotonic()))
        wanted = order.password_hash
        if wanted is None:
            wanted = await asyncio.wrap_future(self._unknown_user_hash)
        try:
            matches = await self._in_turn(network, key, lambda: _verify(wanted, order.password))
        except Refused:
            self._throttle.dropped(*who, monotonic())
            raise
        right = matches and order.password_hash is not None
        if right:
            self._throttle.succeeded(*who, monotonic())
        self.on_attempt(Attempt(Attempted.RIGHT if right else Attempted.WRONG, *who))
        return right

    def attempted_elsewhere(self, attempt: Attempt) -> None:
        """Count an attempt at another tracker."""
        self._throttle.elsewhere(attempt, monotonic())

    async def replace(self, caller: Caller, order: ReplacePassword) -> str | None:
        """Return the hash of the new password; None if the old one is wrong.

        A wrong one counts as a guess, as in a login.
        """
        return await _refused_late(self._replace(caller, order))

    async def _replace(self, caller: Caller, order: ReplacePassword) -> str | None:
        check = CheckPassword(order.user, order.old, order.password_hash, trusted=True)
        if not await self._check(caller, check):
            return None
        network = network_of(caller.address)
        return await self._in_turn(network, ("known", order.user), lambda: hash_password(order.new))

    async def _in_turn(self, network: str, key: Hashable, work: Callable[[], T]) -> T:
        """Return the result of ``work``, done on a thread in its turn. Raise `Refused`."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        try:
            evicted = self._queue.add(network, key, _Waiting(work, future))
        except QueueFull:
            raise _busy() from None
        if evicted is not None and not evicted.future.done():
            evicted.future.set_exception(_busy())
        self._start_next()
        return await future

    def _start_next(self) -> None:
        """Give each idle thread the next work."""
        while self._idle and len(self._queue) and not self._closing:
            key, waiting = self._queue.take()
            if waiting.future.done():  # its caller no longer waits
                self._queue.done(key)
                continue
            self._idle -= 1
            task = asyncio.ensure_future(self._work(key, waiting))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _work(self, key: Hashable, waiting: _Waiting) -> None:
        try:
            result = await asyncio.wrap_future(self._pool.submit(waiting.work))
        except Exception as error:
            if not waiting.future.done():
                waiting.future.set_exception(error)
        else:
            if not waiting.future.done():
                waiting.future.set_result(result)
        finally:
            self._queue.done(key)
            self._idle += 1
            self._start_next()

    def close(self) -> None:
        """Drop queued work."""
        self._closing = True
        for task in self._running:
            task.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)


async def _refused_late(attempt: Coroutine[Any, Any, T]) -> T:
    try:
        return await attempt
    except Refused:
        await asyncio.sleep(REFUSAL_S)
        raise


def _busy() -> Refused:
    return Refused(Code.BUSY, "too many logins at once", "try again in a few seconds")


def _refuse_if(wait_s: float) -> None:
    if wait_s > 0:
        raise Refused(
            Code.SLOW_DOWN,
            "too many attempts",
            f"try again in {max(1, round(wait_s))} s",
        )


def hash_password(password: str) -> str:
    """Return the hash of ``password``; it takes a tenth of a second."""
    raw = password.encode("utf-8", "surrogatepass")
    return argon2id.str(raw, opslimit=PASSES, memlimit=MEMORY_BYTES).decode("ascii")


def _verify(password_hash: str, password: str) -> bool:
    raw = password.encode("utf-8", "surrogatepass")
    try:
        return argon2id.verify(password_hash.encode("ascii"), raw)
    except nacl.exceptions.InvalidkeyError:
        return False


def _lower_priority() -> None:
    # On Linux niceness is per thread; elsewhere it would be that of the process.
    if hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
