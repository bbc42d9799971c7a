"""Answers of the completion for bash: every one reads as the name that it stands for."""

from __future__ import annotations

import subprocess
from os.path import commonprefix
from random import Random

import click
import pytest
from click.shell_completion import CompletionItem

from common.cli.completion import answer


def completed(names: list[str], typed: str) -> list[str]:
    """The values for bash that complete the argument ``typed``."""

    @click.group()
    def program() -> None: ...

    def offered(
        context: click.Context, parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]

    @program.command()
    @click.argument("name", shell_complete=offered)
    def get(name: str) -> None: ...

    rows = answer(program, "bash_complete", [f"program get {typed}", typed.lstrip("'\"")])
    return [row.removeprefix("plain\t") for row in rows.splitlines()]


@pytest.mark.parametrize(
    ("names", "values"),
    [
        (["Bob's", "Bob (1)"], ['Bob"\'"s', r"Bob\ \(1\)"]),
        (["Bob (1)", "Bob's"], [r"Bob' '\(1\)", r"Bob\'s"]),
    ],
)
def test_an_escape_that_several_names_begin_is_written_in_quotes(
    names: list[str], values: list[str]
) -> None:
    assert completed(names, "B") == values


@pytest.mark.parametrize("quote", ["", "'", '"'])
def test_each_answer_is_one_word_and_none_begins_half_an_escape(quote: str) -> None:
    random = Random(3)
    expected: list[str] = []
    words: list[str] = []
    for _ in range(1_000):
        names = sorted({"".join(random.choices("ab'\"$ \\!;`", k=4)) for _ in range(3)})
        values = completed(names, quote)
        expected += names
        # bash ends the quotation unless its mark stands there already.
        words += [f"{quote}{value}{'' if value.endswith(quote) else quote}" for value in values]
        if quote != "'" and len(values) > 1:
            common = commonprefix(values)  # noqa: RUF071 (of strings is what is meant)
            assert (len(common) - len(common.rstrip("\\"))) % 2 == 0, values
    line = f"printf '%s\\n' {' '.join(words)}"
    read = subprocess.run(["bash"], input=line, capture_output=True, check=True, text=True)
    assert read.stdout.splitlines() == expected
