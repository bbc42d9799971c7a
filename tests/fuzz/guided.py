"""Fuzzing led by coverage: atheris (libFuzzer) goes on from what reached lines not seen before.

Owns the child process that each run takes, since libFuzzer ends the process it runs in, and the
reduction of what it finds. Which readers there are is in ``targets``; Hypothesis, which knows what
forged messages look like, is in ``__main__``. libFuzzer sees our own packages only: a decoder in C
counts as one step, and there its dictionary and luck must do.
"""

from __future__ import annotations

import importlib.util
import os
import random
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING

from tests.fuzz.inputs import TOKENS, found, keep
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from tests.fuzz.targets import Target

OURS = ["common", "peer", "tracker"]
INPUT_S = 10  # an input that takes longer than this is a find
INPUT_BYTES_MAX = 4_096
MEMORY_MIB = 2_048  # what takes more is a find
GRACE_S = 60.0  # for the start, the last input, and what a loaded machine adds
REDUCTIONS_MAX = 20_000
RAISED = "Uncaught Python exception"  # in what atheris says; else the process died, or was slow


def is_installed() -> bool:
    """Whether atheris is there. It has wheels for some machines and Pythons only."""
    return importlib.util.find_spec("atheris") is not None


def fuzz(target: Target, seconds: float) -> bool:
    """Fuzz one target in a process of its own; whether nothing was found."""
    number = random.SystemRandom().getrandbits(31)
    with tempfile.TemporaryDirectory(prefix="mt-fuzz-") as name:
        folder = Path(name)
        command = _command(target, folder, seconds, number)
        with (folder / "log").open("wb") as log:
            how = _end_of(command, folder, log, seconds + INPUT_S + GRACE_S)
        said = (folder / "log").read_text(errors="replace")
        artifacts = sorted((folder / "found").iterdir())
        data = artifacts[0].read_bytes() if artifacts else None
    if how == "ended with 0" and data is None:
        print(f"{target.name}: atheris, seed {number}: {_runs(said)}, nothing found", flush=True)
        return True
    if data is None:  # it did not get as far as an input
        print(f"{target.name}: atheris {how}:\n{said[-4000:]}", flush=True)
        return False
    print(f"{target.name}: found by atheris, seed {number}: {data.hex()}", flush=True)
    if RAISED in said:
        data = _shown(target, data)
    else:  # only a process of its own may try it
        print(said[-4000:], flush=True)
    keep(target.name, data)
    return False


def _end_of(command: list[str], folder: Path, log: IO[bytes], timeout_s: float) -> str:
    """Run the child; how it ended."""
    try:
        ended = subprocess.run(
            command, cwd=ROOT, env=_environment(folder), stdout=log, stderr=log,
            timeout=timeout_s, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"did not end within {timeout_s:.0f} s"
    return f"ended with {ended.returncode}"


def _command(target: Target, folder: Path, seconds: float, number: int) -> list[str]:
    for part in ("seeds", "found", "tmp"):
        (folder / part).mkdir()
    for index, data in enumerate([*target.seeds, *found(target.name)]):
        (folder / "seeds" / str(index)).write_bytes(data)
    (folder / "words").write_text("".join(f'"{_word(token)}"\n' for token in TOKENS))
    return [
        sys.executable,
        __file__,
        target.name,
        f"-seed={number}",
        f"-max_total_time={max(1, round(seconds))}",
        f"-timeout={INPUT_S}",
        f"-rss_limit_mb={MEMORY_MIB}",
        "-len_control=10",  # to long inputs soon: the time is short
        f"-max_len={max(INPUT_BYTES_MAX, *(2 * len(data) for data in target.seeds))}",
        f"-dict={folder / 'words'}",
        f"-artifact_prefix={folder / 'found'}/",
        str(folder / "seeds"),
    ]


def _word(token: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in token[:64])  # libFuzzer takes no longer ones


def _environment(folder: Path) -> dict[str, str]:
    # The child ends without cleaning up; what it leaves goes with the folder.
    return {**os.environ, "TMPDIR": str(folder / "tmp"), "PYTHONPATH": str(ROOT)}


def _runs(said: str) -> str:
    done = [line for line in said.splitlines() if line.startswith("Done ")]
    return done[-1].split(" in ")[0].removeprefix("Done ") if done else "no count"


def _shown(target: Target, data: bytes) -> bytes:
    """Reduce a find as far as is cheap, and show how it fails."""
    kind = _raised(target, data)
    if kind is None:
        print(f"{target.name}: it does not fail again outside of atheris", flush=True)
        return data
    data = reduced(data, lambda less: _raised(target, less) is kind)
    try:
        target.run(data)
    except Exception:  # whatever a reader raises that is none of our errors
        traceback.print_exc()
    print(f"{target.name}: reduced to {data.hex()}", flush=True)
    return data


def _raised(target: Target, data: bytes) -> type[Exception] | None:
    try:
        target.run(data)
    except Exception as error:  # as above
        return type(error)
    return None


def reduced(data: bytes, fails: Callable[[bytes], bool]) -> bytes:
    """The least of ``data`` that still fails: without each stretch, from halves to single bytes,
    that is not needed for it."""
    tries, size = REDUCTIONS_MAX, len(data) // 2
    while size and tries > 0:
        at, before = 0, len(data)
        while at < len(data) and tries > 0:
            less = data[:at] + data[at + size :]
            tries -= 1
            if fails(less):
                data = less
            else:
                at += size
        if size > 1 or len(data) == before:
            size //= 2
    return data


def _child() -> None:
    """Run libFuzzer on the target that is named first; it does not return."""
    import atheris

    for what in ("str", "RegEx"):  # comparisons inside of those lead it, too
        atheris.enabled_hooks.add(what)
    with atheris.instrument_imports(include=OURS):
        from tests.fuzz.targets import targets
        from tests.support import wire_samples
    name = sys.argv.pop(1)
    (target,) = [one for one in targets(wire_samples) if one.name == name]
    atheris.Setup(sys.argv, target.run)
    atheris.Fuzz()


if __name__ == "__main__":
    _child()
