"""The long fault rows: `make chaos`.

``python -m tests.chaos [--seed N] [--only F3,F8] [--quick]``

Runs from a printed seed, at most 30 minutes, and ends in a table of all rows. Rows that `make test`
shows in full are run here as well, so that the table is whole. The exit code is 1 when one failed.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import traceback
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.paths import TESTS

if TYPE_CHECKING:
    from tests.chaos.stage import Stage

LIMIT_S = 28 * 60.0  # what is under way then gets the rest of the half hour
SHORT_ROWS = [*range(1, 34), 38, 50]
QUICK = 0.1
SOAK_S = 240.0

Row = Callable[["Stage"], str]


def main() -> int:
    os.umask(0o022)  # what a private one makes is shared after a question only
    given = _arguments()
    seed = random.randrange(1 << 32) if given.seed is None else given.seed
    print(f"seed {seed}: python -m tests.chaos --seed {seed}", flush=True)
    os.environ["MINI_TORRENT_SEED"] = str(seed)
    only = (
        {int(word.strip().lstrip("Ff")) for word in given.only.split(",")} if given.only else None
    )
    from tests.chaos.stage import Stage

    ends_at = time.monotonic() + LIMIT_S + max(0.0, given.soak - SOAK_S)
    scale = QUICK if given.quick else 1.0
    table: list[tuple[int, str, str, str]] = []
    for row in _long_rows():
        number = _number(row)
        if only is None or number in only:
            rng = random.Random(f"{seed} {row.__name__}")
            outcome, note = _run(row, Stage(rng, scale, ends_at, scale * given.soak))
            table.append((number, row.__name__.partition("_")[2].replace("_", " "), outcome, note))
    table += _short_rows(only, ends_at)
    return _show(table)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="repeat a run")
    parser.add_argument("--only", default="", help="rows, such as F3,F8")
    parser.add_argument(
        "--soak", type=float, default=SOAK_S, metavar="S", help="seconds of the soak"
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    return parser.parse_args()


def _long_rows() -> list[Row]:
    from tests.chaos import cluster_rows, fleet_rows, native_rows, peer_rows, tracker_rows

    found = [
        row
        for module in (tracker_rows, cluster_rows, peer_rows, fleet_rows, native_rows)
        for name, row in vars(module).items()
        if re.match(r"f\d{2,3}_", name)
    ]
    return sorted(found, key=_number)


def _number(row: Row) -> int:
    return int(row.__name__.partition("_")[0][1:])


def _run(row: Row, stage: Stage) -> tuple[str, str]:
    from tests.chaos.stage import Skipped

    print(f"\n== {row.__name__}", flush=True)
    if stage.left_s < 0:
        return "skipped", "because no time was left"
    began = time.monotonic()
    try:
        outcome, note = "pass", row(stage)
    except Skipped as reason:
        outcome, note = "skipped", f"because {reason}"
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        traceback.print_exc()
        outcome, note = "fail", (str(error).splitlines() or [type(error).__name__])[0]
    print(f"   {outcome} after {time.monotonic() - began:.0f} s: {note}", flush=True)
    return outcome, note


def _short_rows(only: set[int] | None, ends_at: float) -> list[tuple[int, str, str, str]]:
    """Those of the other tests that bear the name of a row, by pytest."""
    wanted = [n for n in SHORT_ROWS if only is None or n in only]
    if not wanted:
        return []
    left_s = ends_at - time.monotonic()
    print(f"\n== the short rows, {left_s:.0f} s left", flush=True)
    if left_s < 60:
        return [(n, "", "skipped", "because no time was left for the short ones") for n in wanted]
    words = " or ".join(f"test_f{n}_ or test_f{n:02}_" for n in wanted)
    folders = [str(TESTS / name) for name in ("faults", "integration", "simulation", "unit")]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        done = [sys.executable, "-m", "pytest", "-n", "2", "-k", words, f"--junitxml={report}"]
        try:
            subprocess.run([*done, *folders], cwd=TESTS.parent, timeout=left_s + 90, check=False)
            return _outcomes(report)
        except (subprocess.TimeoutExpired, OSError, ET.ParseError) as error:
            return [(0, "the short rows", "fail", f"{type(error).__name__}: {error}")]


def _outcomes(report: Path) -> list[tuple[int, str, str, str]]:
    rows = []
    for case in ET.parse(report).iter("testcase"):
        name = case.get("name", "")
        found = re.match(r"test_f(\d+)_(.*)", name, re.IGNORECASE)
        if found is None:
            continue
        outcome, note = "pass", ""
        for kind, word in (("failure", "fail"), ("error", "fail"), ("skipped", "skipped")):
            element = case.find(kind)
            if element is not None:
                said = (element.get("message") or "").splitlines() or [""]
                outcome, note = word, f"because {said[0]}" if word == "skipped" else said[0]
        rows.append((int(found[1]), found[2].replace("_", " "), outcome, note))
    return rows


def _show(table: list[tuple[int, str, str, str]]) -> int:
    print()
    for number, what, outcome, note in sorted(table, key=lambda row: (row[0], row[1])):
        print(f"F{number:<4}{outcome:9}{what}{f': {note}' if note else ''}"[:200])
    counts = {word: sum(row[2] == word for row in table) for word in ("pass", "fail", "skipped")}
    print(", ".join(f"{count} {word}" for word, count in counts.items()))
    missing = sorted(set(SHORT_ROWS) - {15, 27, 31} - {row[0] for row in table})
    if missing:
        print("not run:", ", ".join(f"F{number}" for number in missing))
    return 1 if counts["fail"] or not table else 0


if __name__ == "__main__":
    sys.exit(main())
