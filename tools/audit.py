"""Audits what is installed, and calls nothing clean that could not be looked up.

pip-audit itself passes over what the service of advisories does not answer for, and ends as if all
were well: without a way to that service it finds no weakness in anything. Ends with 0 when every
package was looked up and none has a known weakness, 1 when one has, 2 when some were not audited.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

OURSELVES = "distribution marked as editable"


def verdict(report: Mapping[str, Any]) -> tuple[int, list[str]]:
    """How to end, and what to say, after pip-audit's report in JSON."""
    packages = [p for p in report["dependencies"] if p.get("skip_reason") != OURSELVES]
    skipped = [p for p in packages if "skip_reason" in p]
    weak = [(p, found) for p in packages for found in p.get("vulns", ())]
    said = [
        f"weakness: {p['name']} {p['version']}: {found['id']}, mended in "
        f"{', '.join(found['fix_versions']) or 'no release'}"
        for p, found in weak
    ]
    said += [f"not audited: {p['name']}: {p['skip_reason']}" for p in skipped]
    audited = len(packages) - len(skipped)
    if not audited:
        said.append("NOTHING WAS AUDITED: is pypi.org reachable from here?")
    else:
        said.append(f"{audited} packages audited, {len(skipped)} not, {len(weak)} weaknesses")
    return 1 if weak else 2 if skipped or not audited else 0, said


def main() -> int:
    command = [sys.executable, "-m", "pip_audit", "--skip-editable", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        report = json.loads(done.stdout)
    except ValueError:
        print(f"{done.stderr}\nNOTHING WAS AUDITED: pip-audit ended without a report")
        return 2
    code, said = verdict(report)
    print(*said, sep="\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
