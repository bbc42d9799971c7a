"""Coverage-guided fuzzing: it keeps a find, and, where atheris is installed, it finds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import guided, inputs
from tests.fuzz.targets import Target, targets
from tests.support import wire_samples
from tests.support.paths import ROOT


@pytest.mark.parametrize(
    ("found", "needed"), [(b"xxxxQxxx!xxxx", b"Q!"), (b"Q!", b"Q!"), (bytes(500) + b"!Q!", b"Q!")]
)
def test_a_find_is_reduced_to_what_fails(found: bytes, needed: bytes) -> None:
    def fails(data: bytes) -> bool:
        return b"Q" in data and b"!" in data[data.index(b"Q") :]

    assert guided.reduced(found, fails) == needed


def test_changes_without_effect_are_gone() -> None:
    assert guided.reduced(b"anything", lambda _: True) == b""


def test_reducing_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guided, "REDUCTIONS_MAX", 10)
    tries = []
    guided.reduced(bytes(1000), lambda data: bool(tries.append(data)))
    assert len(tries) == 10


@pytest.mark.skipif(not guided.is_installed(), reason="atheris is not installed")
def test_an_input_that_kills_its_reader_is_recorded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    corpus = tmp_path / "found.jsonl"
    monkeypatch.setattr(inputs, "FOUND", corpus)
    monkeypatch.setattr(guided, "MEMORY_MIB", 1)  # a child that exists is already too big

    def never(_: bytes) -> None:
        raise AssertionError("such an input must not be tried in this process")

    assert not guided.fuzz(Target("bitfields", never, [b"\x80"]), 5.0)
    assert len(inputs.found("bitfields")) == 1
    assert "out-of-memory" in capfd.readouterr().out


def test_a_child_that_does_not_end_is_told_of_and_the_next_target_has_its_turn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(target: Target, folder: Path, seconds: float, number: int) -> list[str]:
        (folder / "found").mkdir()
        return [sys.executable, "-c", "import signal; signal.pause()"]

    monkeypatch.setattr(guided, "_command", command)
    monkeypatch.setattr(guided, "INPUT_S", 0)
    monkeypatch.setattr(guided, "GRACE_S", 0.0)
    assert not guided.fuzz(Target("bitfields", lambda _: None, []), 0.1)
    assert "did not end" in capsys.readouterr().out


def test_every_seed_is_read_in_another_process() -> None:
    """A target must not compare with what only the process that made its seeds can know."""
    script = (
        "import sys\n"
        "from tests.fuzz.targets import targets\n"
        "from tests.support import wire_samples\n"
        "known = {target.name: target for target in targets(wire_samples)}\n"
        "for line in sys.stdin:\n"
        "    name, seed = line.rstrip().split('|')\n"
        "    known[name].run(bytes.fromhex(seed))\n"
    )
    lines = [f"{one.name}|{seed.hex()}\n" for one in targets(wire_samples) for seed in one.seeds]
    subprocess.run(
        [sys.executable, "-c", script], input="".join(lines), text=True, cwd=ROOT,
        check=True, timeout=60,
    )  # fmt: skip
