"""Requests to the HTTP API of a real process, generated from its OpenAPI document (schemathesis).

Half of them name things that exist, so that answers are compared with the document too; the other
half have any text that the document allows. Paths are folders of the swarm: a request must not
write anywhere else, and no command of a hook runs.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.support.processes import Person

DOCUMENTED = {502, 503, 504, 507}
"""Statuses of the 500s that have a reason of their own: no tracker, busy, too late, no space."""
KNOWN = {
    "group": ["lab", "none"],
    "name": ["model.bin", "model.bin@1", "tree", "none"],
    "user": ["anna", "bert"],
    "entry": ["a", "none"],
}


@dataclass(frozen=True)
class Aim:
    """API under exploration. ``values``: all that a field of a body may be.

    ``left_out``: operations that end the exploration, or have no end. ``last``: operations after
    which others find less, in this order.
    """

    home: Path
    left_out: set[str]
    last: Sequence[str]
    values: Mapping[str, list[str]]


def peer_aim(person: Person) -> Aim:
    """The API of ``person``, who owns the group ``lab``."""
    swarm = person.swarm
    folders = [str(swarm.folder()), str(swarm.folder()), str(person.home / "x")]
    return Aim(
        person.home,
        {"Down", "Logout", "ChangePassword", "Events"},
        ["Verify", "Move", "Cancel", "Limit", "StopShare", "Withdraw", "LeaveGroup", "Login"],
        {"path": folders, "dest": folders, "reuse": folders},
    )


class Explorer:
    """The API of one process. ``statuses`` counts the answers."""

    def __init__(self, aim: Aim) -> None:
        self.aim = aim
        self.statuses: dict[str, set[int]] = {}
        transport = httpx.HTTPTransport(uds=str(aim.home / "api.sock"))
        self._client = httpx.Client(transport=transport, base_url="http://localhost", timeout=60)
        self._document = self._client.get("/api/v1/openapi.json").json()

    def close(self) -> None:
        self._client.close()

    def explore(self, number: int, examples: int) -> list[str]:
        """Send ``examples`` requests of each kind to each operation; return what is wrong."""
        wrong: list[str] = []
        for known in (True, False):
            for operation in self._operations(known):
                name = operation.definition.raw["operationId"]
                wrong += [f"{name}: {text}" for text in self._try(operation, number, examples)]
        return wrong

    def _operations(self, known: bool) -> list[Any]:
        import schemathesis

        document = copy.deepcopy(self._document)
        self._restrict(document, known)
        found = [one.ok() for one in schemathesis.openapi.from_dict(document).get_all_operations()]

        def place(operation: Any) -> int:
            name = operation.definition.raw["operationId"]
            return self.aim.last.index(name) if name in self.aim.last else -1

        kept = [one for one in found if one.definition.raw["operationId"] not in self.aim.left_out]
        return sorted(kept, key=place)

    def _restrict(self, document: dict[str, Any], known: bool) -> None:
        for schema in document["components"]["schemas"].values():
            properties = schema.get("properties", {})
            if schema.get("additionalProperties") is not False:
                continue  # an answer
            for name, values in self.aim.values.items():
                if name == "reuse" and name in properties:
                    properties[name]["items"] = {"enum": values}
                elif name in properties:
                    properties[name] = {"enum": values}
            properties.pop("on_complete", None)
            if "timeout_s" in properties:
                properties["timeout_s"] = {"type": "number", "minimum": 0, "maximum": 0.2}
                schema["required"] = [*schema.get("required", []), "timeout_s"]
        if known:
            for methods in document["paths"].values():
                for operation in methods.values():
                    for one in operation["parameters"]:
                        if one["in"] == "path" and one["name"] in KNOWN:
                            one["schema"] = {"enum": KNOWN[one["name"]]}

    def _try(self, operation: Any, number: int, examples: int) -> Iterator[str]:
        from schemathesis.checks import CHECKS

        # Many valid requests are refused for reasons that no schema can say.
        excluded = [CHECKS.get_one(name) for name in ("positive_data_acceptance",)]
        wrong: dict[str, str] = {}

        @seed(number)
        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.explicit, Phase.generate],
        )
        @given(case=operation.as_strategy())
        def run(case: Any) -> None:
            response = self._send(case)
            self.statuses.setdefault(operation.label, set()).add(response.status_code)
            if response.status_code in DOCUMENTED and "code" in response.text:
                return
            try:
                case.validate_response(response, excluded_checks=excluded)
            except BaseException as error:
                told = getattr(error, "exceptions", [error])
                for text in map(str, told):
                    request = f"{response.request.url} {response.request.content[:500]!r}"
                    wrong[text[:100]] = f"{text[:300]}\n{request}\n{response.text[:300]}"

        run()
        yield from wrong.values()

    def _send(self, case: Any) -> httpx.Response:
        made = case.as_transport_kwargs(base_url="http://localhost")
        return self._client.request(
            made["method"],
            made["url"],
            params=made.get("params"),
            headers=dict(made.get("headers") or {}),
            json=made.get("json"),
            content=made.get("data"),
        )
