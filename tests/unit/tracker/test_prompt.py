"""The tracker's prompt without a user at the terminal."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# The leader of a session at a terminal, which starts a program in the background as a shell does.
SHELL = """
import fcntl, os, subprocess, sys, termios
if sys.argv.pop(1) == "its own":
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
child = subprocess.Popen(sys.argv[1:], process_group=0)
_, status = os.waitpid(child.pid, os.WUNTRACED)
print("stopped" if os.WIFSTOPPED(status) else os.waitstatus_to_exitcode(status), flush=True)
"""
PROMPT = """
import asyncio, threading
from tracker.service import main as running

async def main():
    running._stop_on_quit(asyncio.Event())
    for thread in threading.enumerate():
        if thread.name == "prompt":
            await asyncio.to_thread(thread.join)

asyncio.run(main())
"""
ENTER = b"quit\n"


@pytest.mark.parametrize(
    ("whose", "said"),
    [("its own", b"0\n"), ("another session's", b"type quit to end\n0\n")],
    ids=["run &", "setsid run"],
)
def test_the_tracker_is_not_stopped_by_a_terminal_that_it_may_not_read(
    whose: str, said: bytes
) -> None:
    terminal, end = os.openpty()
    try:
        words = [sys.executable, "-c", SHELL, whose, sys.executable, "-c", PROMPT]
        os.write(terminal, ENTER)
        ran = subprocess.run(
            words, stdin=end, stdout=subprocess.PIPE, start_new_session=True, timeout=60, check=True
        )
    finally:
        os.close(terminal)
        os.close(end)
    assert ran.stdout == said
