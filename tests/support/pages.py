"""Commands on pages of the documentation, run as a reader would type them.

`steps` takes the commands behind prompts and their output out of fenced blocks; `scripts` takes
whole blocks with a title. A `Machine` is a home folder with a shell in it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import BIN, Ran, run_program

_BLOCK = re.compile(r"^```(?P<kind>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_PROMPT = re.compile(r"^(?P<prompt>\w+@\w+):~\$ (?P<command>.*)$")


@dataclass
class Step:
    """A command behind a prompt, and the output below it."""

    prompt: str
    command: str
    output: str = ""


def steps(page: str) -> list[Step]:
    """The commands behind prompts in the fenced blocks of ``page``, in order."""
    found: list[Step] = []
    for block in _BLOCK.finditer(page):
        for line in block["text"].splitlines():
            if match := _PROMPT.match(line):
                found.append(Step(match["prompt"], match["command"]))
            else:
                assert found, f"an output without a command: {line}"
                found[-1].output += f"{line}\n"
    return found


def scripts(page: str) -> Iterator[tuple[str, str]]:
    """The fenced blocks of ``page``: what stands behind the fence, and the text."""
    for block in _BLOCK.finditer(page):
        yield block["kind"].strip(), block["text"]


class Machine:
    """A home folder, in which shells run with nothing of the environment of the tests."""

    def __init__(self, folder: Path, variables: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.variables = {
            "HOME": str(folder),
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "LC_ALL": "C.UTF-8",
            **(variables or {}),
        }

    def run(self, script: str, *, stdin: str = "", cwd: Path | None = None) -> Ran:
        """Run ``script`` by bash, until its first command that fails."""
        words = ["bash", "-euo", "pipefail", "-c", script]
        return run_program(words, stdin=stdin, cwd=cwd or self.folder, env=self.variables)
