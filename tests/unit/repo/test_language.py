"""Rules of the language that a program can check: first lines, banned words, names of tests."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support.paths import ROOT

CODE = ("common", "peer", "tracker", "clients", "benchmarks", "examples", "tools")
EVERYWHERE = (*CODE, "tests")
PAGES = sorted(
    path
    for folder in (".", "docs", "docs/decisions", "docs/recipes", "examples", "config")
    for path in (ROOT / folder).glob("*")
    if path.suffix in {".md", ".toml", ".service"} or path.name == "tracker_info.txt"
)
# A first line names the thing; these words begin a riddle.
RIDDLE = re.compile(
    r"(What|Who|Whom|Whose|Whoever|How|Which|Where|When|Nobody|Somebody|Something|Everything)\b"
)
# The component or the actor is the subject: "the tracker", "a member", "a source".
BANNED = re.compile(r"\b(nobody|whoever|whomever|somebody|anymore|any more|for so long)\b", re.I)
SUBJECT = re.compile(
    r"(?:^|[.:;!] |\n\n)(?:And |But |So )?(?:What|Who|Whoever|Whom|Nobody|Somebody) "
    r"[^?]*?[.!](?=\s|$)"
)
TEST_NAME = re.compile(
    r"test_(?:[fh]\d+_)?(?:what|who|whom|whose|whoever|nobody|somebody)_"
    r"|_(?:nobody|whoever|somebody|any_more)(?:_|$)"
)


def code(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def docstrings(path: Path) -> tuple[tuple[int, str], ...]:
    return tuple(_docstrings(path))


def _docstrings(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "lineno", 1), text
            for line in node.body[1:]:  # docstrings of attributes and constants
                match line:
                    case ast.Expr(ast.Constant(str(below))):
                        yield line.lineno, below


def texts(path: Path, *kinds: int) -> Iterator[tuple[int, str]]:
    """Comments, docstrings and every other string of a module, or those of ``kinds``."""
    wanted = kinds or (tokenize.STRING, tokenize.COMMENT)
    with tokenize.open(path) as source:
        for token in tokenize.generate_tokens(io.StringIO(source.read()).readline):
            if token.type in wanted:
                yield token.start[0], token.string


@pytest.mark.parametrize("folder", EVERYWHERE)
def test_docstrings_begin_with_the_name_of_the_thing(folder: str) -> None:
    wrong = [
        f"{relative(path)}:{line}: {text.splitlines()[0]}"
        for path in code(folder)
        for line, text in docstrings(path)
        if RIDDLE.match(text)
    ]
    assert wrong == []


@pytest.mark.parametrize("folder", CODE)
def test_code_uses_no_banned_word(folder: str) -> None:
    wrong = [
        f"{relative(path)}:{line}: {found[0]}"
        for path in code(folder)
        for line, text in texts(path)
        if (found := BANNED.search(text))
    ]
    assert wrong == []


def test_docstrings_and_comments_of_tests_use_no_banned_word() -> None:
    """Other strings there are data: names of users, patterns, texts that must not be shown."""
    wrong = [
        f"{relative(path)}:{line}: {found[0]}"
        for path in code("tests")
        for line, text in [*docstrings(path), *texts(path, tokenize.COMMENT)]
        if (found := BANNED.search(text))
    ]
    assert wrong == []


@pytest.mark.parametrize("folder", EVERYWHERE)
def test_no_sentence_of_a_docstring_has_a_relative_clause_as_its_subject(folder: str) -> None:
    wrong = [
        f"{relative(path)}:{line}: {found[0].strip()[:80]}"
        for path in code(folder)
        for line, text in docstrings(path)
        if (found := SUBJECT.search(text))
    ]
    assert wrong == []


@pytest.mark.parametrize("path", PAGES, ids=relative)
def test_pages_use_no_banned_word_and_no_clause_as_a_subject(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if path.name == "CONTRIBUTING.md":  # which names them
        text = "\n".join(line for line in text.splitlines() if not line.startswith("|"))
    wrong = [found[0].strip()[:80] for found in (*BANNED.finditer(text), *SUBJECT.finditer(text))]
    assert wrong == []


def test_names_of_tests_have_a_subject() -> None:
    wrong = [
        f"{relative(path)}: {node.name}"
        for path in code("tests")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and TEST_NAME.search(node.name)
    ]
    assert wrong == []
