"""Pieces of an OpenAPI 3.1 document, made from a table of routes and the types of messages.

Not here: the documents (see peer.http.openapi, tracker.http.openapi).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from common.http.routes import PREFIX, Route, body_type

REF = "#/components/schemas/{name}"
PROBLEM = {
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


def document(
    title: str, release: str, server: str, paths: dict[str, Any], schemas: dict[str, Any]
) -> dict[str, Any]:
    """Return the whole document. ``server``: where the API is, in words."""
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": release},
        "servers": [{"url": "http://localhost", "description": server}],
        "paths": paths,
        "components": {"schemas": {**schemas, "Problem": PROBLEM}},
    }


def paths_of(
    routes: Iterable[Route],
    answers: dict[type, Any],
    schemas: dict[str, Any],
    texts: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the paths of a table. ``answers``: schemas of answers that have no struct; ``texts``:
    those of fields in the path, by name."""
    paths: dict[str, Any] = {}
    for route in routes:
        made = _operation(route, answers, schemas, texts or {})
        paths.setdefault(PREFIX + route.path, {})[route.method.lower()] = made
    return paths


def schemas_of(kinds: Iterable[type]) -> dict[str, Any]:
    """Return the schemas of structs, by name."""
    return msgspec.json.schema_components(list(kinds), ref_template=REF)[1]


def without_tag(schema: dict[str, Any]) -> None:
    """Take the tag of a message out of its schema: documents have none."""
    schema["properties"].pop("type", None)
    schema["required"] = [name for name in schema.get("required", []) if name != "type"]


def path_parameter(field: str, texts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the description of a field in the path: a text that is not empty."""
    schema = texts.get(field, {"type": "string", "minLength": 1})
    return {"name": field, "in": "path", "required": True, "schema": schema}


def problem_response() -> dict[str, Any]:
    """Return the description of an error."""
    return {
        "description": "A problem (RFC 9457)",
        "content": {"application/problem+json": {"schema": ref("Problem")}},
    }


def _operation(
    route: Route, answers: dict[type, Any], schemas: dict[str, Any], texts: Mapping[str, Any]
) -> dict[str, Any]:
    parameters = [path_parameter(field, texts) for field in route.path_fields]
    made: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "parameters": parameters,
        "responses": {
            "200": {"description": "Done", "content": _json(_answer(route, answers))},
            "default": problem_response(),
        },
    }
    name = body_type(route).__name__
    if route.has_body:
        # Also of a command without arguments: its type keeps pages of others from sending it.
        made["requestBody"] = {"required": True, "content": _json(ref(name))}
    else:
        for field, schema in schemas[name]["properties"].items():
            parameters.append({"name": field, "in": "query", "schema": schema})
    return made


def _answer(route: Route, answers: dict[type, Any]) -> dict[str, Any]:
    if route.rows is not None:
        return {"type": "array", "items": ref(route.rows.__name__)}
    if route.answer in answers:
        found: dict[str, Any] = answers[route.answer]
        return found
    return ref(route.answer.__name__)


def ref(name: str) -> dict[str, str]:
    """Return the reference to a schema."""
    return {"$ref": REF.format(name=name)}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
