"""Fixtures of downloads on disk."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.descriptors import open_files
from tests.support.partial_downloads import (
    NOISE,
    PIECE,
    Sample,
)


@pytest.fixture
def file_sample(tmp_path: Path) -> Sample:
    (tmp_path / "source").write_bytes(NOISE)
    return Sample(tmp_path / "source")


@pytest.fixture
def folder_sample(tmp_path: Path) -> Sample:
    root = tmp_path / "source"
    (root / "sub" / "sub").mkdir(parents=True)
    (root / "void" / "inner").mkdir(parents=True)
    (root / "a").write_bytes(NOISE[:300])
    (root / "big").write_bytes(NOISE)
    (root / "none").write_bytes(b"")
    (root / "run").write_bytes(b"#!/bin/sh\n")
    (root / "run").chmod(0o755)
    for number in range(40):
        (root / "sub" / "sub" / f"{number:02}").write_bytes(NOISE[number : number + 900])
    (root / "sub" / "zeros").write_bytes(bytes(4 * PIECE))
    return Sample(root)


@pytest.fixture(params=["file", "folder"])
def sample(request: pytest.FixtureRequest) -> Sample:
    found: Sample = request.getfixturevalue(f"{request.param}_sample")
    return found


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "to").mkdir()
    return tmp_path / "to" / "name"


@pytest.fixture
def no_leaks(tmp_path: Path) -> Iterator[None]:
    """No descriptor below the test's folder stays open."""
    yield
    assert not open_files(tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a small disk: {mounted.stderr.decode()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)
