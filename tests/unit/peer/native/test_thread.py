"""The fetching thread leaves faults to their handlers, and ends whatever its sockets do."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.support.data_paths import needs_library

pytestmark = needs_library

# In a process of its own each: the thread is the one that is new.
START = """
import ctypes, os, time
from peer.native.library import library

found = library()
before = {*os.listdir("/proc/self/task")}
thread = found.call.mt_fetcher_new(os.eventfd(0), 5)
(task,) = {*os.listdir("/proc/self/task")} - before


def status(name):
    with open(f"/proc/self/task/{task}/status") as rows:
        return next(row.split()[1] for row in rows if row.startswith(name + ":"))


"""
# All signals are blocked in a thread that begins, so its first wait is awaited.
BLOCKED = (
    START
    + """
deadline = time.monotonic() + 10
while status("State") != "S":
    assert time.monotonic() < deadline
mask = int(status("SigBlk"), 16)
print(*(number for number in range(1, 32) if mask >> (number - 1) & 1), flush=True)
os._exit(found.call.mt_fetcher_end(thread, 5000))
"""
)
# Zeros are no socket of ZeroMQ, so that each poll fails. The thread waits then, or is busy.
FAILING = (
    START
    + """
zeros = ctypes.create_string_buffer(1 << 16)
key = ctypes.create_string_buffer(16)
line = found.call.mt_line_new(thread)
waits, used = status("voluntary_ctxt_switches"), time.process_time()
assert found.call.mt_line_start(thread, line, ctypes.addressof(zeros), key) == 0
deadline = time.monotonic() + 10
while status("voluntary_ctxt_switches") == waits and time.process_time() - used < 0.2:
    assert time.monotonic() < deadline
os._exit(found.call.mt_fetcher_end(thread, 5000))
"""
)
# No memory is at this address of a socket: the thread faults at its first poll.
CRASHING = (
    START
    + """
import faulthandler

faulthandler.enable()
key = ctypes.create_string_buffer(16)
line = found.call.mt_line_new(thread)
assert found.call.mt_line_start(thread, line, 8, key) == 0
time.sleep(60)
"""
)


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture(scope="module")
def blocked() -> set[int]:
    ended = run(BLOCKED)
    assert (ended.returncode, ended.stderr) == (0, "")
    return {*map(int, ended.stdout.split())}


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE])
def test_a_fault_in_the_thread_reaches_its_handler(number: int, blocked: set[int]) -> None:
    assert number not in blocked


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGALRM, signal.SIGCHLD])
def test_the_signals_of_the_main_thread_stay_there(number: int, blocked: set[int]) -> None:
    assert number in blocked


def test_a_fault_in_the_thread_ends_the_process_with_words() -> None:
    ended = run(CRASHING)
    assert ended.returncode == -signal.SIGSEGV
    assert "Segmentation fault" in ended.stderr


def test_the_thread_ends_although_its_sockets_cannot_be_polled() -> None:
    ended = run(FAILING)
    assert (ended.returncode, ended.stderr) == (0, "")
