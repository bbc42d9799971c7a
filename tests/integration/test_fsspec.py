"""Files by URL: the fsspec file system against real peers, and data tools on it."""

from __future__ import annotations

import errno
import importlib.util
import os
import pickle
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_http import with_http
from tests.support.paths import ROOT
from tests.support.processes import Person, Swarm, content
from tests.support.waiting import wait_for

fsspec = pytest.importorskip(
    "fsspec", reason="no fsspec: pip install fsspec, to test minitorrent.fs"
)

CLIENT = ROOT / "clients" / "python"
ROWS = 150_000


@pytest.fixture(scope="module")
def swarm() -> Iterator[Swarm]:
    swarm = Swarm()
    yield swarm
    swarm.close()


@pytest.fixture(scope="module")
def anna(swarm: Swarm) -> Person:
    return swarm.person("anna")


@pytest.fixture(scope="module")
def bert(swarm: Swarm) -> Person:
    return with_http(swarm, "bert")


@pytest.fixture(scope="module")
def group(anna: Person, bert: Person) -> str:
    return anna.group_with(bert)


@pytest.fixture(scope="module")
def fs(bert: Person) -> Any:
    from minitorrent.fs import MiniTorrentFileSystem

    fsspec.register_implementation("minitorrent", MiniTorrentFileSystem, clobber=True)
    return fsspec.filesystem("minitorrent", home=str(bert.home))


def needed(name: str) -> Any:
    """A data tool, or a skip that says what to install."""
    return pytest.importorskip(name, reason=f"no {name}: pip install {name}, to test it on URLs")


def is_whole(person: Person, group: str, name: str) -> bool:
    """Whether a share has been fetched completely."""
    row = person.downloads()[group, name]
    return bool(row["verified_bytes"] == row["size_bytes"])


def tree(swarm: Swarm) -> Path:
    """A folder with files, an empty file, a space and an empty folder."""
    folder = swarm.folder("tree")
    for path, data in (
        ("notes/to do.txt", b"one\ntwo\n"),
        ("z.bin", content(300_000)),
        ("nil", b""),
    ):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(data)
    (folder / "empty").mkdir()
    return folder


def test_a_group_is_a_folder_of_files_and_folders(
    swarm: Swarm, anna: Person, group: str, fs: Any
) -> None:
    folder, path, one = tree(swarm), swarm.file(700_000), swarm.folder("one")
    (one / "x").write_bytes(b"x" * 10)
    for shared in (folder, path, one):
        anna.share(shared, group)
    name, data = folder.name, path.read_bytes()
    assert group in fs.ls("", detail=False)
    kinds = {row["name"]: row["type"] for row in fs.ls(f"minitorrent://{group}/")}
    assert kinds[f"{group}/{path.name}"] == "file"
    assert kinds[f"{group}/{name}"] == kinds[f"{group}/{one.name}"] == "directory"
    assert fs.find(f"{group}/{name}") == [
        f"{group}/{name}/{entry}" for entry in ("nil", "notes/to do.txt", "z.bin")
    ]
    assert fs.ls(f"{group}/{name}/empty") == []
    assert fs.glob(f"{group}/{name}/*/*.txt") == [f"{group}/{name}/notes/to do.txt"]
    assert fs.info(f"{group}/{path.name}")["size"] == len(data)
    assert fs.ukey(f"{group}/{path.name}") == anna.files(group)[path.name]["digest"]
    where = f"{group}/{path.name}"
    assert fs.cat_file(where) == data
    for start, end in ((5, 9), (-7, None), (100, -100), (0, 0), (9, 5), (len(data), None)):
        assert fs.cat_file(where, start, end) == data[start:end]
    found = fs.cat_ranges([where, where, f"{group}/none"], [0, 600_000, 0], [10, 900_000, 1])
    assert found[:2] == [data[:10], data[600_000:]]
    assert isinstance(found[2], FileNotFoundError)
    assert fs.cat_ranges([where, where], [0, 20], [10, 30], max_gap=64) == [data[:10], data[20:30]]
    assert fs.cat_file(f"{group}/{name}/nil") == b""
    with fs.open(f"{group}/{name}/notes/to do.txt", "rt") as file:
        assert file.readlines() == ["one\n", "two\n"]


