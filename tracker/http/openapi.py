"""OpenAPI 3.1 document of the tracker's API, made from its table of routes and its types."""

from __future__ import annotations

from typing import Any

from common.http.openapi import document, paths_of, schemas_of, without_tag
from common.http.routes import body_type
from common.messages import operator
from tracker.http.routes import ROUTES

_CHANGED = {"type": "object", "description": "Changed values; keys as in docs/json.md"}
_ANSWERS: dict[type, Any] = {operator.Changed: _CHANGED}


def openapi(release: str) -> dict[str, Any]:
    """Return the document for ``release``."""
    bodies = [body_type(route) for route in ROUTES]
    rows = [route.rows for route in ROUTES if route.rows is not None]
    results = sorted(
        {route.answer for route in ROUTES if route.rows is None} - set(_ANSWERS),
        key=lambda kind: kind.__name__,
    )
    schemas = schemas_of([*bodies, *rows, *results])
    for result in results:
        without_tag(schemas[result.__name__])
    paths = paths_of(ROUTES, _ANSWERS, schemas)
    return document("Mini-Torrent tracker", release, "api.sock in the home", paths, schemas)
