"""OpenAPI 3.1 document of the API, made from the table of routes and the types of the messages.

Owns: what the types do not say: answers in another shape than their message, streams, files, and
the form of ids and paths.
"""

from __future__ import annotations

from typing import Any

from common import limits
from common.digests import Algorithm
from common.http.openapi import (
    document,
    path_parameter,
    paths_of,
    problem_response,
    ref,
    schemas_of,
    without_tag,
)
from common.http.routes import PREFIX, body_type
from common.messages import control
from peer.files.sharing_rule import Links
from peer.http.routes import ROUTES, STREAMED
from peer.swarm.fetching.picker import Order

_ID = {"type": "string", "pattern": f"^[A-Za-z0-9][A-Za-z0-9._-]{{0,{limits.USER_ID_MAX - 1}}}$"}
_PATH = {"type": "string", "pattern": "^/[^\\u0000]*$", "maxLength": 4096}
_TEXTS = {"group": _ID, "user": _ID}
_SHAPED: dict[str, dict[str, Any]] = {
    "group": _ID,
    "user": _ID,
    "path": _PATH,
    "dest": _PATH,
    "digest": {"enum": [one.value for one in Algorithm]},
    "pick": {"enum": [Order.RAREST.value, Order.SEQUENTIAL.value, Order.RANDOM.value]},
    "links": {"enum": [rule.value for rule in Links]},
    "uses": {"minimum": 1, "maximum": limits.INVITATION_USES_MAX},
    "life_s": {"minimum": limits.INVITATION_S_MIN, "maximum": limits.INVITATION_S_MAX},
}
_CHANGED = {"type": "object", "description": "Changed values; keys as in docs/json.md"}
_MADE_HERE = (
    control.Done,
    control.DoneAll,
    control.Uploaded,
    control.LimitsAre,
    control.Copies,
    control.Follows,
)
_ANSWERS: dict[type, Any] = {
    control.Done: _CHANGED,
    control.DoneAll: {"type": "array", "items": _CHANGED},
    control.LimitsAre: ref("LimitsRow"),
    control.Copies: {"type": "array", "items": ref("HolderRow")},
    control.Follows: {"type": "array", "items": ref("FollowRow")},
    control.Uploaded: {"anyOf": [ref("Uploaded"), ref("Planned")]},
    control.Downloaded: {"anyOf": [ref("Downloaded"), ref("Begun")]},
}
_EVENTS = {"text/event-stream": {"schema": {"type": "string"}}}
_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


def openapi(release: str) -> dict[str, Any]:
    """Return the document for ``release``."""
    schemas = _schemas()
    paths = paths_of(ROUTES, _ANSWERS, schemas, _TEXTS)
    for route in ROUTES:
        if route.command in STREAMED:
            operation = paths[PREFIX + route.path][route.method.lower()]
            operation["responses"]["200"]["content"].update(_EVENTS)
    paths[f"{PREFIX}/events"] = {"get": _events()}
    for tail, what in (("", "File"), ("/{entry}", "Entry")):
        paths[f"{PREFIX}/files/{{group}}/{{name}}{tail}"] = {
            "get": _file(f"Read{what}", "Bytes of a file, which is fetched as it is read", tail),
            "head": _file(f"Head{what}", "Size and digest of a file", tail),
        }
    return document("Mini-Torrent peer", release, "api.sock in the home", paths, schemas)


def _schemas() -> dict[str, Any]:
    bodies = [body_type(route) for route in ROUTES]
    rows = [route.rows for route in ROUTES if route.rows is not None]
    results = {route.answer for route in ROUTES} - set(_MADE_HERE)
    results |= {control.Planned, control.Begun}
    kinds = [*bodies, *rows, *sorted(results, key=lambda kind: kind.__name__)]
    schemas = schemas_of([*kinds, control.FileRow, control.SkippedRow, control.LimitsRow])
    for result in results:
        without_tag(schemas[result.__name__])
    schemas["Uploaded"] = _uploaded(schemas)
    _with(schemas["Planned"], "dry_run", {"const": True})
    _with(schemas["Begun"], "state", {"const": control.DOWNLOADING})
    del schemas["Begun"]["properties"]["text"]
    schemas["Begun"]["required"].remove("text")
    for body in bodies:
        properties = schemas[body.__name__]["properties"]
        for name, shape in _SHAPED.items():
            if properties.get(name, {}).get("type") in ("string", "integer"):
                properties[name] |= shape
        if "reuse" in properties:
            properties["reuse"]["items"] = _PATH
    return schemas


def _with(schema: dict[str, Any], name: str, value: Any) -> None:
    schema["properties"][name] = value
    schema["required"].append(name)


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


def _events() -> dict[str, Any]:
    group = {"name": "group", "in": "query", "schema": _ID}
    return {
        "operationId": "Events",
        "summary": "Events of the groups as they happen, without end",
        "parameters": [group, _header("Last-Event-ID", "Go on behind this event")],
        "responses": {
            "200": {"description": "The stream", "content": _EVENTS},
            "default": problem_response(),
        },
    }


def _file(name: str, summary: str, tail: str) -> dict[str, Any]:
    fields = ["group", "name", "entry"] if tail else ["group", "name"]
    parameters = [path_parameter(field, _TEXTS) for field in fields]
    if tail:
        parameters[-1]["description"] = "Path of the file in its folder, with its slashes"
    parameters += [
        _header("Range", "One range of bytes, as in bytes=0-99; others mean the whole"),
        _header("If-Range", "The range holds only for this ETag"),
        _header("If-Match", "Answer only for these ETags"),
        _header("If-None-Match", "Answer only for other ETags"),
    ]
    tag = {"ETag": {"description": "The digest", "schema": {"type": "string"}}}
    place = {"Content-Range": {"description": "The bytes", "schema": {"type": "string"}}}
    content = {} if name.startswith("Head") else {"content": _BYTES}
    return {
        "operationId": name,
        "summary": summary,
        "parameters": parameters,
        "responses": {
            "200": {"description": "The whole file", "headers": tag, **content},
            "206": {"description": "A range of it", "headers": {**tag, **place}, **content},
            "304": {"description": "It has the ETag of If-None-Match", "headers": tag},
            "412": {"description": "It has another ETag than If-Match", "headers": tag},
            "416": {"description": "The range is behind its end", "headers": {**tag, **place}},
            "default": problem_response(),
        },
    }


def _header(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": description, "schema": {"type": "string"}}
