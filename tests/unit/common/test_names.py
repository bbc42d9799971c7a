"""Names: refused ones, allowed ones, and their display (H28, H31)."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.names import (
    QUOTED_CHARACTERS_MAX,
    BadName,
    PathOrder,
    fold_id,
    fold_name,
    group_id,
    new_group_id,
    new_user_id,
    printable,
    quoted,
    share_name,
    user_id,
)
from tests.support.paths import CORPUS


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (CORPUS / name).read_text().splitlines()]


def by_reason(row: dict[str, Any]) -> str:
    return str(row.get("why", ascii(row.get("name"))))


# -- ids ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["a", "Ann", "0", "a.b_c-d", "x" * 64])
def test_ids_are_folded(text: str) -> None:
    assert user_id(text) == text.lower() == fold_id(text)
    assert group_id(text) == text.lower()


@pytest.mark.parametrize(
    "text",
    ["", ".a", "_a", "-a", "a b", "a/b", "a\n", "\na", "é", "x" * 65, "a\x00", "ａ", "a@b", "٣"],
)
def test_bad_ids_are_refused_with_the_id_quoted(text: str) -> None:
    for check in (user_id, group_id):
        with pytest.raises(BadName) as caught:
            check(text)
        assert quoted(text) in str(caught.value)
        assert caught.value.hint is not None


@pytest.mark.parametrize("text", ["anna.", "anna_", "anna-", "a" * 63 + ".", "a..", "0-"])
def test_new_ids_end_with_a_letter_or_a_digit_and_older_ones_are_known(text: str) -> None:
    assert user_id(text) == group_id(text) == text
    for check in (new_user_id, new_group_id):
        with pytest.raises(BadName) as caught:
            check(text)
        assert quoted(text) in str(caught.value)
        assert check(text[:1]) == text[:1]
        assert check("A.b-" + text[:1]) == "a.b-" + text[:1]
        with pytest.raises(BadName):
            check("x" * 65)
        assert check("x" * 64) == "x" * 64


# -- names of shares ----------------------------------------------------------------------------


@pytest.mark.parametrize("row", rows("bad_names.jsonl"), ids=by_reason)
def test_H28_bad_names_are_refused_quoted_and_harmless(row: dict[str, Any]) -> None:
    with pytest.raises(BadName) as caught:
        share_name(row["name"])
    text = str(caught.value)
    assert quoted(row["name"]) in text
    assert text.encode("utf-8")
    assert printable(text) == text


@pytest.mark.parametrize("row", rows("good_names.jsonl"), ids=by_reason)
def test_good_names_are_kept_and_shown_as_they_are(row: dict[str, Any]) -> None:
    assert share_name(row["name"]) == row["name"]
    assert printable(row["name"]) == row["name"]


@given(st.text(max_size=40))
def test_an_allowed_name_is_one_harmless_component(text: str) -> None:
    try:
        name = share_name(text)
    except BadName:
        return
    assert name not in ("", ".", "..")
    assert not set(name) & {"/", "\x00", "\n", "\r", "\x1b", "\u202e", "\u2028"}
    assert len(name.encode("utf-8")) <= 255
    assert printable(name) == name


@given(st.text(max_size=40))
def test_H31_printable_text_encodes_and_holds_no_control(text: str) -> None:
    shown = printable(text)
    shown.encode("utf-8")
    assert all(
        unicodedata.category(char) not in ("Cc", "Cs", "Zl", "Zp")
        and unicodedata.bidirectional(char) not in ("LRE", "RLE", "LRO", "RLO", "PDF")
        and unicodedata.bidirectional(char) not in ("LRI", "RLI", "FSI", "PDI")
        for char in shown
    )
    assert printable(shown) == shown


def test_H31_an_escape_sequence_is_shown_as_text() -> None:
    assert printable("a\x1b[31mb\u202ec\U000e0041") == r"a\x1b[31mb\u202ec\U000e0041"
    assert printable("caf\udce9") == r"caf\xe9"


def test_a_long_name_does_not_bury_the_error() -> None:
    assert len(quoted("x" * 100_000)) == QUOTED_CHARACTERS_MAX + len('"…"')
    assert quoted("x" * QUOTED_CHARACTERS_MAX) == '"' + "x" * QUOTED_CHARACTERS_MAX + '"'


@given(st.text(max_size=30))
def test_twins_fold_alike(text: str) -> None:
    forms = {text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)}
    assert len({fold_name(form) for form in forms}) == 1
    assert fold_name(text.casefold()) == fold_name(text)


# -- paths --------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", rows("bad_paths.jsonl"), ids=by_reason)
def test_H28_bad_paths_are_refused(row: dict[str, Any]) -> None:
    with pytest.raises(BadName) as caught:
        PathOrder().add(row["path"])
    assert printable(str(caught.value)) == str(caught.value)


@pytest.mark.parametrize("row", rows("bad_trees.jsonl"), ids=by_reason)
def test_H28_paths_that_do_not_go_together_are_refused(row: dict[str, Any]) -> None:
    order = PathOrder()
    for path in row["paths"][:-1]:
        order.add(path)
    with pytest.raises(BadName):
        order.add(row["paths"][-1])


@pytest.mark.parametrize("row", rows("good_trees.jsonl"), ids=by_reason)
def test_names_that_linux_can_hold_side_by_side_go_together(row: dict[str, Any]) -> None:
    order = PathOrder()
    for path in sorted(row["paths"], key=lambda path: path.split("/")):
        order.add(path)


component = st.text(st.sampled_from("abAB.é-_ 1"), min_size=1, max_size=3)
tree = st.sets(st.lists(component, min_size=1, max_size=4).map("/".join), max_size=12)


@given(tree)
def test_a_tree_passes_exactly_if_no_two_of_its_paths_collide(found: set[str]) -> None:
    paths = sorted(found, key=lambda path: path.split("/"))
    order = PathOrder()
    try:
        for path in paths:
            order.add(path)
    except BadName:
        assert not can_go_together(paths)
    else:
        assert can_go_together(paths)


def can_go_together(paths: list[str]) -> bool:
    """The same judgement, by way of every prefix of every path at once."""
    leaves = {tuple(path.split("/")) for path in paths}
    for path in paths:
        try:
            PathOrder().add(path)
        except BadName:
            return False
        parts = path.split("/")
        for depth in range(1, len(parts) + 1):
            prefix = tuple(parts[:depth])
            if depth < len(parts) and prefix in leaves:
                return False
    return True
