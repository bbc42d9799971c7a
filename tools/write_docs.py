"""Generator of docs/commands.md, config/mini-torrent.service, and tables of three other pages.

All text about a command comes from its own help, so that it has one place; a test checks that the
page is current. Invariant: the text does not depend on the terminal or on the release of click.

The last column of the tables in docs/attacks.md and docs/reliability.md names all tests with the
row's id in their name (`test_h21_…` for row H21).
"""

from __future__ import annotations

import inspect
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from common.metrics.families import Family

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "commands.md"
UNIT = ROOT / "config" / "mini-torrent.service"
METRICS = ROOT / "docs" / "metrics.md"
TABLES = (ROOT / "docs" / "attacks.md", ROOT / "docs" / "reliability.md")

_HEAD = """# Commands

`make docs` generates this page from the help texts of the commands. Change the help texts, not this
page.

In names of commands, `-` and `_` are equal. All commands of `mini-torrent` also accept
`--home DIR`, `--json`, `-q` (quiet) and `-v` (verbose), before or after the name of the command.
The [README](../README.md#exit-codes) lists exit codes and settings.
"""

# Described once for all commands, at the top of the page.
_SHARED = "--json"


def page() -> str:
    """Return the text of docs/commands.md."""
    from peer.cli import root
    from peer.cli.command_table import SECTIONS, names_of
    from tracker.cli import tracker

    parts = [_HEAD]
    for title in SECTIONS:
        parts.append(f"## {title}\n")
        parts += [_command("mini-torrent", root.commands[name]) for name in names_of(title)]
    parts.append("## The tracker\n")
    parts += [
        _command("mini-torrent-tracker", command) for _, command in sorted(tracker.commands.items())
    ]
    return "\n".join(parts)


def _command(program: str, command: click.Command) -> str:
    options = [
        option
        for option in command.params
        if isinstance(option, click.Option) and not option.hidden and _SHARED not in option.opts
    ]
    arguments = [p for p in command.params if isinstance(p, click.Argument)]
    usage = [program, command.name or ""]
    if options:
        usage.append("[OPTIONS]")
    usage += [_argument(argument) for argument in arguments]
    lines = [f"### {command.name}", "", "```", " ".join(usage), "```", ""]
    lines += _paragraphs(command.help or "")
    if options:
        rows = [_option(option) for option in options]
        lines += ["| option | meaning |", "|---|---|", *rows, ""]
    lines += _paragraphs(command.epilog or "")
    return "\n".join(lines)


def _argument(argument: click.Argument) -> str:
    if argument.metavar:
        return argument.metavar
    name = (argument.name or "").upper()
    if isinstance(argument.type, click.Choice):
        name = "|".join(argument.type.choices)
    return name if argument.required else f"[{name}]"


def _option(option: click.Option) -> str:
    names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    if value := _value(option):
        names += f" `{value}`"
    help_text = " ".join((option.help or "").split())
    notes = [*_default(option), *_environment(option)]
    return f"| {_cell(names)} | {_cell(' '.join([help_text, *notes]).strip())} |"


def _value(option: click.Option) -> str:
    if option.is_flag or option.count:
        return ""
    if isinstance(option.type, click.Choice):
        return "|".join(option.type.choices)
    return option.metavar or option.type.name.upper()


def _default(option: click.Option) -> Iterator[str]:
    if isinstance(option.show_default, str):
        yield f"Default: {option.show_default}."
    elif option.show_default:
        yield f"Default: {option.default}."


def _environment(option: click.Option) -> Iterator[str]:
    if isinstance(option.envvar, str):
        yield f"Environment: `{option.envvar}`."


