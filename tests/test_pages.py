"""The pages of docs/: python blocks run, errors are the real ones, relative links lead somewhere."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import isthmus
from isthmus.sources.planted import planted

ROOT = Path(__file__).parents[1]
RUN_PAGES = (
    *(
        "data",
        "models",
        "training",
        "tuning",
        "metrics",
        "report",
        "bundle",
        "diagnosis",
        "shipping",
    ),
    *("start", "coming_from", "new_market", "systems", "scale_tables"),
)
# Written by a command that takes hours or a quiet machine; all other pages must be there.
MADE_BY_COMMAND = {"docs/results.md", "docs/bench.md", "docs/truth.md"}


def blocks(page: str) -> list[str]:
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the table, the config and the runs that the pages speak of."""
    folder = tmp_path_factory.mktemp("pages")
    made = planted(rows=[1500, 1000], relation=np.eye(2), seed=3, names=["home", "search"])
    table = made.table.rename_columns(
        {"domain": "tab", "label": "click"} | _same("user_id", "item_id")
    )
    pq.write_table(table, folder / "clicks.parquet")
    mail = pa.array(["mail"] * 400)
    pq.write_table(
        table[:400].set_column(table.column_names.index("tab"), "tab", mail),
        folder / "mail.parquet",
    )
    adapter = {"name": "hamur", "bottleneck": 4, "rank": 2, "hyper_widths": [8]}
    config: dict[str, Any] = {
        "data": {
            "table": str(folder / "clicks.parquet"),
            "domain": "tab",
            "label": "click",
            "group": "user_id",
            "features": dict.fromkeys(("user_id", "item_id", "tab"), "categorical"),
        },
        "model": {"backbone": {"name": "mlp", "widths": [16, 8]}, "adapter": adapter},
        "train": {"epochs": 1, "batch_rows": 256, "looks_per_epoch": 1},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISTHMUS_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        for name, change in {
            "mlp": ["model.adapter.name=none"],
            "mlp-again": ["model.adapter.name=none", "train.seed=1"],
            "hamur": [],
        }.items():
            isthmus.fit("config.yaml", out=f"runs/{name}", set=change)
    return folder


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


@pytest.mark.parametrize("page", RUN_PAGES)
def test_python_blocks_run(page: str, work: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(work)
    found = blocks(page)
    assert found
    for code in found:
        exec(compile(code, f"docs/{page}.md", "exec"), {"__name__": "page"})


FAULTS: dict[str, Any] = {
    "item_id": None,  # the column goes
    "x": "text",
    "h": "categorical",
    "click": (17, 3),
    "tab": (5, None),
    "w": (9, -1.0),
    "v": (399, [1.0]),
}


@pytest.mark.parametrize("column", FAULTS)
def test_data_page_gives_the_errors_of_tables(
    column: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    rows, fault = 400, FAULTS[column]
    values: dict[str, list[Any]] = {
        "user_id": [i % 40 for i in range(rows)],
        "item_id": [i % 30 for i in range(rows)],
        "tab": ["home", "search"] * (rows // 2),
        "click": [0, 1, 1, 0] * (rows // 4),
        "x": [i / 7 for i in range(rows)],
        "w": [1.0] * rows,
        "v": [[1.0, 2.0]] * rows,
        "h": [[1, 2]] * rows,
    }
    kinds: dict[str, Any] = dict.fromkeys(("user_id", "item_id", "tab"), "categorical")
    kinds |= {"x": "numeric", "v": {"kind": "vector", "width": 2}, "h": "categorical_list"}
    if fault is None:
        values["itm_id"] = values.pop(column)
    elif fault == "text":
        values[column] = [str(value) for value in values[column]]
    elif isinstance(fault, str):
        kinds[column] = fault
    else:
        values[column][fault[0]] = fault[1]
    pq.write_table(pa.table(values), "clicks.parquet")
    data = {"domain": "tab", "label": "click", "weight": "w", "features": kinds}
    with pytest.raises(isthmus.SchemaError) as refused:
        isthmus.fit({"data": {"table": "clicks.parquet", **data}}, out="run")
    assert f"`{refused.value}`" in (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    assert not Path("run").exists()


def test_bundle_page_gives_the_errors_of_bundles(work: Path, monkeypatch: pytest.MonkeyPatch):
    page = (ROOT / "docs" / "bundle.md").read_text(encoding="utf-8")
    monkeypatch.chdir(work)
    bundle = Path("runs/hamur/bundle")
    weights, manifest = bundle / "weights.safetensors", bundle / "bundle.json"

    def refused(path: Path = bundle) -> str:
        with pytest.raises(isthmus.BundleError) as fault:
            isthmus.Bundle.load(path)
        return f"`{fault.value}`"

    whole, text = weights.read_bytes(), manifest.read_text()
    try:
        weights.write_bytes(whole[:-1])
        assert refused() in page
        weights.unlink()
        assert refused() in page
        manifest.write_text(json.dumps(json.loads(text) | {"format": 3, "isthmus": "9.0"}))
        assert refused() in page
        assert refused(Path("runs/hamur")) in page
    finally:
        weights.write_bytes(whole)
        manifest.write_text(text)


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page: Path):
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists():
            assert target.relative_to(ROOT).as_posix() in MADE_BY_COMMAND, f"{page.name}: {link}"
        elif anchor:
            assert anchor in anchors(target), f"{page.name}: {link}"
