"""Passwords: argon2id on a small pool of threads, never on the event loop.

Owns the parameters, the bounded queue and the slowing of guesses (``tracker.guessing``). Knows no
account: it is handed the hash to check against, or None for a user who is not there, which costs
the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import nacl.exceptions
from nacl.pwhash import argon2id

from common import limits
from common.clock import monotonic
from common.errors import Refused
from common.messages.refusals import Code
from tracker.decision import Actor, CheckPassword, HashPassword, ReplacePassword
from tracker.guessing import Guesses

MEMORY_BYTES = 64 * limits.MIB
PASSES = 3
_NICENESS = 10  # those who are logged in come before those who want to be


class Passwords:
    """Hashes and checks. All raise `Refused` with ``busy`` or ``slow-down``."""

    def __init__(self, threads: int | None = None) -> None:
        self._guesses = Guesses()
        self._waiting = 0
        self._pool = ThreadPoolExecutor(
            threads or max(1, (os.cpu_count() or 1) // 2), "passwords", initializer=_step_back
        )
        # What an unknown user's password is checked against: made with the same parameters.
        self._nobody = self._pool.submit(_hash, os.urandom(16).hex())

    async def hash(self, actor: Actor, order: HashPassword) -> str:
        """The hash of a new account's password, with its salt and parameters in it."""
        _refuse_if(self._guesses.create(actor.device, actor.address, monotonic()))
        with self._place():
            return await asyncio.wrap_future(self._pool.submit(_hash, order.password))

    async def check(self, actor: Actor, order: CheckPassword) -> bool:
        """Whether the password is right."""
        trusted = order.trusted or self._guesses.knows(order.user, actor.device)
        who = (order.user, actor.device, actor.address, trusted)
        with self._place():
            _refuse_if(self._guesses.begin(*who, monotonic()))
            wanted = order.password_hash
            if wanted is None:
                wanted = await asyncio.wrap_future(self._nobody)
            matches = await asyncio.wrap_future(self._pool.submit(_verify, wanted, order.password))
        right = matches and order.password_hash is not None
        if right:
            self._guesses.succeeded(*who, monotonic())
        return right

    async def replace(self, actor: Actor, order: ReplacePassword) -> str | None:
        """The hash of the new password, or None if the old one is wrong, which is a guess like that
        of a login."""
        check = CheckPassword(order.user, order.old, order.password_hash, trusted=True)
        if not await self.check(actor, check):
            return None
        with self._place():
            return await asyncio.wrap_future(self._pool.submit(_hash, order.new))

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        if self._waiting >= limits.PASSWORD_QUEUE_MAX:
            raise Refused(
                Code.BUSY, "too many are logging in at once", "try again in a few seconds"
            )
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Drop what still waits."""
        self._pool.shutdown(wait=False, cancel_futures=True)


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
