"""A bundle that is damaged, cut, newer, or that leads out of its folder is refused by name."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as drawing
from hypothesis import strategies as st

import isthmus
from command_line import ISTHMUS
from isthmus.bundle import MANIFEST, Bundle
from isthmus.bundle.manifest import _checksum, read_manifest
from isthmus.disk import sha256
from isthmus.errors import BundleError
from small_runs import clicks, settings, write_table


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> isthmus.Run:
    """A run with statistics, whose bundle has files of every kind but parts."""
    folder = tmp_path_factory.mktemp("faults")
    changes = ["data.features.user={kind: categorical, dim: 4, statistics: true}"]
    config = isthmus.load_config(settings(epochs=1), changes)
    return isthmus.fit(config, clicks(), out=folder / "run", cache=folder / "cache")


@pytest.fixture
def folder(run: isthmus.Run, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(run.path / "bundle", tmp_path / "bundle"))


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def refused(folder: Path) -> str:
    with pytest.raises(BundleError) as fault:
        Bundle.load(folder)
    return str(fault.value)


def rewritten(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest, as somebody would who knows how its checksum is made."""
    path = folder / MANIFEST
    told = json.loads(path.read_text())
    change(told)
    body = {name: value for name, value in told.items() if name not in ("format", "sha256")}
    path.write_text(json.dumps(told | {"sha256": _checksum(body)}))


def test_one_bit_flipped_in_any_file_is_found(run: isthmus.Run, folder: Path):
    names = [path.relative_to(folder) for path in files(folder)]
    assert {path.suffix for path in names} == {".json", ".safetensors", ".parquet"}

    @drawing(max_examples=120)
    @given(st.sampled_from(names), st.integers(0, 10**9), st.integers(0, 7))
    def found(name: Path, place: int, bit: int) -> None:
        whole = (folder / name).read_bytes()
        place %= len(whole)
        flipped = bytes([whole[place] ^ 1 << bit])
        (folder / name).write_bytes(whole[:place] + flipped + whole[place + 1 :])
        try:
            assert name.name in refused(folder)
        finally:
            (folder / name).write_bytes(whole)

    found()
    Bundle.load(folder)


def test_a_file_that_is_cut_short_anywhere_is_found(folder: Path):
    for path in files(folder):
        whole = path.read_bytes()
        for left in (0, 1, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:left])
            if (path.name, left) == (MANIFEST, len(whole) - 1):  # but for the end of the last line
                Bundle.load(folder)
                continue
            assert path.name in refused(folder), left
        path.write_bytes(whole)
    Bundle.load(folder)


def test_the_format_is_that_of_the_content(folder: Path):
    """1 and 2 are one byte apart, and both are read."""
    path = folder / MANIFEST
    path.write_text(path.read_text().replace('"format": 1', '"format": 2', 1))
    assert refused(folder).endswith(f"{path} is damaged: its format is not that of its content")


def test_a_newer_bundle_and_a_newer_encoder_are_named(folder: Path):
    rewritten(folder, lambda told: told.update(format=4, isthmus="9.0"))
    assert "bundle must have format 1 or 2, got 4 in " in refused(folder)
    assert "written by isthmus 9.0" in refused(folder)


@pytest.mark.parametrize(
    "name",
    [
        "../secret",
        "encoder/../../secret",
        "/etc/hostname",
        "./weights.safetensors",
        "",
        ".",
        "a//b",
    ],
)
def test_a_name_that_leads_out_of_the_folder_is_refused(folder: Path, name: str):
    (folder.parent / "secret").write_text("secret")
    for old in ("weights.safetensors", "encoder/encoder.json"):
        before = (folder / MANIFEST).read_text()
        rewritten(
            folder, lambda told, old=old: told["files"].update({name: told["files"].pop(old)})
        )
        told = f"a bundle must name files of its own folder, got {name!r} in {folder / MANIFEST}"
        assert refused(folder) == told
        (folder / MANIFEST).write_text(before)


def test_an_encoder_that_names_a_file_elsewhere_is_refused(folder: Path):
    """Its own file names other files; those are checked, too, before one is opened."""
    path = folder / "encoder" / "encoder.json"
    whole = json.loads(path.read_text())
    outside = folder.parent / "outside.parquet"
    shutil.copy(folder / "encoder" / "vocabulary-0.parquet", outside)

    def write(told: dict[str, Any]) -> None:
        path.write_text(json.dumps(told))
        digest = sha256(path)
        rewritten(folder, lambda held: held["files"].update({"encoder/encoder.json": digest}))

    entry = next(iter(whole["vocabularies"].values()))
    for name in ("../../outside.parquet", str(outside)):
        entry["file"] = name
        write(whole)
        assert f"encoder must name files beside it, got {name!r} in {path}" in refused(folder)
    entry["file"] = "vocabulary-0.parquet"
    ((taught, digest),) = whole["taught"].items()
    write(whole | {"taught": {f"../encoder/{taught}": digest}})
    assert f"encoder must name files beside it, got '../encoder/{taught}'" in refused(folder)


@pytest.mark.parametrize("name", [MANIFEST, "weights.safetensors", "encoder", "encoder/more"])
def test_a_link_is_refused_wherever_it_leads(folder: Path, name: str):
    """Also to a sound file, a folder, or nowhere: nothing behind it is read."""
    path, moved = folder / name, folder.parent / "moved"
    if path.exists():
        path.rename(moved)
    path.symlink_to(moved)
    assert refused(folder) == f"a bundle must hold no link, got {path} to {moved}"


def test_what_is_no_file_is_refused_and_not_waited_for(folder: Path):
    (folder / "weights.safetensors").unlink()
    os.mkfifo(folder / "weights.safetensors")
    assert refused(folder).startswith("a bundle must hold files only, got ")
    (folder / "weights.safetensors").unlink()
    (folder / "weights.safetensors").mkdir()
    assert "weights.safetensors cannot be read: [Errno 21] Is a directory" in refused(folder)


def test_the_folder_itself_may_be_reached_by_a_link(folder: Path):
    """As a server does that follows `current`."""
    (folder.parent / "current").symlink_to(folder)
    assert read_manifest(folder.parent / "current") == read_manifest(folder)


def test_a_command_refuses_a_damaged_bundle_by_name(run: isthmus.Run, tmp_path: Path):
    copy = Path(shutil.copytree(run.path, tmp_path / "run"))
    weights = copy / "bundle" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    words = ["predict", copy, write_table(tmp_path), "-o", tmp_path / "out.parquet"]
    done = subprocess.run([*ISTHMUS, *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 2
    assert f"bundle file {weights} is damaged: its checksum does not match" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out.parquet").exists()
