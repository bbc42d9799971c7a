"""Layers of the code: which package imports which, pure halves, circles and sizes."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PACKAGES = ("common", "peer", "tracker")
MAY_IMPORT = {"common": {"common"}, "peer": {"peer", "common"}, "tracker": {"tracker", "common"}}
# Sockets, clocks, chance, threads and files: a pure module gets their results as arguments.
WORLD = {
    "asyncio", "concurrent", "glob", "io", "multiprocessing", "os", "pathlib", "queue", "random",
    "secrets", "select", "selectors", "shutil", "signal", "socket", "sqlalchemy", "sqlite3",
    "subprocess", "tempfile", "threading", "time", "zmq",
}  # fmt: skip
PURE_FOLDERS = ("peer/swarm", "tracker/core")
PURE = [path for folder in PURE_FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
LINES_MAX = 400
# Catalogues of messages and values: long by nature, without logic.
DATA = {f"common/messages/{name}.py" for name in ("control", "operator", "tracker")}
ATTRIBUTES_MAX = 20


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path, *, at_run_time_only: bool = False) -> Iterator[str]:
    """The dotted names that ``path`` imports: ``a.b`` and ``a.b.c`` for ``from a.b import c``."""
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
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def dotted(path: Path) -> str:
    return relative(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@pytest.mark.parametrize("package", PACKAGES)
def test_neither_side_imports_the_other_and_common_imports_neither(package: str) -> None:
    forbidden = set(PACKAGES) - MAY_IMPORT[package]
    wrong = [
        f"{relative(path)} imports {module}"
        for path in modules(package)
        for module in imports(path)
        if module.split(".")[0] in forbidden
    ]
    assert wrong == []


@pytest.mark.parametrize("path", PURE, ids=relative)
def test_pure_modules_import_no_socket_clock_chance_thread_or_file(path: Path) -> None:
    assert not {module.split(".")[0] for module in imports(path, at_run_time_only=True)} & WORLD


@pytest.mark.parametrize("path", PURE, ids=relative)
def test_pure_modules_import_only_pure_modules_of_their_side(path: Path) -> None:
    folder = next(folder for folder in PURE_FOLDERS if relative(path).startswith(folder))
    side, pure = folder.split("/")[0], folder.replace("/", ".")
    wrong = [
        module
        for module in imports(path)
        if module.startswith(f"{side}.") and not module.startswith(pure)
    ]
    assert wrong == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    known = {dotted(path): path for package in PACKAGES for path in modules(package)}
    graph = {
        name: {module for module in imports(path) if module in known} - {name}
        for name, path in known.items()
        if path.name != "__init__.py"
    }
    reached = {name: set(imported) for name, imported in graph.items()}
    for middle in graph:  # Warshall's transitive closure
        for name in graph:
            if middle in reached[name]:
                reached[name] |= reached[middle]
    assert {name for name, others in reached.items() if name in others} == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_has_a_docstring(package: str) -> None:
    silent = [
        relative(path)
        for path in modules(package)
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert silent == []


def test_modules_but_catalogues_stay_short() -> None:
    long = {
        relative(path): lines
        for package in PACKAGES
        for path in modules(package)
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > LINES_MAX
    }
    assert {path: lines for path, lines in long.items() if path not in DATA} == {}


def test_classes_keep_few_attributes() -> None:
    """Attributes that methods set on ``self``; fields of plain values are data and do not count."""
    wide = {}
    for package in PACKAGES:
        for path in modules(package):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not isinstance(node, ast.ClassDef):
                    continue
                names = {
                    inner.attr
                    for inner in ast.walk(node)
                    if isinstance(inner, ast.Attribute)
                    and isinstance(inner.ctx, ast.Store)
                    and isinstance(inner.value, ast.Name)
                    and inner.value.id == "self"
                }
                if len(names) > ATTRIBUTES_MAX:
                    wide[f"{relative(path)}:{node.name}"] = len(names)
    assert wide == {}
