"""Row of the compiled data path: its tests with AddressSanitizer and UBSan."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.chaos.stage import Skipped, Stage
from tests.support.data_paths import BUILT, WHY_NOT
from tests.support.paths import TESTS

_TESTS = (
    *("unit/peer/native", "unit/peer/serving/test_bulk.py"),
    *("unit/peer/files/test_partial_content.py", "unit/peer/files/test_part_destinations.py"),
    *("unit/peer/files/test_library.py", "unit/peer/files/test_refusing_disk.py"),
)
_LONG = ("faults/test_download_faults.py", "faults/test_suppressed_messages.py")
_OPTIONS = "halt_on_error=1:detect_leaks=0:exitcode=99"  # Python itself frees little at its end


def f159_sanitizers_find_nothing_in_the_compiled_data_path(stage: Stage) -> str:
    """The tests of the data path on a library that checks every access to memory."""
    compiler = shutil.which("gcc")
    if not BUILT:
        raise Skipped(WHY_NOT)
    if compiler is None:
        raise Skipped("gcc is not installed")
    native = TESTS.parent / "native"
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "mini_torrent_native"
        shutil.copytree(native / "mini_torrent_native", package)
        builder = [sys.executable, native / "build_library.py"]
        library = package / "libmini_torrent_native.so"
        environment = {**os.environ, "CC": compiler}
        subprocess.run([*builder, library, "--sanitize"], check=True, env=environment)
        runtime = subprocess.check_output([compiler, "-print-file-name=libasan.so"], text=True)
        environment |= {
            "PYTHONPATH": folder,
            "LD_PRELOAD": runtime.strip(),
            "ASAN_OPTIONS": _OPTIONS,
            "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
        }
        wanted = _TESTS if stage.scale < 1 else (*_TESTS, *_LONG)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
        done = subprocess.run(
            [*command, "-o", "addopts=", "--timeout=300", *(TESTS / name for name in wanted)],
            env=environment,
            capture_output=True,
            text=True,
            cwd=TESTS.parent,
        )
    assert not done.returncode, f"{done.stdout[-3000:]}{done.stderr[-3000:]}"
    counted = re.search(r"(\d+) passed", done.stdout)
    assert counted is not None, done.stdout[-500:]
    return f"{counted[1]} tests on both data paths"
