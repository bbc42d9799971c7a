"""Hints: the next step, as words and a whole command line that can be pasted.

Owns the one form of a hint: `WORDS: COMMAND`, one line, with the command at the end and every
argument quoted for a shell. Why `shown`: only the command line knows the home, which it adds to the
commands, and the prompt, where it leaves out the name of the program.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from common.names import printable

PROGRAM = "mini-torrent"
TRACKER_PROGRAM = "mini-torrent-tracker"
# Why quotations: an argument is a name that another user may have chosen.
_QUOTATION = r"""\$'(?:[^'\\]|\\.)*'|'[^']*'|"[^"]*"|\\."""
# Why `(?<!\w)`: the words before a command may have apostrophes.
_COMMAND = re.compile(rf"(?<!\w)(?:{_QUOTATION})|(?P<program>(?:^|(?<=: )){PROGRAM} )")
_PROGRAMS = re.compile(rf"{_QUOTATION}|(?P<program>(?:^|(?<=&& )){PROGRAM} )")
_TRACKER_COMMAND = re.compile(
    rf"(?<!\w)(?:{_QUOTATION})|(?P<program>(?:^|(?<=: )){TRACKER_PROGRAM} [a-z][a-z_-]*)"
)


def hint(
    words: str, command: str, *arguments: str, options: Sequence[str] = (), then: Sequence[str] = ()
) -> str:
    """Return ``words`` and a command line of `mini-torrent`. An argument may begin with ``-``; one
    in capitals stands for what the user has to put there. ``then``: the words of a second command.
    """
    following = f" && {quoted_line([PROGRAM, *then])}" if then else ""
    return f"{words}: {line(PROGRAM, command, *arguments, options=options)}{following}"


def tracker_hint(words: str, command: str, *arguments: str, options: Sequence[str] = ()) -> str:
    """Return ``words`` and a command line of `mini-torrent-tracker`."""
    return f"{words}: {line(TRACKER_PROGRAM, command, *arguments, options=options)}"


def shell_hint(words: str, *argv: str) -> str:
    """Return ``words`` and a command line of another program."""
    return f"{words}: {quoted_line(argv)}"


def line(program: str, command: str, *arguments: str, options: Sequence[str] = ()) -> str:
    """A command line for a shell, with ``--`` where an argument would pass for an option."""
    dashes = ["--"] if any(argument.startswith("-") for argument in arguments) else []
    return quoted_line([*program.split(), command, *options, *dashes, *arguments])


def quoted_line(words: Sequence[str]) -> str:
    """Quote ``words`` for a shell."""
    return " ".join(map(quoted_word, words))


def quoted_word(word: str) -> str:
    """Quote ``word`` for bash and zsh; nothing in it can harm a terminal."""
    if printable(word) == word:
        return shlex.quote(word)
    letters = (_in_ansi(letter) for letter in word)
    return f"$'{''.join(letters)}'"


def _in_ansi(letter: str) -> str:
    if letter in "\\'":
        return f"\\{letter}"
    if printable(letter) == letter:
        return letter
    return "".join(f"\\x{byte:02x}" for byte in letter.encode("utf-8", "surrogateescape"))


def shown(text: str, home: str | None, *, at_prompt: bool = False) -> str:
    """Return ``text`` with the commands of `mini-torrent` as they have to be typed here: for the
    peer of ``home``, if one was named, or at the prompt of `shell`."""
    if not at_prompt and home is None:
        return text
    program = "" if at_prompt else f"{PROGRAM} --home {quoted_word(home or '')} "
    return "\n".join(_with_program(each, program) for each in text.split("\n"))


def _with_program(text: str, program: str) -> str:
    """The line ``text`` with ``program`` for the name of the program in its commands.

    Invariant: arguments stay as they are. The first command ends the words, and behind it only
    ``&&`` outside of quotations begins another one.
    """
    found = _first(_COMMAND, text)
    if found is None:
        return text
    words, commands = text[: found.start()], text[found.start() :]
    return words + _PROGRAMS.sub(lambda part: program if part["program"] else part[0], commands)


def shown_by_tracker(text: str, home: str | None) -> str:
    """Return ``text`` with ``home`` added to the commands of `mini-torrent-tracker`."""
    if home is None:
        return text
    option = f" --home {quoted_word(home)}"
    return "\n".join(_with_option(each, option) for each in text.split("\n"))


def _with_option(text: str, option: str) -> str:
    """Return ``text`` with ``option`` after its command, unless a home stands there already."""
    found = _first(_TRACKER_COMMAND, text)
    if found is None or text.startswith(" --home ", found.end()):
        return text
    return f"{text[: found.end()]}{option}{text[found.end() :]}"


def _first(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    """The first command in the line ``text`` that is in no quotation."""
    return next((found for found in pattern.finditer(text) if found["program"]), None)


CHECK_LINK = tracker_hint("see on the tracker's machine whether it runs, and its link", "link")
