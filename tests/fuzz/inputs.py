"""Inputs: what a target reads, damaged in the ways in which things are damaged or forged."""

from __future__ import annotations

import json
from collections.abc import Sequence

from hypothesis import strategies as st

from tests.support.paths import CORPUS

FOUND = CORPUS / "found.jsonl"
# What counts in msgpack and at the edges of integers.
TOKENS = [
    b"\x00", b"\x7f", b"\x80", b"\xff", b"\xc0", b"\xc1", b"\xc2", b"\xc3",
    b"\xc4\xff", b"\xc6\xff\xff\xff\xff", b"\xc7\x01\x05", b"\xca\x7f\xc0\x00\x00",
    b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00", b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\xd3\x80\x00\x00\x00\x00\x00\x00\x00", b"\xd9\xff", b"\xdb\xff\xff\xff\xff",
    b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\x91" * 200, b"\xed\xa0\x80",
    b"\xe2\x80\xae", b"../", b"/", b"|", b"\n", b"\x1b[2J", b"#", b":", b"0", b"-1", b"A" * 43,
]  # fmt: skip
DAMAGES = ["flip", "set", "cut", "drop", "insert", "token", "splice", "double"]


@st.composite
def damaged(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """A seed, cut, spliced, turned and stuffed."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(data)))
        match draw(
            st.sampled_from(["flip", "set", "cut", "drop", "insert", "token", "splice", "double"])
        ):
            case "flip" if at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "set" if at < len(data):
                data[at] = draw(st.integers(0, 255))
            case "cut":
                del data[at:]
            case "drop":
                del data[at : at + draw(st.integers(1, 8))]
            case "insert":
                data[at:at] = draw(st.binary(max_size=8))
            case "token":
                data[at:at] = draw(st.sampled_from(TOKENS))
            case "splice":
                other = draw(st.sampled_from(seeds))
                data[at:] = other[draw(st.integers(0, len(other))) :]
            case "double":
                data += data[at : at + 64]
    return bytes(data)


def inputs(seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Mostly damaged seeds, sometimes noise."""
    return st.one_of(damaged(seeds), damaged(seeds), damaged(seeds), st.binary(max_size=256))


def found(target: str) -> list[bytes]:
    """Inputs that were found once, and must never be found again."""
    if not FOUND.exists():
        return []
    rows = [json.loads(line) for line in FOUND.read_text().splitlines()]
    return [bytes.fromhex(row["hex"]) for row in rows if row["target"] == target]


def keep(target: str, data: bytes) -> None:
    """Add a find to the corpus."""
    with FOUND.open("a") as file:
        file.write(json.dumps({"target": target, "hex": data.hex()}) + "\n")
