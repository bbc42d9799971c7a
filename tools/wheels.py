"""Wheels of the compiled data path, made by ziglang for each kind of machine, and checked.

``python tools/wheels.py FOLDER`` leaves them there. Checks: the tag of each wheel, the
oldest glibc that it needs, and its digests beside those of the package blake3. On another machine
than this one they run under ``qemu-aarch64-static``, with the C library of Debian's
libc6-arm64-cross.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from blake3 import blake3

NATIVE = Path(__file__).resolve().parents[1] / "native"
sys.path.insert(0, str(NATIVE))

from build_library import FOR_MACHINE, GLIBC, LIBRARY, compiler  # noqa: E402 - its folder is none of this project

MACHINES = ("x86_64", "aarch64")
LENGTHS = (0, 1, 64, 1023, 1024, 1025, 2048, 16_385, 65_536, 100_000, 1_048_577)
_EMULATOR, _LIBRARIES = "qemu-{0}-static", "/usr/{0}-linux-gnu"


class Wrong(Exception):
    """A wheel is not what it must be; the text says why."""


def build(machine: str, folder: Path) -> Path:
    """Make the wheel for a machine in ``folder``, and return its path."""
    os.environ[FOR_MACHINE] = machine
    with tempfile.TemporaryDirectory(dir=folder) as made:
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", made]
        subprocess.run([*command, str(NATIVE)], check=True)
        (wheel,) = Path(made).iterdir()
        tag = f"-py3-none-manylinux_{GLIBC.replace('.', '_')}_{machine}.whl"
        if not wheel.name.endswith(tag):
            raise Wrong(f"{wheel.name}: its name must end with {tag}")
        return Path(shutil.move(wheel, folder / wheel.name))


def check(machine: str, wheel: Path) -> str:
    """Check what a wheel needs and computes. Return how. Raises `Wrong`."""
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as packed:
        library = Path(packed.extract(f"mini_torrent_native/{LIBRARY}", folder))
        needed = _glibc_of(library)
        if needed > _version(GLIBC):
            raise Wrong(f"{wheel.name}: needs glibc {'.'.join(map(str, needed))}, not {GLIBC}")
        runner: list[str] = []
        if machine != platform.machine():
            emulator, libraries = _EMULATOR.format(machine), _LIBRARIES.format(machine)
            if shutil.which(emulator) is None or not Path(libraries).is_dir():
                return f"its digests were NOT compared: {emulator} or {libraries} is missing"
            runner = [emulator, "-L", libraries]
        found = compiler()
        if found is None:
            raise Wrong("ziglang is not installed")
        program = Path(folder) / "vectors"
        source = NATIVE / "check" / "vectors.c"
        subprocess.run([*found[0], "-o", str(program), str(source), "-ldl"], check=True)
        words = [*runner, str(program), str(library), *map(str, LENGTHS)]
        printed = subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()
    expected = [blake3(bytes(i % 251 for i in range(size))).hexdigest() for size in LENGTHS]
    if printed != [digest for digest in expected for _ in ("direct", "from places")]:
        raise Wrong(f"{wheel.name}: its digests are not those of blake3")
    return f"{len(printed)} digests are right{' under ' + runner[0] if runner else ''}"


def _version(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


def _glibc_of(library: Path) -> tuple[int, ...]:
    """The oldest glibc that has all symbols that a library needs."""
    return max(
        _version(found.decode()) for found in re.findall(rb"GLIBC_([0-9.]+)", library.read_bytes())
    )


def main() -> int:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for machine in MACHINES:
            wheel = build(machine, folder)
            print(f"{wheel}: {check(machine, wheel)}", flush=True)
    except Wrong as wrong:
        print(f"error: {wrong}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
