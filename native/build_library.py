"""Build of the compiled data path: one shared object, by `cc` or by the `ziglang` wheel.

Needs the standard library alone, as it runs before anything is installed. By hand:
``python native/build_library.py OUTPUT [--sanitize | --fuzzer]``. For a wheel of another machine,
`FOR_MACHINE` names it in the environment; ziglang compiles it then.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIBRARY = "libmini_torrent_native.so"
GLIBC = "2.17"  # the oldest one that a library built by ziglang runs on
FOR_MACHINE = "MINI_TORRENT_NATIVE_MACHINE"
_SOURCES = ("digests", "libraries", "folder", "fetch", "serve")
_VENDORED = ("blake3_dispatch.c", "blake3_portable.c")  # blake3.c is included by digests.c
_BY_MACHINE = {
    "x86_64": (
        "blake3_sse2_x86-64_unix.S",
        "blake3_sse41_x86-64_unix.S",
        "blake3_avx2_x86-64_unix.S",
        "blake3_avx512_x86-64_unix.S",
    ),
    "aarch64": ("blake3_neon.c",),
}
_FLAGS = ("-std=gnu11", "-D_GNU_SOURCE", "-fPIC", "-fvisibility=hidden", "-fno-strict-aliasing")
_HARDENED = ("-D_FORTIFY_SOURCE=2", "-fstack-protector-strong", "-Wl,-z,relro,-z,now")
_SANITIZED = ("-g", "-O1", "-fno-omit-frame-pointer", "-fsanitize=address,undefined")
_FUZZED = (*_SANITIZED, "-fno-sanitize-recover=undefined")


def machine() -> str:
    """The kind of machine to compile for: this one unless the environment names it."""
    return os.environ.get(FOR_MACHINE) or platform.machine()


def system_compiler() -> list[str] | None:
    """The words of this machine's compiler; None if it has none, or ziglang is to be used."""
    if os.environ.get(FOR_MACHINE):
        return None
    if os.environ.get("CC"):
        return shlex.split(os.environ["CC"])
    for name in ("cc", "gcc", "clang"):
        if (path := shutil.which(name)) is not None:
            return [path]
    return None


def compiler() -> tuple[list[str], bool] | None:
    """The words of a compiler, and whether it is ziglang's; None if there is none."""
    if (found := system_compiler()) is not None:
        return found, False
    if find_spec("ziglang") is not None:
        target = f"{machine()}-linux-gnu.{GLIBC}"
        words = [sys.executable, "-m", "ziglang", "cc", "-target", target]
        return [*words, "-fno-sanitize=undefined"], True
    return None


def sources() -> list[Path]:
    """The files to compile."""
    vendored = (*_VENDORED, *_BY_MACHINE.get(machine(), ()))
    return [HERE / "src" / f"{name}.c" for name in _SOURCES] + [
        HERE / "blake3" / name for name in vendored
    ]


def build_fuzzer(output: Path, clang: str) -> None:
    """Make the program of libFuzzer at ``output``. Raises `subprocess.CalledProcessError`."""
    flags = [*_FLAGS, *_FUZZED, "-fsanitize=fuzzer"]
    # It includes fetch.c, to call what takes in a message without a thread.
    others = [path for path in sources() if path.name != "fetch.c"]
    files = [HERE / "fuzz" / "entry_points.c", *others]
    command = [clang, *flags, "-o", str(output), *map(str, files), "-lpthread", "-ldl"]
    subprocess.run(command, check=True)


def build(output: Path, *, sanitize: bool = False, more: tuple[str, ...] = ()) -> bool:
    """Make the library at ``output``; return whether ziglang made it.

    ``sanitize``: with AddressSanitizer and UBSan. Raises `RuntimeError`.
    """
    found = compiler()
    if found is None:
        raise RuntimeError("no C compiler: install gcc, or the Python package ziglang")
    words, is_zig = found
    flags = list(_FLAGS)
    flags += _FUZZED if sanitize else ("-O3", *_HARDENED)
    if machine() not in _BY_MACHINE:
        flags.append("-DBLAKE3_USE_NEON=0")
    output.parent.mkdir(parents=True, exist_ok=True)
    # Replaced by one rename: a process may have the former one open.
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        made = Path(folder) / LIBRARY
        command = [*words, *flags, *more, "-shared", "-o", str(made), *map(str, sources())]
        done = subprocess.run([*command, "-lpthread", "-ldl"], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{shlex.join(command)}:\n{done.stderr}")
        os.replace(made, output)
    return is_zig


if __name__ == "__main__":
    try:
        if "--fuzzer" in sys.argv[2:]:
            build_fuzzer(Path(sys.argv[1]), shutil.which("clang") or "clang")
        else:
            build(Path(sys.argv[1]), sanitize="--sanitize" in sys.argv[2:])
    except RuntimeError as error:
        sys.exit(f"error: {error}")
