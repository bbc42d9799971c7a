"""Table of the HTTP API against the commands of the control socket."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest

from common.http.routes import Route, body_type
from common.messages import control
from peer.http.openapi import openapi
from peer.http.routes import ROUTES, command_of, unrouted

BY_NAME = {route.name: route for route in ROUTES}


def test_each_command_of_the_command_line_has_a_route() -> None:
    assert unrouted() == set()


def test_no_two_commands_have_one_place() -> None:
    places = [(route.method, route.path) for route in ROUTES]
    assert len(set(places)) == len(places)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_a_path_names_fields_of_its_command(route: Route) -> None:
    fields = {field.name for field in msgspec.structs.fields(route.command)}
    assert set(route.path_fields) <= fields
    assert set(body_type(route).__struct_fields__) == fields - set(route.path_fields)
    assert route.answer in get_args(control.Answer)


def test_path_and_body_make_the_command() -> None:
    made = command_of(
        BY_NAME["DownloadFile"],
        {"group": "films", "name": "a b.mkv"},
        {"dest": "/x", "wait": False},
    )
    assert made == control.DownloadFile("films", "a b.mkv", "/x", wait=False)


def test_a_query_is_read_by_the_types_of_the_fields() -> None:
    route = Route("GET", "/x", control.DownloadFile, control.Done, "")
    query = {"group": "g", "name": "n", "dest": "/d", "wait": "false", "timeout_s": "2"}
    made = command_of(route, {}, query)
    assert made == control.DownloadFile("g", "n", "/d", wait=False, timeout_s=2)


@pytest.mark.parametrize(
    ("name", "path", "body"),
    [
        ("DownloadFile", {"group": "g", "name": "n"}, {}),  # a field is missing
        ("DownloadFile", {"group": "g", "name": "n"}, {"dest": "/", "pik": "random"}),
        ("DownloadFile", {"group": "g", "name": "n"}, {"dest": 1}),
        ("DownloadFile", {"group": "g", "name": "n"}, {"dest": "/", "wait": "false"}),
        ("DownloadFile", {"group": "g", "name": "n"}, {"dest": "/", "group": "other"}),
        ("Pause", {"group": "g" * 5000, "name": "n"}, {}),
        ("Pause", {"group": "g", "name": "n"}, []),
        ("Pause", {"group": "g", "name": "n"}, {"type": "Down"}),
        ("Status", {}, {"x": "1"}),
    ],
)
def test_a_wrong_request_makes_no_command(name: str, path: Any, body: Any) -> None:
    with pytest.raises(msgspec.ValidationError):
        command_of(BY_NAME[name], path, body)


@pytest.mark.parametrize("wrong", ["films", "", "./films", "/films\0", "~/films"])
@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("UploadFile", "path"),
        ("DownloadFile", "dest"),
        ("DownloadFile", "reuse"),
        ("AwaitDownload", "path"),
        ("Follow", "path"),
        ("Unfollow", "path"),
    ],
)
def test_h147_a_path_of_a_request_is_absolute(name: str, field: str, wrong: str) -> None:
    """The peer runs in the root folder: a relative path would lead there."""
    route = BY_NAME[name]
    path = {"group": "g", "name": "n"} if "name" in route.path_fields else {"group": "g"}
    needed = {"dest": "/d"} if name == "DownloadFile" else {}
    for value, fits in ((wrong, False), ("/films", True), ("/films/", True)):
        given = {**needed, field: [value] if field == "reuse" else value}
        if fits:
            assert getattr(command_of(route, path, given), field) == given[field]
            continue
        with pytest.raises(msgspec.ValidationError, match=field):
            command_of(route, path, given)


def test_the_document_describes_each_route_and_refers_to_nothing_else() -> None:
    made = openapi("1.2.3")
    assert made["openapi"] == "3.1.0"
    operations = [one["operationId"] for path in made["paths"].values() for one in path.values()]
    streams = ["Events", "HeadEntry", "HeadFile", "ReadEntry", "ReadFile"]
    assert sorted(operations) == sorted([*BY_NAME, *streams])
    text = msgspec.json.encode(made).decode()
    used = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert used <= set(made["components"]["schemas"])
