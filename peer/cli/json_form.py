"""JSON form of the peer's results; the rest of ``--json`` is common to both programs."""

from __future__ import annotations

from typing import Any

from common.cli.json_form import json_text as json_text
from common.cli.json_form import plain as plain


def begun_document(answer: Any) -> dict[str, Any]:
    """A download that was begun and is not waited for."""
    document: dict[str, Any] = plain(answer)
    del document["text"]
    return {**document, "state": "downloading"}
