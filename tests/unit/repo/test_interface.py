"""The interface between Python and the compiled library cannot change unnoticed.

A library of another release is told apart by its number alone, so that each change of the
declarations needs a new one.
"""

from __future__ import annotations

import ctypes
import hashlib
import re
from pathlib import Path

import pytest

from peer.native import library

ROOT = Path(__file__).parents[3]
HEADER = (ROOT / "native" / "src" / "native.h").read_text("utf-8")
_SIZES = {
    "bool": ctypes.c_bool,
    "int": ctypes.c_int,
    "int32_t": ctypes.c_int32,
    "size_t": ctypes.c_size_t,
    "uint32_t": ctypes.c_uint32,
    "uint64_t": ctypes.c_uint64,
}


def _plain(header: str) -> str:
    return re.sub(r"/\*.*?\*/", " ", header, flags=re.DOTALL)


def _exported(header: str) -> dict[str, tuple[str, list[str]]]:
    """The result and the arguments of each exported function."""
    found = re.findall(r"^MT_API ([\w\s]+\W*)\b(mt_\w+)\(([^)]*)\);", _plain(header), re.MULTILINE)
    return {
        name: (result.strip(), [] if words == "void" else words.split(","))
        for result, name, words in found
    }


def _digest(header: str) -> str:
    """The digest of whatever a caller can tell: constants, types and exported functions."""
    text = re.sub(r"^#define MT_ABI .*$", "", _plain(header), flags=re.MULTILINE)
    constants = re.findall(r"^#define MT_\w+[ \t].*$", text, re.MULTILINE)
    types = re.findall(r"^(?:typedef struct|enum)\b[^{;]*(?:\{[^}]*\}[^;]*)?;", text, re.MULTILINE)
    functions = re.findall(r"^MT_API [^;]*;", text, re.MULTILINE)
    assert len(functions) == len(_exported(header)) > 20
    assert len(types) > 5
    tokens = [re.findall(r"\w+|[^\w\s]", row) for row in (*constants, *types, *functions)]
    return hashlib.sha256(repr(tokens).encode()).hexdigest()[:16]


def _complaint(header: str) -> str | None:
    """Advice for a change of the declarations; None while the digest beside the number fits."""
    number, kept = (
        re.search(form, header) for form in (r"#define MT_ABI (\d+)\n", r"Digest: ([0-9a-f]{16})\.")
    )
    assert number is not None
    assert kept is not None
    if kept[1] == _digest(header):
        return None
    return (
        f"the declarations of native/src/native.h changed: raise MT_ABI there and ABI in"
        f" peer/native/library.py to {int(number[1]) + 1}, unless no release has {number[1]} yet;"
        f" then write {_digest(header)} for {kept[1]} beside MT_ABI"
    )


def test_the_interface_has_the_same_number_in_c_and_in_python() -> None:
    assert f"#define MT_ABI {library.ABI}\n" in HEADER


def test_a_change_of_the_declarations_needs_a_new_number() -> None:
    complaint = _complaint(HEADER)
    assert complaint is None, complaint


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("int pause_ms);", "int pause_us);", True),
        ("uint64_t size, wrong;", "uint64_t wrong, size;", True),
        ("MT_OPENED, MT_BROKEN", "MT_BROKEN, MT_OPENED", True),
        ("#define MT_SLOW 2", "#define MT_SLOW 4", True),
        ("MT_API void mt_free(void *data);", "", True),
        ("int mt_read_all(int fd,", "int mt_read_all(int file,", False),
        ("/* -- serving", "/* -- sending", False),
        ("MT_API void mt_free(void *data);", "MT_API void\n  mt_free( void * data );", False),
    ],
)
def test_each_change_that_a_caller_can_tell_counts(before: str, after: str, told: bool) -> None:
    assert HEADER.count(before) == 1
    complaint = _complaint(HEADER.replace(before, after))
    assert (complaint is not None) == told
    assert complaint is None or f"to {library.ABI + 1}" in complaint


def test_each_function_has_in_python_the_arguments_of_its_declaration() -> None:
    declared = _exported(HEADER)
    assert {*library.TYPES, "mt_abi"} == set(declared)
    for name, (result, arguments) in library.TYPES.items():
        expected_result, expected = declared[name]
        assert len(arguments) == len(expected), f"{name}: {expected}"
        _fits(name, result, expected_result)
        for given, row in zip(arguments, expected, strict=True):
            _fits(name, given, "*" if {*"*["} & {*row} else row.split()[-2])


def _fits(name: str, given: object, declared: str) -> None:
    if declared == "void":
        assert given is None, name
    elif "*" not in declared:
        assert given is _SIZES[declared], f"{name}: {declared}"
    else:
        assert isinstance(given, type), name
        assert given not in _SIZES.values(), f"{name}: a pointer"
        assert issubclass(given, ctypes.c_void_p | ctypes.c_char_p | ctypes._Pointer), name


def test_each_function_that_python_calls_is_declared() -> None:
    called = {
        name
        for path in (ROOT / "peer").rglob("*.py")
        for name in re.findall(r"\.(mt_\w+)", path.read_text("utf-8"))
    }
    assert called <= {*library.TYPES, "mt_abi"}
    assert {"mt_send", "mt_line_expect", "mt_folder_write"} <= called


def test_an_event_has_in_python_the_fields_of_its_declaration() -> None:
    body = re.search(r"typedef struct \{([^}]*)\} mt_event;", _plain(HEADER))
    assert body is not None
    fields = []
    for row in body[1].split(";")[:-1]:
        kind, _, names = row.strip().partition(" ")
        for name in names.split(","):
            pointer = "*" in name
            fields.append((name.strip(" *"), ctypes.c_void_p if pointer else _SIZES[kind]))
    assert list(library.Event._fields_) == fields


def test_an_event_has_the_fields_of_its_declaration() -> None:
    found = re.search(r"typedef struct \{([^}]*)\} mt_event;", _plain(HEADER))
    assert found is not None
    declared = [
        (name.strip(), kind)
        for kind, names in re.findall(r"(\w+) ([^;]+);", found[1])
        for name in names.split(",")
    ]
    fields = [(name, kind) for name, kind in library.Event._fields_]
    assert [name for name, _ in fields] == [name.strip("*") for name, _ in declared]
    for (name, kind), (_, given) in zip(declared, fields, strict=True):
        assert given is (ctypes.c_void_p if name.startswith("*") else _SIZES[kind]), name
