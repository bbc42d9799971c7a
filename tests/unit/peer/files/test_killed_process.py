"""F3: pieces acknowledged as durable survive a killed process."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.data_paths import module_on_both_paths
from tests.support.partial_downloads import (
    PIECE,
    Sample,
    snapshot,
)
from tests.support.paths import ROOT

pytestmark = [*module_on_both_paths, pytest.mark.usefixtures("no_leaks")]


VICTIM = """
import random, sys
from common.manifest import encode; from common.manifest import manifest_id
from peer.files import sharing
from peer.files.open_files import HandleCache
from peer.files.library import SharedContent
from peer.files import open_part
from peer.native import library

source, place, journal, piece, seed, how, path = sys.argv[1:]
library.use(path == "compiled")
found = sharing.digest(source, piece_length=int(piece), threads=1)
shared = SharedContent(found.manifest, found.place, HandleCache())
begin = open_part.create if how == "create" else open_part.resume
download = begin(place, found.manifest, manifest_id(encode(found.manifest)), journal)
if how != "create":
    download = download.recover()
print("running", *download.held_indexes(), flush=True)
missing = [i for i in range(found.manifest.piece_count) if not download.has(i)]
random.Random(int(seed)).shuffle(missing)
for count, index in enumerate(missing):
    download.write_piece(index, shared.read_run(index, 1))
    if count % 3 == 2:
        print("durable", *download.checkpoint(), flush=True)
print("complete", flush=True)
download.finalize()
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_F3_acknowledged_pieces_survive_kills(
    kind: str, data_path: str, place: Path, request: pytest.FixtureRequest
) -> None:
    sample: Sample = request.getfixturevalue(f"{kind}_sample")
    rng = random.Random(20)
    acknowledged: set[int] = set()
    journal = place.parent / "journal"
    for attempt in range(4):
        how = "create" if attempt == 0 else "resume"
        arguments = [sample.source, place, journal, str(PIECE), str(attempt), how, data_path]
        process = subprocess.Popen(
            [sys.executable, "-c", VICTIM, *arguments],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert process.stdout is not None
        lines_left, ran = rng.randrange(1, 5), False
        for line in process.stdout:
            word, *indexes = line.split()
            if word == "running":
                ran = True
                assert acknowledged <= set(map(int, indexes))
            elif word == "durable":
                acknowledged |= set(map(int, indexes))
            lines_left -= word != "running"
            if word == "complete" or lines_left == 0:
                break
        assert ran
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        process.stdout.close()
        if place.exists():
            break
    if not place.exists():
        download = sample.recover(place)
        assert acknowledged <= set(download.held_indexes())
        sample.fill(download, sample.missing(download))
        download.finalize()
        download.close()
    assert snapshot(place) == snapshot(sample.source)
