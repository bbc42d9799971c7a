"""Names of users, groups, shares and files: their validation, and the safe display of any text.

Owns: the rules for users, groups, shares and the paths inside a shared folder. They are applied
when a file is shared and again when it is downloaded, because the other side may be lying. Not
here: files and links on the way to them (see ``peer.files.paths``).
"""

from __future__ import annotations

import re
import unicodedata

from common.errors import ConfigError
from common.ids import GroupId, UserId
from common.limits import USER_ID_MAX, VERSION_MAX

NAME_BYTES_MAX = 255  # one path component, as nearly all file systems have it
PATH_BYTES_MAX = 1024  # inside a share; leaves room below PATH_MAX for where it is put
PATH_DEPTH_MAX = 64  # folders are walked with one open handle a level
QUOTED_CHARACTERS_MAX = 120  # a name in an error must not bury the error


class BadName(ConfigError):
    """Name or path that is not allowed. The text quotes it, escaped."""


# -- users and groups ---------------------------------------------------------------------------

_ID = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{USER_ID_MAX - 1}}}")
# Of what is made anew: "anna." beside "anna" would be taken for her, or for the end of a sentence.
# Those of a database of an earlier release go on.
_NEW_ID = re.compile(rf"[A-Za-z0-9](?:[A-Za-z0-9._-]{{0,{USER_ID_MAX - 2}}}[A-Za-z0-9])?")


def fold_id(text: str) -> str:
    """Return the form in which ids are compared. Ids are ASCII, so this is lower case alone."""
    return text.lower()


def user_id(text: str) -> UserId:
    """Return the folded id of a user from typed text; raises `BadName`."""
    return UserId(_checked_id(text, "user"))


def group_id(text: str) -> GroupId:
    """Return the folded id of a group from typed text; raises `BadName`."""
    return GroupId(_checked_id(text, "group"))


def new_user_id(text: str) -> UserId:
    """As `user_id`, for an account that is to be made."""
    return UserId(_checked_id(text, "user", _NEW_ID))


def new_group_id(text: str) -> GroupId:
    """As `group_id`, for a group that is to be made."""
    return GroupId(_checked_id(text, "group", _NEW_ID))


def _checked_id(text: str, what: str, form: re.Pattern[str] = _ID) -> str:
    if not form.fullmatch(text):
        raise BadName(
            f"{quoted(text)} is not a valid {what} name",
            f"use 1 to {USER_ID_MAX} of letters, digits, '.', '_' and '-', "
            "beginning and ending with a letter or a digit",
        )
    return fold_id(text)


# -- showing text -------------------------------------------------------------------------------

# Characters that move the cursor, start an escape sequence, break the line, turn the direction of
# the following text or are invisible (Unicode's Default_Ignorable_Code_Point and the controls).
# The two joiners are necessary in Persian, in Indic scripts and inside emoji: they are harmful only
# where they cannot join anything, which is next to ASCII or at an end. Variation selectors are
# let through, for emoji carry them.
_HARMFUL = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f"
    "\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff"
    "\ud800-\udfff\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    "]"
    "|(?<![^\x00-\x7f\u200c\u200d])[\u200c\u200d]"
    "|[\u200c\u200d](?![^\x00-\x7f\u200c\u200d])"
)
_INVISIBLE = re.compile("[\u180b-\u180d\u180f\u200c\u200d\ufe00-\ufe0f]")


def printable(text: str) -> str:
    """Escape everything in ``text`` that could harm a terminal, a log or a reader.

    An escape character becomes the four characters ``\\x1b``. A name that passed `share_name` comes
    out as it went in. Markup of a page or of a terminal library is not escaped here.
    """
    return _HARMFUL.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8, as the os module hands it on
        code -= 0xDC00
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def quoted(text: str) -> str:
    """Quote ``text`` for an error: printable, and shortened if it is very long."""
    shown = printable(text[: QUOTED_CHARACTERS_MAX + 1])
    if len(text) > QUOTED_CHARACTERS_MAX:
        shown = printable(text[:QUOTED_CHARACTERS_MAX]) + "…"
    return f'"{shown}"'


# -- names of shares and of what is in them -----------------------------------------------------

