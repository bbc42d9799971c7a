"""QR code of a text, drawn with half blocks for a terminal or a file."""

from __future__ import annotations

from itertools import zip_longest

QUIET_ZONE = 4  # modules of margin, as the standard wants them
# Of the 256 fixed colours: the 16 first ones depend on the theme, and a code must be dark on light.
_DARK_ON_LIGHT, _PLAIN = "\x1b[38;5;16;48;5;231m", "\x1b[0m"
_HALVES = {(0, 0): " ", (1, 0): "▀", (0, 1): "▄", (1, 1): "█"}


def drawn(text: str, *, colours: bool) -> str:
    """The code of ``text``, two rows of modules a line.

    With ``colours`` it is dark on light, whatever the terminal's colours are. Without, blocks are
    the dark modules, as on paper.
    """
    import segno

    code = segno.make(text, error="m", micro=False)
    rows = [list(row) for row in code.matrix_iter(border=QUIET_ZONE)]
    lines = []
    for upper, lower in zip_longest(rows[::2], rows[1::2], fillvalue=[0] * len(rows[0])):
        halves = "".join(_HALVES[bool(a), bool(b)] for a, b in zip(upper, lower, strict=True))
        lines.append(f"{_DARK_ON_LIGHT}{halves}{_PLAIN}" if colours else halves)
    return "\n".join(lines)
