"""Check of metrics and alerts by promtool, where it is installed; a part of `make check`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from common.metrics.exposition import Exposition
from peer.metrics import families as of_peer
from tracker.metrics import families as of_tracker

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Return the exit code."""
    promtool = shutil.which("promtool")
    if promtool is None:
        print("promtool is not installed: metrics and alerts are not checked (apt: prometheus)")
        return 0
    runs = [
        (["check", "rules", str(ROOT / "config" / "alerts.yml")], ""),
        (["test", "rules", str(ROOT / "tests" / "data" / "alerts_test.yml")], ""),
    ]
    for module in (of_peer, of_tracker):
        text = Exposition(module.PROGRAM, module.FAMILIES, lambda _: None).text()
        runs.append((["check", "metrics"], text))
    failed = 0
    for words, given in runs:
        done = subprocess.run([promtool, *words], input=given, capture_output=True, text=True)
        if done.returncode:
            failed = 1
            print(f"promtool {' '.join(words)}:\n{done.stdout}{done.stderr}", file=sys.stderr)
    if not failed:
        print("promtool accepts the metrics and the alerts")
    return failed


if __name__ == "__main__":
    sys.exit(main())
