"""The documents agree with the repository: paths, links, tests, messages and commands exist."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from common.messages import events, peer, tracker
from common.messages.refusals import Code
from peer.cli import root
from tests.support.paths import ROOT
from tracker.cli import tracker as tracker_program

PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
        *(ROOT / "docs").rglob("*.md"),
    ]
)
_FOLDERS = "benchmarks|common|config|docs|examples|peer|tests|tools|tracker"
_PATH = re.compile(rf"`((?:{_FOLDERS})/[\w./*-]*)(?:::\w+)?`")
_LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(#[^)\s]+)?\)")
_TEST = re.compile(r"\btest_\w+")
_TARGET = re.compile(r"`make ([a-z]+)")


def _shown(page: Path) -> str:
    return str(page.relative_to(ROOT))


pages = pytest.mark.parametrize("page", PAGES, ids=_shown)


@pages
def test_every_path_that_is_named_exists(page: Path) -> None:
    named = set(_PATH.findall(page.read_text("utf-8")))
    assert not [path for path in sorted(named) if not list(ROOT.glob(path.rstrip("/")))]


@pages
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for target, anchor in _LINK.findall(page.read_text("utf-8")):
        file = (page.parent / target).resolve() if target else page
        if not file.exists() or (anchor and anchor[1:] not in _anchors(file)):
            broken.append(target + anchor)
    assert not broken


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as the usual renderers make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pages
def test_every_test_that_is_named_exists(page: Path) -> None:
    sources = (file.read_text("utf-8") for file in (ROOT / "tests").rglob("*.py"))
    there = {name for source in sources for name in re.findall(r"\bdef (test_\w+)", source)}
    there |= {file.stem for file in (ROOT / "tests").rglob("test_*.py")}
    assert not sorted(set(_TEST.findall(page.read_text("utf-8"))) - there)


@pages
def test_every_make_target_that_is_named_exists(page: Path) -> None:
    there = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert not sorted(set(_TARGET.findall(page.read_text("utf-8"))) - there)


def test_every_decision_is_in_the_index() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text("utf-8")
    pages = {page.name for page in folder.glob("*.md")} - {"README.md"}
    assert not sorted(page for page in pages if f"]({page})" not in index)


def test_the_architecture_page_has_a_row_for_every_folder() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    folders = {
        f"{file.parent.relative_to(ROOT)}/"
        for package in ("common", "tracker", "peer")
        for file in (ROOT / package).rglob("*.py")
        if "migrations" not in file.parts
    }
    assert not sorted(folder for folder in folders if f"| `{folder}` |" not in text)


def test_the_readme_names_every_command() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    programs = [tracker_program.commands, root.commands]
    names = {name for commands in programs for name, found in commands.items() if not found.hidden}
    assert not sorted(name for name in names if not re.search(rf"[` ]{name}[` ]", text))


def test_every_class_of_the_glossary_exists() -> None:
    glossary = (ROOT / "CONTRIBUTING.md").read_text("utf-8").partition("## Glossary")[2]
    terms = "".join(line.split("|")[1] for line in glossary.splitlines() if line.startswith("|"))
    named = set(re.findall(r"`([A-Z]\w+)`", terms)) - {"Nudge"}
    there = {
        name
        for folder in ("common", "tracker", "peer", "benchmarks", "tests")
        for file in (ROOT / folder).rglob("*.py")
        for name in re.findall(r"^(?:class )?([A-Z]\w+)", file.read_text("utf-8"), re.MULTILINE)
    }
    assert not sorted(named - there), "rename it in the glossary of CONTRIBUTING.md as well"


def _write_docs() -> Any:
    spec = importlib.util.spec_from_file_location("write_docs", ROOT / "tools" / "write_docs.py")
    assert spec is not None
    assert spec.loader is not None
    write_docs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(write_docs)
    return write_docs


def test_the_commands_page_is_current() -> None:
    current = (ROOT / "docs" / "commands.md").read_text("utf-8")
    assert current == _write_docs().page(), "run: make docs"


def test_the_tables_of_metrics_are_current() -> None:
    current = (ROOT / "docs" / "metrics.md").read_text("utf-8")
    assert current == _write_docs().with_metrics(current), "run: make docs"


def _messages() -> Iterator[type[Any]]:
    for union in (
        tracker.Command,
        tracker.Reply,
        events.Published,
        events.GroupEvent,
        peer.ClientMessage,
        peer.Answer,
        peer.Pieces,
    ):
        yield from get_args(union) or [union]


def test_the_protocol_page_names_every_message_and_code() -> None:
    text = (ROOT / "docs" / "protocol.md").read_text("utf-8")
    named = set(re.findall(r"`([\w-]+)`", text))
    assert not {message.__name__ for message in _messages()} - named
    assert not {code.value for code in Code} - named
