"""Shell completion of both programs: the scripts for bash, zsh and fish, and their answers.

Invariant: a name that another user chose never reaches a command line as shell syntax. bash inserts
an answer unchanged, so it is quoted here, in the quotation that was begun; zsh and fish quote by
themselves. Not here: the candidates, which the commands name (click's `shell_complete`).
Limits: names that `printable` would change are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from os.path import commonprefix
from typing import NamedTuple

import click
from click.shell_completion import CompletionItem, ShellComplete

from common.names import printable

SHELLS = ("bash", "zsh", "fish")
PATHS = ("file", "dir")  # the kinds of items that the shell completes by itself

_BASH = """\
%(function)s() {
    local kind value
    COMPREPLY=()
    while IFS=$'\\t' read -r kind value; do
        case $kind in
            plain) COMPREPLY+=("$value") ;;
            file) compopt -o default ;;
            dir) compopt -o dirnames ;;
        esac
    done < <(%(variable)s=bash_complete "${1/#\\~/$HOME}" \\
        "${COMP_LINE:0:COMP_POINT}" "$2" </dev/null 2>/dev/null)
}

complete -o nosort -F %(function)s %(program)s
"""

_ZSH = """\
#compdef %(program)s

%(function)s() {
    local line kind value help
    local -a values described lines fields
    for line in "${(@f)$(%(variable)s=zsh_complete "${words[1]/#\\~/$HOME}" \\
        "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" </dev/null 2>/dev/null)}"; do
        fields=("${(@ps:\\t:)line}")
        kind=$fields[1] value=$fields[2] help=$fields[3]
        case $kind in
            plain)
                if [[ -n $help ]]; then
                    described+=("$value")
                    lines+=("$value  -- $help")
                else
                    values+=("$value")
                fi ;;
            file) _path_files ;;
            dir) _path_files -/ ;;
        esac
    done
    (( $#described )) && compadd -l -d lines -a -- described
    (( $#values )) && compadd -a -- values
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    %(function)s "$@"
else
    compdef %(function)s %(program)s
fi
"""

_FISH = """\
function %(function)s
    set -l words (commandline -opc)
    set -l token (commandline -ct)
    string match -qr '^[-\\w.=/]*$' -- "$token"; or set token ''
    set -l program (string replace -r '^~/' "$HOME/" -- $words[1])
    set -lx %(variable)s fish_complete
    for line in ($program $words[2..] "$token" </dev/null 2>/dev/null)
        set -l item (string split \\t -- $line)
        switch $item[1]
            case plain
                # fish quotes what it inserts, all but a tilde, which it expands.
                string match -q '~*' -- $item[2]
                and not string match -qr '^[\\'"]' -- (commandline -ct)
                and continue
                printf '%%s\\t%%s\\n' $item[2] "$item[3]"
            case file
                __fish_complete_path (commandline -ct)
            case dir
                __fish_complete_directories (commandline -ct)
        end
    end
end

complete --no-files --command %(program)s --arguments '(%(function)s)'
"""

_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def variable(program: str) -> str:
    """The environment variable by which a script asks ``program`` for completions."""
    return f"_{program.upper().replace('-', '_')}_COMPLETE"


def script(shell: str, program: str) -> str:
    """The completion script of ``program`` for one of `SHELLS`."""
    names = {"program": program, "variable": variable(program)}
    return _SCRIPTS[shell] % {**names, "function": f"_{program.replace('-', '_')}_completion"}


def answer(root: click.Command, instruction: str, words: Sequence[str]) -> str:
    """The lines that a script asked for: kind, value and description, with tabs between them.

    ``instruction`` is the value of `variable`. ``words`` are, for bash, the line up to the cursor
    and the part of it that will be replaced; otherwise the words behind the program's name, with
    the one to be completed last. Silent, like every completion, where nothing can be completed.
    """
    shell = instruction.removesuffix("_complete")
    if shell not in SHELLS or not words:
        return ""
    if shell == "bash":
        rows = list(_for_bash(root, words[0], words[-1]))
    else:
        rows = [
            (item.type, item.value, _one_line(item.help))
            for item in completions(root, words[:-1], words[-1])
        ]
    return "".join("\t".join(row).rstrip("\t") + "\n" for row in rows)


def completions(
    root: click.Command, words: Sequence[str], incomplete: str
) -> list[CompletionItem[str]]:
    """The completions of ``incomplete`` behind ``words``, which are plain text without quotation.

    A name that begins with ``-`` stands behind ``--`` alone; before that, ``--`` is offered.
    """
    option, equals, _ = incomplete.partition("=") if incomplete.startswith("--") else ("", "", "")
    found: list[CompletionItem[str]] = []
    for item in ShellComplete(root, {}, "", "").get_completions(list(words), incomplete):
        if item.type not in PATHS and printable(item.value) != item.value:
            continue
        if item.type not in PATHS and equals:
            item.value = f"{option}={item.value}"
        elif item.value.startswith("-") and item.help is None and "--" not in words:
            item.value, item.help = "--", "before a name that begins with a dash"
        found.append(item)
    return list({(item.type, item.value): item for item in found}.values())


def _one_line(text: str | None) -> str:
    return printable(" ".join((text or "").split()))


# -- bash ---------------------------------------------------------------------------------------


class Typed(NamedTuple):
    """The beginning of a bash command line. ``words``: the complete ones, unquoted. ``raw``: the
    last one as it stands."""

    words: list[str]
    raw: str


_SPECIAL = re.compile(r"[^A-Za-z0-9_./+@%,\-\x80-\U0010ffff]")
_IN_DOUBLE = re.compile(r'[\\"$`]')


def typed(line: str) -> Typed:
    """Split ``line`` into words as bash does; nothing in it is expanded."""
    words: list[str] = []
    start, quote, place = 0, "", 0
    while place < len(line):
        letter = line[place]
        if letter == "\\" and quote != "'":
            place += 1
        elif quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in " \t\n":
            if place > start:
                words.append(unquoted(line[start:place])[0])
            start = place + 1
        place += 1
    return Typed(words, line[start:])


def unquoted(raw: str) -> tuple[str, str]:
    """The text that ``raw`` stands for, and the quotation mark that is still open at its end."""
    text: list[str] = []
    quote, place = "", 0
    while place < len(raw):
        letter = raw[place]
        if letter == "\\" and quote != "'":
            place += 1
            following = raw[place : place + 1]
            keeps = quote and following and not _IN_DOUBLE.match(following)
            text.append(letter + following if keeps else following)
        elif letter == quote:
            quote = ""
        elif not quote and letter in "'\"":
            quote = letter
        else:
            text.append(letter)
        place += 1
    return "".join(text), quote


def continued(text: str, quote: str) -> str:
    """Quote ``text`` for bash after an open ``quote``: as it is, and nothing but text."""
    if not quote:
        return _SPECIAL.sub(r"\\\g<0>", text)
    if quote == "'":
        shown = text.replace("'", "'\\''")
    else:
        # Why: history expansion happens in double quotes as well, and no backslash stops it there.
        shown = _IN_DOUBLE.sub(r"\\\g<0>", text).replace("!", "\"'!'\"")
    # Why: readline closes the quotation unless its mark stands there already, whatever it means.
    return shown + quote if shown.endswith(quote) else shown


def _for_bash(root: click.Command, line: str, part: str) -> Iterator[tuple[str, ...]]:
    words, raw = typed(line)
    if not words or not raw.endswith(part) or raw.startswith("$'"):
        return
    kept = raw[: len(raw) - len(part)]
    before, quote = unquoted(kept)
    text, _ = unquoted(raw)
    values = []
    for item in completions(root, words[1:], text):
        if item.type in PATHS:
            yield (item.type,)
        elif item.value.startswith(text):
            values.append(item.value.removeprefix(before))
    quoted = [continued(value, quote) for value in values]
    # bash inserts what all of them begin with: half of an escape must not be the end of it.
    common = commonprefix(quoted)  # noqa: RUF071 (of strings is what is meant)
    if quote != "'" and len(quoted) > 1 and (len(common) - len(common.rstrip("\\"))) % 2:
        quoted[0] = _without_escape(quoted[0], len(common) - 1, quote)
    for value in quoted:
        yield "plain", value


def _without_escape(value: str, at: int, quote: str) -> str:
    """Return ``value`` with quotation marks in place of the backslash at ``at``."""
    letter, rest = value[at + 1], value[at + 2 :]
    if not quote:
        mark = '"' if letter == "'" else "'"
        return f"{value[:at]}{mark}{letter}{mark}{rest}"
    # The mark at the end as in `continued`.
    return f"{value[:at]}\"'{letter}'\"{rest or quote}"
