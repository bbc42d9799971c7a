"""JSON documents of answers, as ``--json`` prints them and the HTTP API returns them.

The table of keys is in docs/json.md.
"""

from __future__ import annotations

from typing import Any

from common.cli.json_form import plain
from common.messages import control


def document(answer: control.Answer) -> Any:
    """Return the document of a result: a list for rows, else an object."""
    match answer:
        case control.Done() | control.DoneAll():
            return answer.changed
        case control.Begun():
            found = plain(answer)
            del found["text"]
            return {**found, "state": control.DOWNLOADING}
        case control.LimitsAre():
            return plain(answer.row)
        case control.Planned():
            return {"dry_run": True, **plain(answer)}
        case control.Uploaded():
            found = plain(answer)
            return {**found.pop("row"), **found}
    rows = getattr(answer, "rows", None)
    return plain(answer) if rows is None else plain(rows)
