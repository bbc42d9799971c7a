from __future__ import annotations

import ast
from pathlib import Path

import pytest

import tracker

DECIDING = [
    "accounts", "catalogue", "changes", "commands", "decision", "devices", "events", "groups",
    "guessing", "presence", "rights", "state", "uploads",
]  # fmt: skip
FORBIDDEN = {
    "zmq", "asyncio", "time", "random", "secrets", "socket", "os", "pathlib", "threading",
    "sqlalchemy", "sqlite3",
}  # fmt: skip


@pytest.mark.parametrize("name", DECIDING)
def test_what_decides_knows_no_world(name: str) -> None:
    source = (Path(tracker.__file__).parent / f"{name}.py").read_text(encoding="utf-8")
    imported = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module.split(".")[0])
    assert not imported & FORBIDDEN
    assert "peer" not in imported
