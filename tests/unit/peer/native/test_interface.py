"""Declarations of the compiled data path and those of its caller say the same. No build is needed.

ctypes checks nothing: a function with another argument than Python passes would write anywhere.
"""

from __future__ import annotations

import ctypes
import re
import zlib

from peer.native import library
from tests.support.paths import TESTS

NUMBERS = {3: 0xD37AFC5A}
"""Interface number, and the checksum of the declarations that it stands for. After a change of
native.h that a caller can tell: raise MT_ABI there and ABI in peer/native/library.py, and replace
this entry."""

HEADER = (TESTS.parent / "native/src/native.h").read_text()
_C_TYPES = {
    "void": None,
    "bool": ctypes.c_bool,
    "int": ctypes.c_int,
    "int32_t": ctypes.c_int32,
    "int64_t": ctypes.c_int64,
    "uint32_t": ctypes.c_uint32,
    "uint64_t": ctypes.c_uint64,
    "size_t": ctypes.c_size_t,
}


def _declarations() -> str:
    """The header without comments, layout, and the number itself."""
    bare = re.sub(r"/\*.*?\*/", " ", HEADER, flags=re.DOTALL)
    return " ".join(re.sub(r"#define MT_ABI \d+", "", bare).split())


def _functions() -> dict[str, tuple[str, list[str]]]:
    """Result and parameters of each function that the library exports."""
    found = re.findall(r"MT_API ([^;()]*?)(\w+)\(([^)]*)\);", _declarations())
    return {
        name: (result.strip(), [] if words == "void" else [one.strip() for one in words.split(",")])
        for result, name, words in found
    }


def _is_pointer(declared: str) -> bool:
    return "*" in declared or "[" in declared


def _agrees(declared: str, type_: object) -> bool:
    """Whether a ctypes type passes what ``declared``, with or without a name, is."""
    if _is_pointer(declared):
        pointers = (ctypes.c_void_p, ctypes.c_char_p)
        return type_ in pointers or hasattr(type_, "contents")
    return _C_TYPES[declared.split()[0]] is type_


def test_a_changed_header_has_another_number() -> None:
    number = re.search(r"#define MT_ABI (\d+)", HEADER)
    assert number is not None
    assert int(number[1]) == library.ABI
    assert {library.ABI: zlib.crc32(_declarations().encode())} == NUMBERS


def test_every_function_is_called_as_it_is_declared() -> None:
    declared = _functions()
    assert set(library._TYPES) == set(declared) - {"mt_abi"}
    for name, (result, arguments) in library._TYPES.items():
        c_result, parameters = declared[name]
        assert _agrees(c_result, result), name
        assert len(arguments) == len(parameters), name
        for parameter, argument in zip(parameters, arguments, strict=True):
            assert _agrees(parameter, argument), f"{name}: {parameter}"


def test_an_event_has_the_fields_of_the_header() -> None:
    found = re.search(r"typedef struct \{([^}]*)\} mt_event;", _declarations())
    assert found is not None
    declared = [
        ("void *" if "*" in line else line.split()[0], name.strip(" *"))
        for line in found[1].split(";")
        if line.strip()
        for name in line.strip().split(" ", 1)[1].split(",")
    ]
    fields = [(name, type_) for name, type_ in library.Event._fields_]
    assert [name for _, name in declared] == [name for name, _ in fields]
    assert all(
        _agrees(c_type, type_) for (c_type, _), (_, type_) in zip(declared, fields, strict=True)
    )
