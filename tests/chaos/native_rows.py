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

_TESTS = ("unit/peer/native", "unit/peer/serving/test_bulk.py")
# AddressSanitizer takes the fault that this test causes for a finding.
_FAULT = (
    "tests/unit/peer/native/test_thread.py::test_a_fault_in_the_thread_ends_the_process_with_words"
)
_REST = (
    *(f"unit/peer/{name}" for name in ("files", "fetching", "serving", "downloads", "reading")),
    *(f"faults/test_{name}.py" for name in ("download_faults", "sharing_faults")),
    *(f"faults/test_{name}.py" for name in ("source_faults", "suppressed_messages")),
    *(f"hostile/test_{name}.py" for name in ("liars", "tickets")),
    "hostile/test_connections.py::test_h01_where_a_word_lets_one_in_there_is_no_other_way",
    "hostile/test_connections.py::test_h09_a_client_of_a_bulk_port_sends_no_more_than_its_bound",
)


def f159_sanitizers_find_nothing_in_the_compiled_data_path(stage: Stage) -> str:
    """The tests of the data path on a library that checks every access to memory."""
    compiler = shutil.which("gcc")
    if not BUILT:
        raise Skipped(WHY_NOT)
    if compiler is None:
        raise Skipped("gcc is not installed")
    native = TESTS.parent / "native"
    with tempfile.TemporaryDirectory() as folder:
        package, reports = Path(folder) / "mini_torrent_native", Path(folder) / "reports"
        shutil.copytree(native / "mini_torrent_native", package)
        reports.mkdir()
        builder = [sys.executable, native / "build_library.py"]
        library = package / "libmini_torrent_native.so"
        environment = {**os.environ, "CC": compiler}
        subprocess.run([*builder, library, "--sanitize"], check=True, env=environment)
        runtime = subprocess.check_output([compiler, "-print-file-name=libasan.so"], text=True)
        # Peers write their reports there too. Leaks: Python itself frees little at its end.
        options = f"halt_on_error=1:log_path={reports}/report"
        environment |= {
            "PYTHONPATH": folder,
            "LD_PRELOAD": runtime.strip(),
            "ASAN_OPTIONS": f"{options}:detect_leaks=0:exitcode=99",
            "UBSAN_OPTIONS": f"{options}:print_stacktrace=1",
        }
        wanted = _TESTS if stage.scale < 1 else (*_TESTS, *_REST)
        count = _run(environment, "--deselect", _FAULT, *(str(TESTS / name) for name in wanted))
        found = [path.read_text() for path in sorted(reports.iterdir())]
    assert not found, "\n".join(found)[:5000]
    return f"{count} tests"


def f159_python_alone_passes_the_long_tests_of_the_data_path(stage: Stage) -> str:
    """The halves over Python that ``make test`` leaves out where the library is built."""
    if not BUILT:
        raise Skipped("without the library, make test runs all of them")
    return f"{_run(dict(os.environ), '-m', 'every_path', '--every-path', str(TESTS))} tests"


def _run(environment: dict[str, str], *words: str) -> int:
    """Run tests; return how many passed."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", "2"]
    done = subprocess.run(
        [*command, "--dist", "worksteal", "--timeout=300", *words],
        env=environment,
        capture_output=True,
        text=True,
        cwd=TESTS.parent,
    )
    assert not done.returncode, f"{done.stdout[-3000:]}{done.stderr[-3000:]}"
    counted = re.search(r"(\d+) passed", done.stdout)
    assert counted is not None, done.stdout[-500:]
    return int(counted[1])