def test_a_group_is_listed_by_one_request(
    swarm: Swarm,
    anna: Person,
    bert: Person,
    fs: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only shares whose kind the tracker has no record of cost one more each."""
    from minitorrent.transport import Transport

    group = anna.group_with(bert)
    path, one = swarm.file(5_000), swarm.folder()
    (one / "x").write_bytes(b"x")
    for shared in (path, one):
        anna.share(shared, group)
    where = f"{group}/{path.name}"
    sent: list[str] = []
    send = Transport._send
    monkeypatch.setattr(Transport, "_send", lambda *args: sent.append(args[3]) or send(*args))
    rows = {row["name"]: row for row in fs.ls(group)}
    assert len(sent) == 1
    kinds = {name: row["type"] for name, row in rows.items()}
    assert kinds == {where: "file", f"{group}/{one.name}": "directory"}
    assert rows[where] == fs.info(where)
    sent.clear()
    files = fs._peer.files
    unrecorded = lambda name: [replace(row, folder=None) for row in files(name)]  # noqa: E731
    monkeypatch.setattr(fs._peer, "files", unrecorded)
    assert {row["name"]: row["type"] for row in fs.ls(group)} == kinds
    assert len(sent) > 2
    wrong = lambda name: [replace(row, folder=not row.folder) for row in files(name)]  # noqa: E731
    monkeypatch.setattr(fs._peer, "files", wrong)
    kinds = {row["name"]: row["type"] for row in fs.ls(group)}
    assert kinds == {where: "directory", f"{group}/{one.name}": "file"}
    assert fs.cat_file(where) == path.read_bytes()
    for call in (fs.cat_file, fs.open):
        with pytest.raises(IsADirectoryError):
            call(f"{group}/{one.name}")


def test_errors_are_those_of_the_operating_system(
    swarm: Swarm, anna: Person, bert: Person, group: str, fs: Any
) -> None:
    folder = tree(swarm)
    anna.share(folder, group)
    where = f"{group}/{folder.name}"
    missing = ("none", "none/x", f"{group}/none", f"{where}/no", f"{where}/n", f"{where}/nil/x")
    for path in (*missing, "../x", f"{group}/..", f"{group}/a\0b", f"{where}/../x"):
        assert not fs.exists(path)
        for call in (fs.info, fs.ls, fs.cat_file, fs.open):
            with pytest.raises(FileNotFoundError):
                call(path)
    for path in ("", group, where, f"{where}/notes"):
        with pytest.raises(IsADirectoryError):
            fs.cat_file(path)
        with pytest.raises(OSError, match="read-only"):
            fs.open(path, "wb")
    away = fsspec.filesystem("minitorrent", home=str(swarm.folder()))
    for call in (away.exists, away.info, away.ls, away.cat_file):
        with pytest.raises(ConnectionError, match="mini-torrent up"):
            call(where)


def test_f163_an_open_file_reads_one_version(
    swarm: Swarm, anna: Person, group: str, fs: Any
) -> None:
    path = swarm.file(600_000)
    first = path.read_bytes()
    anna.share(path, group)
    where = f"{group}/{path.name}"
    file = fs.open(where, block_size=1000)
    assert file.read(10) == first[:10]
    again = pickle.loads(pickle.dumps(file))
    assert again.read(10) == first[10:20]
    path.write_bytes(content(600_000, 5))
    anna.share(path, group, "--replace")
    for held in (file, again, pickle.loads(pickle.dumps(again))):
        held.seek(500_000)
        with pytest.raises(OSError, match="another version") as told:
            held.read(10)
        assert told.value.errno == errno.ESTALE
    assert fs.cat_file(where, 500_000, 500_010) == path.read_bytes()[500_000:500_010]
    assert fs.cat_file(f"{where}@1", 0, 10) == first[:10]


def test_the_examples_of_the_page_run(
    swarm: Swarm, anna: Person, bert: Person, tmp_path: Path
) -> None:
    """The entry point of the distribution finds the file system, as after its installation."""
    project = tomllib.loads((CLIENT / "pyproject.toml").read_text())["project"]
    installed = tmp_path / "minitorrent-0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: minitorrent\nVersion: 0\n")
    (entry,) = project["entry-points"]["fsspec.specs"].items()
    (installed / "entry_points.txt").write_text("[fsspec.specs]\n{} = {}\n".format(*entry))
    anna.ok("create-group", "lab")
    anna.let_in("lab", bert)
    notes = swarm.folder()
    (notes / "todo.txt").write_text("water the plants\n")
    anna.share(notes, "lab", "--name", "notes")
    model = swarm.file(300_000)
    anna.share(model, "lab", "--name", "model.bin")
    code = re.findall(r"```python\n(.*?)```", (ROOT / "docs/fsspec.md").read_text(), re.DOTALL)[0]
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={
            **os.environ,
            "MINI_TORRENT_HOME": str(bert.home),
            "PYTHONPATH": f"{CLIENT}{os.pathsep}{tmp_path}",
        },
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == [
        "water the plants",
        "['lab/model.bin', 'lab/notes']",
        str(model.read_bytes()[-4:]),
        anna.files("lab")["model.bin"]["digest"],
    ]


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("pandas", "pyarrow", "zarr")),
    reason="no data tools: pip install pandas pyarrow zarr, to test the example of the page",
)
def test_the_example_with_data_tools_runs(
    swarm: Swarm,
    anna: Person,
    bert: Person,
    fs: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import pyarrow
    import zarr
    from pyarrow import parquet

    group, folder = anna.group_with(bert), swarm.folder()
    (folder / "table.csv").write_text("a,b\n" + "1,2\n" * 100)
    parquet.write_table(pyarrow.table({"a": [1], "b": [2]}), folder / "table.parquet")
    zarr.create_array(str(folder / "array.zarr"), shape=(9, 2), dtype="int8")[:] = 1
    for path in folder.iterdir():
        anna.share(path, group)
    monkeypatch.setenv("MINI_TORRENT_HOME", str(bert.home))
    type(fs).clear_instance_cache()
    code = re.findall(r"```python\n(.*?)```", (ROOT / "docs/fsspec.md").read_text(), re.DOTALL)[1]
    exec(compile(re.sub(r"\blab/", f"{group}/", code), "docs/fsspec.md", "exec"), {})
    assert capsys.readouterr().out.split("\n")[:3] == ["10", "1", "(3, 2)"]


# -- data tools ---------------------------------------------------------------------------------


@pytest.fixture
def slowly(anna: Person) -> Iterator[None]:
    """Anna's peer sends so slowly that a file of some MB takes longer than its first rows."""
    anna.ok("limit", "--up", "400K")
    yield
    anna.ok("limit", "--up", "off")


def test_pandas_reads_a_table_while_it_is_fetched(
    swarm: Swarm, anna: Person, bert: Person, group: str, fs: Any, slowly: None
) -> None:
    pandas = needed("pandas")
    path = swarm.folder() / "table.csv"
    lines = [f"{row},{row * row},{row % 7}\n" for row in range(ROWS)]
    path.write_text("a,b,c\n" + "".join(lines))
    anna.share(path, group, "--piece-size", "64K")
    where, options = f"minitorrent://{group}/table.csv", {"home": str(bert.home)}
    with fs.open(where, block_size=100_000) as file:
        first = pandas.read_csv(file, nrows=10)
    assert list(first["b"]) == [row * row for row in range(10)]
    assert not is_whole(bert, group, "table.csv")
    anna.ok("limit", "--up", "off")
    whole = pandas.read_csv(where, storage_options=options)
    assert whole.equals(pandas.read_csv(path))


def test_pyarrow_reads_one_column_of_one_row_group(
    swarm: Swarm, anna: Person, bert: Person, group: str, fs: Any, slowly: None
) -> None:
    pyarrow = needed("pyarrow")
    from pyarrow import parquet

    path = swarm.folder() / "table.parquet"
    text = content(2_000_000).hex()
    columns = {
        name: [text[row : row + 100] for row in range(first, first + 2_000_000, 100)]
        for name, first in (("a", 0), ("b", 2_000_000))
    }
    table = pyarrow.table(columns)
    parquet.write_table(table, path, row_group_size=2_000, compression="none")
    anna.share(path, group, "--piece-size", "64K")
    where = f"{group}/table.parquet"
    with fs.open(where, cache_type="none") as file:
        part = parquet.ParquetFile(file).read_row_group(7, columns=["b"])
    assert part.column("b").to_pylist() == columns["b"][14_000:16_000]
    assert not is_whole(bert, group, "table.parquet")
    anna.ok("limit", "--up", "off")
    assert parquet.read_table(where, filesystem=fs).equals(table)


def test_zarr_reads_the_chunks_that_it_needs(
    swarm: Swarm, anna: Person, bert: Person, group: str, fs: Any
) -> None:
    zarr = needed("zarr")
    path = swarm.folder() / "array.zarr"
    made = zarr.create_array(
        str(path),
        shape=(64, 10_000),
        chunks=(4, 10_000),
        dtype="int32",
        compressors=None,
        fill_value=-1,
    )
    for row in range(60):  # the last chunk is none: its values are those of the fill
        made[row] = row
    anna.share(path, group, "--piece-size", "64K")
    options = {"home": str(bert.home)}
    array = zarr.open_array(f"minitorrent://{group}/array.zarr", mode="r", storage_options=options)
    assert (array[5:7] == [[5], [6]]).all()
    assert (array[62] == -1).all()
    assert not is_whole(bert, group, "array.zarr")
    assert (array[:] == made[:]).all()
    wait_for(lambda: bert.state_of(group, "array.zarr"), "the download")
