"""JSON form of results and errors, for ``--json``."""

from __future__ import annotations

from typing import Any


def plain(struct: Any) -> Any:
    """A control struct, or a list of them, as ``--json`` prints it."""
    import msgspec

    if isinstance(struct, list):
        return [plain(row) for row in struct]
    document = msgspec.to_builtins(struct)
    document.pop("type", None)
    return document


def json_text(document: Any, indent: int | None = None) -> str:
    """JSON that can do no harm to a terminal: everything but printable ASCII is escaped."""
    import json

    return json.dumps(document, ensure_ascii=True, indent=indent).replace("\x7f", "\\u007f")