def _paragraphs(text: str) -> Iterable[str]:
    """Yield the paragraphs of a help text. A paragraph marked ``\\b`` for click becomes a block."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if not paragraph.strip():
            continue
        first, *rest = paragraph.split("\n")
        if first == "\b":
            yield from _block(rest)
        else:
            before, found, example = " ".join(paragraph.split()).partition("Example: ")
            if before.strip():
                yield from [before.strip(), ""]
            if found:
                yield from ["```", example, "```", ""]


def _block(lines: Sequence[str]) -> Iterator[str]:
    title, *rest = lines
    if not rest:
        yield from [title, ""]
        return
    if title != "Example:":
        yield from [title, ""]
    yield from ["```", *inspect.cleandoc("\n".join(rest)).split("\n"), "```", ""]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


# -- families of metrics ------------------------------------------------------------------------

_GENERATED = "`make docs` generates the tables from here on."


def with_metrics(text: str) -> str:
    """Return the text of docs/metrics.md with fresh tables."""
    from common.metrics.exposition import BUILD_INFO, PREFIX
    from peer.metrics import families as of_peer
    from tracker.metrics import families as of_tracker

    parts = [text.partition(_GENERATED)[0] + _GENERATED, ""]
    for title, prefix, families in (
        ("Both programs", PREFIX, (BUILD_INFO,)),
        ("Peer", f"{PREFIX}_{of_peer.PROGRAM}", of_peer.FAMILIES),
        ("Tracker", f"{PREFIX}_{of_tracker.PROGRAM}", of_tracker.FAMILIES),
    ):
        parts += [f"### {title}", "", "| family | kind | labels | meaning |", "|---|---|---|---|"]
        parts += [_family(prefix, family) for family in families]
        parts.append("")
    return "\n".join(parts)


def _family(prefix: str, family: Family) -> str:
    labels = []
    for label, known in family.labels.items():
        one = known is None or len(known) == 1
        labels.append(f"`{label}`" if one else f"`{label}`: {', '.join(known or ())}")
    cells = (f"`{prefix}_{family.name}`", family.kind.value, "; ".join(labels), family.help)
    return f"| {' | '.join(map(_cell, cells))} |"


# -- tests of each row -------------------------------------------------------------------------

_TEST = re.compile(r"^ *(?:async )?def (test_([fh])0*(\d+)_\w+)", re.MULTILINE)
_CHAOS = re.compile(r"^def (([f])0*(\d+)_\w+)", re.MULTILINE)
_ROW = re.compile(r"\| ([FH]\d+) \|")


def tests_by_row() -> dict[str, list[str]]:
    """Return, for each row id, links to the tests with that id in their name."""
    found: dict[str, list[str]] = defaultdict(list)
    files = [(file, _TEST) for file in sorted((ROOT / "tests").rglob("test_*.py"))]
    files += [(file, _CHAOS) for file in sorted((ROOT / "tests" / "chaos").glob("*.py"))]
    for file, pattern in files:
        for name, kind, number in pattern.findall(file.read_text("utf-8")):
            link = f"[`{name}`](../{file.relative_to(ROOT)})"
            found[f"{kind.upper()}{number}"].append(link)
    return found


def with_tests(text: str, found: Mapping[str, Sequence[str]]) -> str:
    """Return ``text`` with the last column of each row replaced."""
    lines = []
    for line in text.split("\n"):
        row = _ROW.match(line)
        if row is not None:
            shown = f"{', '.join(found.get(row[1], ()))} |".lstrip()
            line = f"{line.rpartition(' | ')[0]} | {shown}"
        lines.append(line)
    return "\n".join(lines)


def main() -> None:
    """Write all generated text."""
    PAGE.write_text(page(), encoding="utf-8")
    METRICS.write_text(with_metrics(METRICS.read_text("utf-8")), encoding="utf-8")
    found = tests_by_row()
    for table in TABLES:
        table.write_text(with_tests(table.read_text("utf-8"), found), encoding="utf-8")
    from peer.cli.service_unit import example

    UNIT.write_text(example(), encoding="utf-8")
    print(
        f"wrote {PAGE.name}, {UNIT.name} and the rows of {len(found)} attacks and faults",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()
