"""OpenAPI 3.1 document of the API, made from the table of routes and the types of the messages."""

from __future__ import annotations

from typing import Any

import msgspec

from common.messages import control
from peer.http.routes import PREFIX, ROUTES, Route, body_type

_REF = "#/components/schemas/{name}"
_PROBLEM = {
    "type": "object",
    "required": ["title", "status", "detail", "code"],
    "properties": {
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "The error, for people"},
        "code": {"type": "string", "description": "The reason, for programs"},
        "hint": {"type": "string", "description": "The next step"},
    },
}
_MADE_HERE = (control.Done, control.DoneAll, control.Uploaded)
_CHANGED = {"type": "object", "description": "Changed values; keys as in docs/json.md"}


def openapi(release: str) -> dict[str, Any]:
    """Return the document for ``release``."""
    bodies = [body_type(route) for route in ROUTES]
    rows = [route.rows for route in ROUTES if route.rows is not None]
    results = sorted({route.answer for route in ROUTES} - set(_MADE_HERE), key=lambda t: t.__name__)
    answers = [*results, control.FileRow, control.SkippedRow]
    _, schemas = msgspec.json.schema_components([*bodies, *rows, *answers], ref_template=_REF)
    for result in results:
        _without_tag(schemas[result.__name__])
    schemas["Uploaded"] = _uploaded(schemas)
    schemas["Problem"] = _PROBLEM
    paths: dict[str, Any] = {}
    for route in ROUTES:
        operation = _operation(route, schemas)
        paths.setdefault(PREFIX + route.path, {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "Mini-Torrent peer", "version": release},
        "servers": [{"url": "http://localhost", "description": "api.sock in the home"}],
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _without_tag(schema: dict[str, Any]) -> None:
    schema["properties"].pop("type", None)
    schema["required"] = [name for name in schema.get("required", []) if name != "type"]


def _uploaded(schemas: dict[str, Any]) -> dict[str, Any]:
    _, found = msgspec.json.schema_components([control.Uploaded], ref_template=_REF)
    own = found["Uploaded"]
    _without_tag(own)
    own["properties"].pop("row")
    own["required"].remove("row")
    row = schemas["FileRow"]
    return {
        "type": "object",
        "properties": {**row["properties"], **own["properties"]},
        "required": [*row["required"], *own["required"]],
    }


def _operation(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    parameters = [
        {"name": field, "in": "path", "required": True, "schema": {"type": "string"}}
        for field in route.path_fields
    ]
    made: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "parameters": parameters,
        "responses": {
            "200": {"description": "Done", "content": _json(_answer(route))},
            "default": {
                "description": "A problem (RFC 9457)",
                "content": {"application/problem+json": {"schema": _ref("Problem")}},
            },
        },
    }
    name = body_type(route).__name__
    if route.has_body:
        made["requestBody"] = {
            "required": bool(schemas[name].get("required")),
            "content": _json(_ref(name)),
        }
    else:
        for field, schema in schemas[name]["properties"].items():
            parameters.append({"name": field, "in": "query", "schema": schema})
    return made


def _answer(route: Route) -> dict[str, Any]:
    if route.rows is not None:
        return {"type": "array", "items": _ref(route.rows.__name__)}
    if route.answer is control.Done:
        return _CHANGED
    if route.answer is control.DoneAll:
        return {"type": "array", "items": _CHANGED}
    return _ref(route.answer.__name__)


def _ref(name: str) -> dict[str, str]:
    return {"$ref": _REF.format(name=name)}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
