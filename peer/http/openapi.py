"""OpenAPI 3.1 document of the API, made from the table of routes and the types of the messages."""

from __future__ import annotations

from typing import Any

from common.http.openapi import document, paths_of, schemas_of, without_tag
from common.http.routes import body_type
from common.messages import control
from peer.http.routes import ROUTES

_MADE_HERE = (control.Done, control.DoneAll, control.Uploaded)
_CHANGED = {"type": "object", "description": "Changed values; keys as in docs/json.md"}
_ANSWERS: dict[type, Any] = {
    control.Done: _CHANGED,
    control.DoneAll: {"type": "array", "items": _CHANGED},
}


def openapi(release: str) -> dict[str, Any]:
    """Return the document for ``release``."""
    bodies = [body_type(route) for route in ROUTES]
    rows = [route.rows for route in ROUTES if route.rows is not None]
    results = sorted({route.answer for route in ROUTES} - set(_MADE_HERE), key=lambda t: t.__name__)
    schemas = schemas_of([*bodies, *rows, *results, control.FileRow, control.SkippedRow])
    for result in results:
        without_tag(schemas[result.__name__])
    schemas["Uploaded"] = _uploaded(schemas)
    paths = paths_of(ROUTES, _ANSWERS, schemas)
    return document("Mini-Torrent peer", release, "api.sock in the home", paths, schemas)


def _uploaded(schemas: dict[str, Any]) -> dict[str, Any]:
    own = schemas_of([control.Uploaded])["Uploaded"]
    without_tag(own)
    own["properties"].pop("row")
    own["required"].remove("row")
    row = schemas["FileRow"]
    return {
        "type": "object",
        "properties": {**row["properties"], **own["properties"]},
        "required": [*row["required"], *own["required"]],
    }