# Every name that Linux can hold is allowed. Whether the file system of a download can hold it too
# (``aux.c``, ``a.``, ``Foo`` beside ``foo``) is decided there: ``peer.files.holding``.
_NOTHING = re.compile(r"[.\s]*")  # ``.. `` is ``..`` to the servers of some network file systems
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,98}[A-Za-z0-9_]|[A-Za-z0-9_]")


def fold_name(name: str) -> str:
    """The form in which two names of files are compared.

    Names that differ in case, in Unicode composition or in invisible characters alone are twins: to
    a reader they are one name, and on some file systems one file; so are those that differ in
    the spaces at their ends. A group lists no two shares under twins; in a folder they may stand
    side by side, as they may on Linux.
    """
    if name.isascii():
        return name.lower().rstrip()
    visible = _INVISIBLE.sub("", name).rstrip()
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", visible).casefold())


def share_name(text: str) -> str:
    """Return ``text`` if a share may have this name: one path component. Raises `BadName`."""
    _check_component(text, text)
    return text


_NUMBERED = re.compile(r"@[0-9]+\Z")
_VERSION = re.compile(r"(.+)@([1-9][0-9]{0,9})", re.DOTALL)


def new_share_name(text: str) -> str:
    """As `share_name`, for a share that is to be made: none looks like a version of another."""
    name = share_name(text)
    end = _NUMBERED.search(fold_name(name))
    if end is not None:
        raise BadName(
            f"the name {quoted(name)} is not allowed: it ends as a version does, {end[0]}"
        )
    return name


def split_version(text: str) -> tuple[str, int]:
    """Return the name and the version of ``NAME@K``; 0, the current one, for a name alone."""
    match = _VERSION.fullmatch(text)
    if match is None or int(match[2]) > VERSION_MAX:
        return text, 0
    return match[1], int(match[2])


def versioned(name: str, version: int) -> str:
    """Return the text that `split_version` takes; for version 0 the name alone."""
    return f"{name}@{version}" if version else name


def _check_extent(path: str, parts: list[str]) -> None:
    size = len(path) if path.isascii() else len(path.encode("utf-8", "replace"))
    if size > PATH_BYTES_MAX:
        raise BadName(f"the path {quoted(path)} is longer than {PATH_BYTES_MAX} bytes")
    if len(parts) > PATH_DEPTH_MAX:
        raise BadName(f"the path {quoted(path)} is more than {PATH_DEPTH_MAX} folders deep")


def _check_component(name: str, path: str) -> None:
    # Most names are plain; one match of a regular expression decides those.
    if _PLAIN.fullmatch(name):
        return
    fault = _fault_of(name)
    if fault is None:
        return
    where = f" in {quoted(path)}" if path != name else ""
    raise BadName(f"the name {quoted(name)}{where} is not allowed: {fault}")


def _fault_of(name: str) -> str | None:
    if not name:
        return "it is empty"
    if name in (".", ".."):
        return "it stands for a folder elsewhere"
    if "/" in name:
        return "it contains a '/'"
    if _HARMFUL.search(name):
        return "it contains a control, direction-changing, invisible or undecodable character"
    if len(name.encode("utf-8")) > NAME_BYTES_MAX:
        return f"it is longer than {NAME_BYTES_MAX} bytes"
    if _NOTHING.fullmatch(name):
        return "it consists of dots and spaces alone"
    return None


class PathOrder:
    """Checks the paths of one tree as they come in order, and remembers the last one alone.

    The order is that of the lists of components, so everything in a folder comes together.
    """

    def __init__(self) -> None:
        self._last: list[str] = []

    def add(self, path: str) -> None:
        """Take in the next path: of a file, or of a folder that is empty.

        Raises `BadName` when the path is not allowed, comes out of order or twice, or lies inside
        something that is a file.
        """
        parts = path.split("/")
        _check_extent(path, parts)
        last = self._last
        level = 0
        while level < len(parts) and level < len(last) and parts[level] == last[level]:
            level += 1
        if last and level == len(last):
            raise BadName(f"the path {quoted(path)} is that of a file, or inside one")
        if level == len(parts) or (level < len(last) and parts[level] < last[level]):
            raise BadName(f"the path {quoted(path)} comes out of order")
        for name in parts[level:]:
            _check_component(name, path)
        self._last = parts
