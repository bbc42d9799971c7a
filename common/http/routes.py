"""Rows of a table of routes: method and path of a command, and how a request becomes one.

A field of a command is taken from the path where that names it; the rest is the JSON body, or the
query of a GET. So a command and its route cannot have different arguments. Not here: the tables
(see peer.http.routes, tracker.http.routes), and rights (see common.http.access).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec

PREFIX = "/api/v1"
_FIELD = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True, slots=True)
class Route:
    """One operation. ``rows``: the type of each row if a list is returned."""

    method: str
    path: str
    command: type[msgspec.Struct]
    answer: type[msgspec.Struct]
    summary: str
    rows: type[msgspec.Struct] | None = None

    @property
    def path_fields(self) -> tuple[str, ...]:
        return tuple(_FIELD.findall(self.path))

    @property
    def has_body(self) -> bool:
        return self.method != "GET"

    @property
    def name(self) -> str:
        return self.command.__name__


@cache
def body_type(route: Route) -> type[msgspec.Struct]:
    """The struct of all fields of the command that are not in the path.

    Unknown fields are refused. Why: a mistyped option must not be passed over.
    """
    fields: list[Any] = []
    for field in msgspec.structs.fields(route.command):
        if field.name in route.path_fields:
            continue
        if field.default is not msgspec.NODEFAULT:
            fields.append((field.name, field.type, field.default))
        elif field.default_factory is not msgspec.NODEFAULT:
            made = msgspec.field(default_factory=field.default_factory)
            fields.append((field.name, field.type, made))
        else:
            fields.append((field.name, field.type))
    return msgspec.defstruct(f"{route.name}Body", fields, forbid_unknown_fields=True, kw_only=True)


def struct_of(route: Route, path: dict[str, Any], body: Any) -> msgspec.Struct:
    """Build the command. ``body``: values of JSON, or the texts of a query.

    Raises `msgspec.ValidationError`.
    """
    rest = msgspec.convert(body, body_type(route), strict=route.has_body)
    fields = {field: getattr(rest, field) for field in rest.__struct_fields__}
    return msgspec.convert({"type": route.name, **fields, **path}, route.command)
