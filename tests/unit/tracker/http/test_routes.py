"""Table of the tracker's HTTP API against the operator's commands."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from common.http.routes import Route, body_type
from common.messages import operator
from tracker.http import commands as c
from tracker.http.openapi import openapi
from tracker.http.routes import ROUTES, command_of, unrouted

BY_NAME = {route.name: route for route in ROUTES}


def test_each_command_of_the_operator_has_a_route() -> None:
    assert unrouted() == set()


def test_no_two_commands_have_one_place() -> None:
    places = [(route.method, route.path) for route in ROUTES]
    assert len(set(places)) == len(places)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_a_path_names_fields_of_its_command(route: Route) -> None:
    fields = {field.name for field in msgspec.structs.fields(route.command)}
    assert set(route.path_fields) <= fields
    assert set(body_type(route).__struct_fields__) == fields - set(route.path_fields)


def test_path_body_and_query_make_commands() -> None:
    made = command_of(BY_NAME["SetDisabled"], {"user": "bob"}, {"disabled": True})
    assert made == operator.SetDisabled("bob", True)
    made = command_of(BY_NAME["ListSwarms"], {}, {"health": "unseeded", "limit": "5"})
    assert made == c.ListSwarms(health=c.Health.UNSEEDED, limit=5)


@pytest.mark.parametrize(
    ("name", "path", "body"),
    [
        ("SetDisabled", {"user": "bob"}, {}),
        ("SetDisabled", {"user": "bob"}, {"disabled": 1}),
        ("SetDisabled", {"user": "bob"}, {"disabled": True, "user": "eve"}),
        ("SetRegistration", {}, {"mode": "sometimes"}),
        ("ListSwarms", {}, {"limit": "0"}),
        ("ListSwarms", {}, {"limit": "1000000"}),
        ("ListLog", {}, {"after": "-1"}),
        ("DeleteUser", {"user": "b" * 5000}, {}),
        ("Backup", {}, {"file": "backup.db"}),
        ("Backup", {}, {"file": "/backup\0.db"}),
        ("Backup", {}, {"file": "", "replace": True}),
    ],
)
def test_a_wrong_request_makes_no_command(name: str, path: Any, body: Any) -> None:
    with pytest.raises(msgspec.ValidationError):
        command_of(BY_NAME[name], path, body)


def test_the_document_describes_each_route_and_refers_to_nothing_else() -> None:
    made = openapi("1.2.3")
    operations = [one["operationId"] for path in made["paths"].values() for one in path.values()]
    assert sorted(operations) == sorted(BY_NAME)
    text = msgspec.json.encode(made).decode()
    used = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert used <= set(made["components"]["schemas"])
