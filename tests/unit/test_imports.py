"""Who may import whom: ``tracker → common ← peer``, and what decides knows no world."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("common", "peer", "tracker")
MAY_IMPORT = {"common": {"common"}, "peer": {"peer", "common"}, "tracker": {"tracker", "common"}}
# Sockets, clocks, chance, threads and files: what a deciding module gets passed in, or never.
WORLD = {
    "asyncio", "concurrent", "glob", "io", "multiprocessing", "os", "pathlib", "queue", "random",
    "secrets", "select", "selectors", "shutil", "signal", "socket", "sqlalchemy", "sqlite3",
    "subprocess", "tempfile", "threading", "time", "zmq",
}  # fmt: skip
DECIDING = [
    *sorted((ROOT / "peer" / "swarm").glob("*.py")),
    *(
        ROOT / "tracker" / f"{name}.py"
        for name in (
            "accounts", "catalogue", "changes", "commands", "decision", "events", "groups",
            "guessing", "presence", "rights", "state", "uploads",
        )
    ),
]  # fmt: skip


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path, *, at_run_time_only: bool = False) -> Iterator[str]:
    """The names of the modules that ``path`` imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = set()
    if at_run_time_only:
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                skipped |= {id(child) for child in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            assert node.module is not None
            yield node.module


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("package", PACKAGES)
def test_neither_side_imports_the_other_and_common_imports_neither(package: str) -> None:
    forbidden = set(PACKAGES) - MAY_IMPORT[package]
    wrong = [
        f"{named(path)} imports {module}"
        for path in modules(package)
        for module in imports(path)
        if module.split(".")[0] in forbidden
    ]
    assert wrong == []


@pytest.mark.parametrize("path", DECIDING, ids=named)
def test_what_decides_knows_no_world(path: Path) -> None:
    assert not {module.split(".")[0] for module in imports(path, at_run_time_only=True)} & WORLD


@pytest.mark.parametrize("path", sorted((ROOT / "peer" / "swarm").glob("*.py")), ids=named)
def test_the_core_knows_nothing_of_the_shell_around_it(path: Path) -> None:
    wrong = [
        module
        for module in imports(path)
        if module.startswith("peer.") and not module.startswith("peer.swarm")
    ]
    assert wrong == []


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_says_what_it_owns(package: str) -> None:
    silent = [
        named(path)
        for path in modules(package)
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert silent == []
