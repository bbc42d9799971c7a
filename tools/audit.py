"""Audit of the installed packages for known weaknesses.

Why: pip-audit skips packages for which the advisory service does not answer, and still exits with
0. Without a route to that service it finds no weakness at all.

Exit code: 0 if every package was looked up and has no known weakness, 1 if one has, 2 if some
packages were not audited.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

OURSELVES = "distribution marked as editable"


def verdict(report: Mapping[str, Any]) -> tuple[int, list[str]]:
    """Return the exit code and the lines to print for pip-audit's JSON report."""
    packages = [p for p in report["dependencies"] if p.get("skip_reason") != OURSELVES]
    skipped = [p for p in packages if "skip_reason" in p]
    weak = [(p, found) for p in packages for found in p.get("vulns", ())]
    lines = [
        f"weakness: {p['name']} {p['version']}: {found['id']}, fixed in "
        f"{', '.join(found['fix_versions']) or 'no release'}"
        for p, found in weak
    ]
    lines += [f"not audited: {p['name']}: {p['skip_reason']}" for p in skipped]
    audited = len(packages) - len(skipped)
    if not audited:
        lines.append("NOTHING WAS AUDITED: is pypi.org reachable from here?")
    else:
        lines.append(f"{audited} packages audited, {len(skipped)} not, {len(weak)} weaknesses")
    return 1 if weak else 2 if skipped or not audited else 0, lines


def main() -> int:
    command = [sys.executable, "-m", "pip_audit", "--skip-editable", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        report = json.loads(done.stdout)
    except ValueError:
        print(f"{done.stderr}\nNOTHING WAS AUDITED: pip-audit ended without a report")
        return 2
    code, lines = verdict(report)
    print(*lines, sep="\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
