"""The tracker's prompt, where nobody can type at it."""

from __future__ import annotations

import os
import subprocess
import sys

# The leader of a session at a terminal, which starts a program in the background as a shell does.
SHELL = """
import fcntl, os, subprocess, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
child = subprocess.Popen(sys.argv[1:], process_group=0)
_, status = os.waitpid(child.pid, os.WUNTRACED)
print("stopped" if os.WIFSTOPPED(status) else "ended", flush=True)
"""
PROMPT = """
import asyncio, threading
from tracker import running

async def main():
    running._stop_on_quit(asyncio.Event())
    for thread in threading.enumerate():
        if thread.name == "prompt":
            await asyncio.to_thread(thread.join)

asyncio.run(main())
"""


def test_in_the_background_of_a_terminal_it_is_not_stopped() -> None:
    terminal, end = os.openpty()
    try:
        words = [sys.executable, "-c", SHELL, sys.executable, "-c", PROMPT]
        ran = subprocess.run(
            words, stdin=end, stdout=subprocess.PIPE, start_new_session=True, timeout=60, check=True
        )
    finally:
        os.close(terminal)
        os.close(end)
    assert ran.stdout == b"ended\n"
