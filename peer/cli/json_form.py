"""JSON form of the peer's results; the rest of ``--json`` is common to both programs."""

from __future__ import annotations

from common.cli.json_form import json_text as json_text
from common.cli.json_form import plain as plain
