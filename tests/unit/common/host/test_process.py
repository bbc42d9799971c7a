"""Process set-up: the memory of freed pieces."""

from __future__ import annotations

import subprocess
import sys

from tests.support.paths import ROOT

STORY = """
from common.host import process

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 >> 20

assert process.tune_allocator()
pieces = [bytearray(512 * 1024) for _ in range(200)]
del pieces
kept = resident()
assert process.give_back_memory()
print(kept, resident())
"""


def test_freed_memory_is_kept_for_the_next_piece_and_given_back_in_time() -> None:
    told = subprocess.run(
        [sys.executable, "-c", STORY], cwd=ROOT, capture_output=True, text=True, check=True
    )
    kept_mib, left_mib = map(int, told.stdout.split())
    assert kept_mib > 100
    assert left_mib < kept_mib - 80
