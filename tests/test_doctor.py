"""`isthmus doctor`: what it finds of real imports, real folders and planted faults."""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from command_line import isthmus_in_process
from isthmus.doctor import Examination, Finding, examination, installed, machine, probing
from isthmus.doctor.installed import Asked
from isthmus.doctor.probing import Probed, probe
from isthmus.version import VERSION

FACTS: dict[str, Any] = {
    "threads": 2,
    "cuda": "",
    "gpus": [],
    "cache": "",
    "tables": 3,
    "bytes": 5_000_000,
    "fbgemm": ["fbgemm-gpu", "fbgemm-gpu-cpu"],
}
ASKED = (
    Asked("numpy", ">=2.0", "", "2.4.6"),
    Asked("wandb", ">=0.20", "wandb", ""),
    Asked("onnx", ">=1.20", "onnx", "1.23.2"),
    Asked("onnxruntime", ">=1.23", "onnx", "1.32.0"),
)


@pytest.fixture
def examined(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """An examination of a planted installation, on this machine as it is."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(examination, "cores", lambda: 4)
    monkeypatch.setattr(examination, "granted", lambda: None)
    monkeypatch.setattr(examination, "NVIDIA", tmp_path / "no driver")
    monkeypatch.setattr(examination, "version_of", lambda name: "")

    def give(asked: tuple[Asked, ...] = ASKED, faults: Any = None, **facts: Any) -> Examination:
        told = FACTS | {"cache": str(tmp_path / "cache"), **facts}
        monkeypatch.setattr(examination, "asked", lambda: asked)
        monkeypatch.setattr(examination, "probe", lambda modules: Probed(faults or {}, told))
        return examination.examine()

    return give


def finding(found: Examination, name: str) -> Finding:
    (one,) = (one for one in found.findings if one.name == name)
    return one


def test_a_sound_installation(examined: Any, tmp_path: Path):
    found = examined()
    assert not found.is_broken
    assert str(found).endswith("nothing is wrong")
    assert finding(found, "onnx").told == "works: onnx 1.23.2, onnxruntime 1.32.0"
    assert finding(found, "wandb").told == "not installed (pip install 'isthmus[wandb]')"
    assert f"{tmp_path}/cache" in finding(found, "cache").told
    assert "3 encoded tables, 5.0 MB" in finding(found, "cache").told
    assert found.to_dict()["findings"][0]["name"] == "Python"


def test_what_is_chosen_and_cannot_be_imported_is_broken(examined: Any):
    found = examined(faults={"onnxruntime": "ImportError: no such symbol"})
    one = finding(found, "onnx")
    assert one.broken
    assert one.trouble == "onnxruntime 1.32.0 cannot be imported: ImportError: no such symbol"
    assert one.mend == "pip install 'isthmus[onnx]'"
    assert "  onnx: broken: onnxruntime 1.32.0 cannot" in str(found)


def test_an_extra_in_part_is_not_chosen(examined: Any):
    found = examined((*ASKED[:3], Asked("onnxruntime", ">=1.23", "onnx", "")))
    assert not found.is_broken
    assert finding(found, "onnx").told.startswith("not installed, onnxruntime missing")


def test_packages_that_are_missing_or_too_old_are_broken(examined: Any):
    found = examined((Asked("numpy", ">=2.0", "", "1.26.4"), Asked("polars", ">=1.30", "", "")))
    assert finding(found, "numpy").trouble == "numpy must be >=2.0, got 1.26.4"
    assert finding(found, "polars").mend == "pip install 'polars>=1.30'"
    assert found.is_broken


def test_two_builds_of_fbgemm_clash(examined: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(examination, "version_of", lambda name: "1.8.0")
    one = finding(examined(), "fbgemm")
    assert one.broken
    assert one.mend.startswith("pip uninstall fbgemm-gpu fbgemm-gpu-cpu")
    one = finding(examined(fbgemm=["fbgemm-gpu"]), "fbgemm")
    assert one.trouble == "the CUDA build of fbgemm cannot work with a CPU build of torch"
    assert not finding(examined(fbgemm=["fbgemm-gpu-cpu"]), "fbgemm").trouble


def test_threads_are_held_against_cores(examined: Any, monkeypatch: pytest.MonkeyPatch):
    one = finding(examined(threads=16), "threads")
    assert one.trouble == "16 threads share 4 cores, and wait for each other"
    assert one.mend == "export OMP_NUM_THREADS=4"
    monkeypatch.setattr(examination, "granted", lambda: 1.5)  # what a container grants
    assert finding(examined(threads=4), "threads").mend == "export OMP_NUM_THREADS=1"
    monkeypatch.setenv("OMP_NUM_THREADS", "all")
    assert "must be a whole number, got 'all'" in finding(examined(), "threads").trouble


def test_a_gpu_that_torch_does_not_see(examined: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(examination, "NVIDIA", Path(__file__))
    assert "torch, built without CUDA, finds no GPU" in finding(examined(), "GPU").trouble
    gpus = [{"name": "Big", "bytes": 80 * 2**30}]
    assert finding(examined(gpus=gpus), "GPU").told == "Big, 80 GiB"


def test_a_cache_that_cannot_be_written_is_broken(examined: Any, tmp_path: Path):
    (tmp_path / "file").write_text("")
    one = finding(examined(cache=str(tmp_path / "file" / "cache")), "cache")
    assert one.broken
    assert one.trouble.endswith("cannot be written: Not a directory")
    assert "ISTHMUS_CACHE" in one.mend


def test_what_a_container_grants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "cpu.max"
    monkeypatch.setattr(machine, "CGROUP", file)
    assert machine.granted() is None
    file.write_text("150000 100000\n")
    assert machine.granted() == 1.5
    file.write_text("max 100000\n")
    assert machine.granted() is None


def test_bounds_are_read_from_the_metadata():
    names = {one.name: one for one in installed.asked() if not one.extra}
    assert names["numpy"].bounds == ">=2.0"
    assert not names["numpy"].is_too_old
    assert names["pyyaml"].module == "yaml"
    assert Asked("x", ">=2.10", "", "2.9.1").is_too_old
    assert not Asked("x", ">=2.9", "", "2.13.0+cpu").is_too_old
    assert not Asked("x", ">=5.0", "", "5.0.0b1").is_too_old


def test_a_module_that_kills_its_process_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "dies_at_import.py").write_text("import os; os._exit(3)")
    (tmp_path / "raises_at_import.py").write_text("print('noise'); raise OSError('no symbol x')")
    paths = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    monkeypatch.setenv("PYTHONPATH", paths)
    found = probe(["json", "dies_at_import", "raises_at_import", "numpy"])
    assert found.faults == {
        "dies_at_import": "the process ended with code 3",
        "raises_at_import": "OSError: no symbol x",
    }
    assert found.facts["threads"] >= 1
    assert found.facts["cache"] == os.environ["ISTHMUS_CACHE"]


def test_the_command(examined: Any):
    examined()
    result = isthmus_in_process("doctor", "--json", "-")
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert told["isthmus"] == VERSION
    assert told["broken"] is False
    examined(faults={"numpy": "ImportError: gone"})
    result = isthmus_in_process("doctor")
    assert result.exit_code == 1
    assert re.search(
        r"numpy: broken: numpy 2\.4\.6 cannot be imported: ImportError: gone", result.stdout
    )
    assert probing.SECONDS > 60
