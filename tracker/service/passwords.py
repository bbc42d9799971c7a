"""Passwords: argon2id on a small pool of threads, never on the event loop.

Owns the parameters, the threads, the queue (``tracker.core.hashing_queue``) and the slowing of
guesses (``tracker.core.throttle``). Knows no account: it is handed the hash to check against, or
None for a user who is not there, which costs the same.
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
from tracker.core.throttle import LoginThrottle, network_of

MEMORY_BYTES = 64 * limits.MIB
PASSES = 3
REFUSAL_S = 0.25  # before it is answered: who repeats at once what was refused costs no core then
_NICENESS = 10  # those who are logged in come before those who want to be


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A piece of work for a thread, and who is told of its end."""

    work: Callable[[], Any] = field(repr=False)
    future: asyncio.Future[Any]


class Passwords:
    """Hashes and checks. All raise `Refused` with ``busy`` or ``slow-down``."""

    def __init__(self, threads: int | None = None) -> None:
        self._throttle = LoginThrottle()
        self._queue: HashingQueue[_Waiting] = HashingQueue(
            limits.PASSWORD_QUEUE_MAX, limits.PASSWORD_PLACES_EACH
        )
        self._at_work: set[asyncio.Future[None]] = set()
        self._closing = False
        self._idle = threads or max(1, (os.cpu_count() or 1) // 2)
        self._pool = ThreadPoolExecutor(self._idle, "passwords", initializer=_step_back)
        # What an unknown user's password is checked against: made with the same parameters.
        self._nobody = self._pool.submit(_hash, os.urandom(16).hex())

    async def hash(self, caller: Caller, order: HashPassword) -> str:
        """The hash of a new account's password, with its salt and parameters in it."""
        return await _refused_late(self._hash(caller, order))

    async def _hash(self, caller: Caller, order: HashPassword) -> str:
        network = network_of(caller.address)
        _refuse_if(self._throttle.create(caller.device, caller.address, monotonic()))
        # One key for all accounts that are made at an address: names and keys cost nothing there.
        return await self._in_turn(network, ("new", network), lambda: _hash(order.password))

    async def check(self, caller: Caller, order: CheckPassword) -> bool:
        """Whether the password is right."""
        return await _refused_late(self._check(caller, order))

    async def _check(self, caller: Caller, order: CheckPassword) -> bool:
        trusted = order.trusted or self._throttle.knows(order.user, caller.device)
        who = (order.user, caller.device, caller.address, trusted)
        network = network_of(caller.address)
        # All devices of a user that were let in before share a key, which guesses cannot enter.
        # Others share one for each address: a flood of guesses holds no place of other addresses.
        key = ("known", order.user) if trusted else ("unknown", order.user, network)
        _refuse_if(self._throttle.begin(*who, monotonic()))
        wanted = order.password_hash
        if wanted is None:
            wanted = await asyncio.wrap_future(self._nobody)
        try:
            matches = await self._in_turn(network, key, lambda: _verify(wanted, order.password))
        except Refused:
            self._throttle.dropped(*who, monotonic())
            raise
        right = matches and order.password_hash is not None
        if right:
            self._throttle.succeeded(*who, monotonic())
        return right

    async def replace(self, caller: Caller, order: ReplacePassword) -> str | None:
        """The hash of the new password, or None if the old one is wrong, which is a guess like that
        of a login."""
        return await _refused_late(self._replace(caller, order))

    async def _replace(self, caller: Caller, order: ReplacePassword) -> str | None:
        check = CheckPassword(order.user, order.old, order.password_hash, trusted=True)
        if not await self._check(caller, check):
            return None
        network = network_of(caller.address)
        return await self._in_turn(network, ("known", order.user), lambda: _hash(order.new))

    async def _in_turn(self, network: str, key: Hashable, work: Callable[[], T]) -> T:
        """The result of ``work``, done on a thread when it is its turn. Raises `Refused`."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        try:
            evicted = self._queue.add(network, key, _Waiting(work, future))
        except QueueFull:
            raise _busy() from None
        if evicted is not None and not evicted.future.done():
            evicted.future.set_exception(_busy())
        self._go_on()
        return await future

    def _go_on(self) -> None:
        """Give each idle thread the work whose turn it is."""
        while self._idle and len(self._queue) and not self._closing:
            key, waiting = self._queue.take()
            if waiting.future.done():  # nobody waits for it any longer
                self._queue.done(key)
                continue
            self._idle -= 1
            task = asyncio.ensure_future(self._work(key, waiting))
            self._at_work.add(task)
            task.add_done_callback(self._at_work.discard)

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
            self._go_on()

    def close(self) -> None:
        """Drop what still waits."""
        self._closing = True
        for task in self._at_work:
            task.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)


async def _refused_late(attempt: Coroutine[Any, Any, T]) -> T:
    try:
        return await attempt
    except Refused:
        await asyncio.sleep(REFUSAL_S)
        raise


def _busy() -> Refused:
    return Refused(Code.BUSY, "too many are logging in at once", "try again in a few seconds")


def _refuse_if(wait_s: float) -> None:
    if wait_s > 0:
        raise Refused(
            Code.SLOW_DOWN,
            "too many attempts",
            f"try again in {max(1, round(wait_s))} s",
        )


def _hash(password: str) -> str:
    raw = password.encode("utf-8", "surrogatepass")
    return argon2id.str(raw, opslimit=PASSES, memlimit=MEMORY_BYTES).decode("ascii")


def _verify(password_hash: str, password: str) -> bool:
    raw = password.encode("utf-8", "surrogatepass")
    try:
        return argon2id.verify(password_hash.encode("ascii"), raw)
    except nacl.exceptions.InvalidkeyError:
        return False


def _step_back() -> None:
    # On Linux niceness belongs to the thread; elsewhere the whole process would be meant.
    if hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
